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
    """What makes the objects; how their ids begin; and what an empty text makes of a chunk, up to the text."""

    def __init__(self, facts: Facts, request: CompletionParameters) -> None:
        self._answer = self._answers(
            id=facts.new_id(self._prefix),
            created=facts.created,
            model=facts.model,
            prompt_characters=facts.prompt_characters,
            include_usage=include_usage(request),
        )
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def start(self) -> bytes:
        return b""

    def pieces(self, pieces: Sequence[Piece], index: int = 0) -> bytes:
        if not pieces:
            return b""
        begun = b""
        if index not in self._around:  # the first chunk says more than the others
            begun, pieces = self._frames(self._answer.chunks(pieces[:1], index)), pieces[1:]
            head, _, tail = self._frames(self._answer.chunks([""], index)).partition(self._empty + b'""')
            self._around[index] = head + self._empty, tail
        if {*map(type, pieces)} != {str}:
            return begun + self._frames(self._answer.chunks(pieces, index))
        texts = cast(Sequence[str], pieces)
        self._answer.reply_characters += sum(map(len, texts))
        head, tail = self._around[index]
        return begun + head + (tail + head).join(map(_json, texts)) + tail

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
