"""Anthropic's Messages API, what is answered: a Message as one object or as events, its errors, and its counts.

Values and bytes only; ids come in. Source: the types of Anthropic's Python SDK 2.12, Message, RawMessageStreamEvent,
ErrorResponse and MessageTokensCount.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from .. import sse
from ..estimate import size, tokens
from ..pieces import End, Facts, Piece, Problem, Reason, ToolCall
from ..values import Value

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]

STOP_REASONS: Mapping[Reason | None, StopReason | None] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    None: None,
}

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "overloaded_error",
    "timeout_error",
]

ERROR_TYPES: Mapping[int, ErrorType] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status; the other 4xx are an invalid_request_error, all else is an api_error."""


class TextBlock(Value, frozen=True, kw_only=True, tag="text"):
    """A text."""

    text: str


class ToolUseBlock(Value, frozen=True, kw_only=True, tag="tool_use"):
    """A tool is to be called with `input`."""

    id: str
    name: str
    input: dict[str, Any]


class Usage(Value, frozen=True, kw_only=True):
    """Tokens, by formats.estimate: right in magnitude, never an account."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    estimated: bool = True


class Message(Value, frozen=True, kw_only=True, tag="message"):
    """An answer. `stop_reason`: null at a stream's start, and when it cannot be proved that the answer came whole."""

    id: str
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage
    role: Literal["assistant"] = "assistant"


class TokensCount(Value, frozen=True, kw_only=True):
    """What a prompt would cost, estimated as in `Usage`."""

    input_tokens: int
    estimated: bool = True


class MessageStart(Value, frozen=True, kw_only=True, tag="message_start"):
    """The first event; `message` has no content yet."""

    message: Message


class ContentBlockStart(Value, frozen=True, kw_only=True, tag="content_block_start"):
    """A block begins, empty."""

    index: int
    content_block: TextBlock | ToolUseBlock


class TextDelta(Value, frozen=True, kw_only=True, tag="text_delta"):
    """More text."""

    text: str


class InputJsonDelta(Value, frozen=True, kw_only=True, tag="input_json_delta"):
    """More of a call's input, as JSON text."""

    partial_json: str


class ContentBlockDelta(Value, frozen=True, kw_only=True, tag="content_block_delta"):
    """More of the block."""

    index: int
    delta: TextDelta | InputJsonDelta


class ContentBlockStop(Value, frozen=True, kw_only=True, tag="content_block_stop"):
    """The block is whole."""

    index: int


class StopDelta(Value, frozen=True, kw_only=True):
    """Why the answer ends, as in `Message`."""

    stop_reason: StopReason | None
    stop_sequence: str | None


class MessageDelta(Value, frozen=True, kw_only=True, tag="message_delta"):
    """The end of the answer, with the figures of all of it."""

    delta: StopDelta
    usage: Usage


class MessageStop(Value, frozen=True, kw_only=True, tag="message_stop"):
    """The last event."""


StreamEvent = MessageStart | ContentBlockStart | ContentBlockDelta | ContentBlockStop | MessageDelta | MessageStop


class ErrorDetails(Value, frozen=True, kw_only=True):
    """Where Anthropic's own service and SDK have the stable code."""

    error_code: str


class ErrorObject(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong. `code`: stable. `param`: whose fault it is. `partial_text`: what had come."""

    type: ErrorType
    message: str
    code: str
    details: ErrorDetails
    param: str | None = None
    partial_text: str = ""


class ErrorResponse(Value, frozen=True, kw_only=True, tag="error", omit_defaults=True):
    """A failure: the body of a status, or the data of an `error` event."""

    error: ErrorObject
    request_id: str | None = None


def error_object(problem: Problem) -> dict[str, Any]:
    """A failure in Anthropic's shape."""
    return _error(problem).model_dump()


def count_tokens(characters: int) -> bytes:
    """The body of an answer to count_tokens: for the same prompt the same figure as in `Usage`."""
    return _json(TokensCount(input_tokens=tokens(characters)))


class MessagesEncoder:
    """One answer, as a Message or as its events. An `Encoder`; there is only ever one answer."""

    def __init__(self, facts: Facts, request: object) -> None:
        self._facts = facts
        self._id = facts.new_id("msg_")
        self._characters = 0
        self._block = -1
        self._text: tuple[bytes, bytes] | None = None  # while a text block is open: what stands around each text

    def start(self) -> bytes:
        return _frame(MessageStart(message=self._message([], End(None))))

    def pieces(self, pieces: Sequence[Piece], index: int = 0) -> bytes:
        out: list[bytes] = []
        for piece in pieces:
            self._characters += size(piece)
            if isinstance(piece, str):
                if piece:
                    head, tail = self._text or self._begin_text(out)
                    out += head, _json(piece), tail
            elif isinstance(piece, ToolCall):
                self._call(out, piece)
            elif isinstance(piece, End):
                self._close_text(out)
                delta = StopDelta(stop_reason=STOP_REASONS[piece.reason], stop_sequence=piece.sequence)
                out.append(_frame(MessageDelta(delta=delta, usage=self._usage())))
        return b"".join(out)

    def end(self) -> bytes:
        return _frame(MessageStop())

    def failure(self, problem: Problem) -> bytes:
        return _frame(_error(problem))

    def whole(self, answers: Sequence[Sequence[Piece]]) -> bytes:
        (pieces,) = answers
        content = list(_blocks(pieces))
        self._characters = sum(map(size, pieces))
        end = next((piece for piece in pieces if isinstance(piece, End)), End(None))
        return _json(self._message(content, end))

    def _begin_text(self, out: list[bytes]) -> tuple[bytes, bytes]:
        self._block += 1
        out.append(_frame(ContentBlockStart(index=self._block, content_block=TextBlock(text=""))))
        head, tail = _frame(ContentBlockDelta(index=self._block, delta=TextDelta(text=""))).split(b'""')
        self._text = head, tail
        return self._text

    def _close_text(self, out: list[bytes]) -> None:
        if self._text is not None:
            out.append(_frame(ContentBlockStop(index=self._block)))
            self._text = None

    def _call(self, out: list[bytes], call: ToolCall) -> None:
        self._close_text(out)
        self._block += 1
        begun = ToolUseBlock(id=call.id, name=call.name, input={})
        out += (
            _frame(ContentBlockStart(index=self._block, content_block=begun)),
            _frame(ContentBlockDelta(index=self._block, delta=InputJsonDelta(partial_json=call.arguments))),
            _frame(ContentBlockStop(index=self._block)),
        )

    def _message(self, content: list[TextBlock | ToolUseBlock], end: End) -> Message:
        return Message(
            id=self._id,
            model=self._facts.model,
            content=content,
            stop_reason=STOP_REASONS[end.reason],
            stop_sequence=end.sequence,
            usage=self._usage(),
        )

    def _usage(self) -> Usage:
        return Usage(input_tokens=tokens(self._facts.prompt_characters), output_tokens=tokens(self._characters))


def _blocks(pieces: Sequence[Piece]) -> Iterator[TextBlock | ToolUseBlock]:
    """The content: texts that follow each other are one block."""
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        if text := "".join(texts):
            yield TextBlock(text=text)
        texts = []
        if isinstance(piece, ToolCall):
            yield ToolUseBlock(id=piece.id, name=piece.name, input=msgspec.json.decode(piece.arguments))


def _error(problem: Problem) -> ErrorResponse:
    rest: ErrorType = "invalid_request_error" if 400 <= problem.status < 500 else "api_error"
    return ErrorResponse(
        error=ErrorObject(
            type=ERROR_TYPES.get(problem.status, rest),
            message=problem.message,
            code=problem.code,
            details=ErrorDetails(error_code=problem.code),
            param=problem.param,
            partial_text=problem.partial_text,
        ),
        request_id=problem.request_id,
    )


def _frame(event: StreamEvent | ErrorResponse) -> bytes:
    """An event under its type's name."""
    return sse.encode(_json(event), str(event.__struct_config__.tag))


_json = msgspec.json.Encoder().encode
