"""OpenAI's streams of completions as bytes: a frame for each chunk, `[DONE]` at the end, or one error frame instead.

The objects in the frames are those of chat.py and completions.py; here is only how they go out, and fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

import msgspec

from .. import sse
from ..pieces import Facts, Piece, Problem
from ..values import Value
from .chat import Answer, ChatAnswer, error_object
from .chat_request import CompletionParameters, include_usage

DONE = b"data: [DONE]\n\n"
NO_USAGE = b',"usage":null}'

_json = msgspec.json.Encoder().encode


class ChunkEncoder:
    """An `Encoder`. Texts go between constant bytes, which are cut out of the frame of an empty one."""

    _answers: ClassVar[type[Answer[Any, Any]]]
    _prefix: ClassVar[str]
    _empty: ClassVar[bytes]
    _role: ClassVar[bytes] = b""
    """What makes the objects; how their ids begin; what stands before a chunk's text; what only the first one says."""

    def __init__(self, facts: Facts, request: CompletionParameters) -> None:
        self._answer = self._answers(
            id=facts.new_id(self._prefix),
            created=facts.created,
            model=facts.model,
            prompt_characters=facts.prompt_characters,
            include_usage=include_usage(request),
        )
        self._around: dict[int, tuple[bytes, bytes, bytes]] = {}

    def start(self) -> bytes:
        return b""

    def pieces(self, pieces: Sequence[Piece], index: int = 0) -> bytes:
        if {*map(type, pieces)} != {str}:
            return self._frames(self._answer.chunks(pieces, index))
        texts = cast(Sequence[str], pieces)
        first, head, tail = self._around.get(index) or self._cut(index)
        self._answer.reply_characters += sum(map(len, texts))
        return first + (tail + head).join(map(_json, texts)) + tail

    def _cut(self, index: int) -> tuple[bytes, bytes, bytes]:
        """What stands before an answer's next text, between the others, and behind the last; its role is said once."""
        # The name and quotes of an empty text stand nowhere else: within a string JSON escapes quotes.
        first, _, tail = self._frames(self._answer.chunks([""], index)).partition(self._empty + b'""')
        head = first.replace(self._role, b"") + self._empty
        self._around[index] = head, head, tail
        return first + self._empty, head, tail

    def end(self) -> bytes:
        return self._frames(self._answer.end()) + DONE

    def failure(self, problem: Problem) -> bytes:
        return sse.encode(_json(error_object(problem)))

    def whole(self, answers: Sequence[Sequence[Piece]]) -> bytes:
        return _json(self._answer.completion(*answers))

    def _frames(self, chunks: Iterable[Value]) -> bytes:
        return b"".join([sse.encode(self._encoded(chunk)) for chunk in chunks])

    def _encoded(self, chunk: Value) -> bytes:
        """The chunk; `usage` is not even null when nobody asked for it."""
        data = _json(chunk)
        return data if self._answer.include_usage else data.removesuffix(NO_USAGE) + b"}"


class ChatEncoder(ChunkEncoder):
    """Chat completions, unstreamed or streamed."""

    _answers = ChatAnswer
    _prefix = "chatcmpl-"
    _empty = b'"content":'
    _role = b'"role":"assistant",'
