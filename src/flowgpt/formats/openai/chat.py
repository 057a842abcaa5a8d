"""OpenAI's chat completions, what is answered: one object, or the chunks of a stream. Values; ids and time come in.

Source: OpenAI's OpenAPI description, CreateChatCompletionResponse and CreateChatCompletionStreamResponse.
What is asked is in chat_request.py, the stream's bytes are in chunks.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from ...messages import Verdict
from ..estimate import size, tokens
from ..pieces import End, Piece, Problem, Reason, ToolCall
from ..values import Value

Whole = TypeVar("Whole", bound=Value)
Chunk = TypeVar("Chunk", bound=Value)

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]

FINISH_REASONS: Mapping[Reason | None, FinishReason] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
}
"""What OpenAI calls the reasons why an answer ends; nothing is said of an end that cannot be proved."""


class CompletionUsage(Value, frozen=True, kw_only=True):
    """Tokens, by formats.estimate: right in magnitude, never an account."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool = True


class Function(Value, frozen=True, kw_only=True):
    """Which function a call calls. `arguments`: a JSON object, as text."""

    name: str
    arguments: str


class FunctionToolCall(Value, frozen=True, kw_only=True):
    """The model wants a tool called."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class ChatCompletionMessage(Value, frozen=True, kw_only=True, omit_defaults=True):
    """The assistant's turn; without `content` when it only calls tools."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[FunctionToolCall] | None = None


class Choice(Value, frozen=True, kw_only=True):
    """One answer. `finish_reason`: "stop" when the reply surely came whole, None when that cannot be proved."""

    index: int = 0
    message: ChatCompletionMessage
    logprobs: None = None
    finish_reason: FinishReason | None


class ChatCompletion(Value, frozen=True, kw_only=True):
    """A whole reply, or `n` of them."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class FunctionDelta(Value, frozen=True, kw_only=True, omit_defaults=True):
    """More of a call's function; `name` at its beginning only."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Value, frozen=True, kw_only=True, omit_defaults=True):
    """More of the call with that index; `id` and `type` at its beginning only."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class ChoiceDelta(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What a chunk adds; `role` in the first one only."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Value, frozen=True, kw_only=True):
    """One answer's next piece; `finish_reason` as in `Choice`, in the last one only."""

    index: int = 0
    delta: ChoiceDelta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Value, frozen=True, kw_only=True):
    """One piece of a streamed reply, or its end. `usage`: in one more chunk, without choices, when it was asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


def finish_reason(verdict: Verdict | None) -> Literal["stop"] | None:
    """What may be said of a reply's end: "stop" when it is `complete`, else nothing."""
    return "stop" if verdict == "complete" else None


def usage(prompt_characters: int, reply_characters: int) -> CompletionUsage:
    """The estimate, as OpenAI has it."""
    prompt, reply = tokens(prompt_characters), tokens(reply_characters)
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=reply, total_tokens=prompt + reply)


def text(pieces: Iterable[Piece]) -> str:
    """The texts among the pieces, joined."""
    return "".join(piece for piece in pieces if isinstance(piece, str))


def ending(pieces: Iterable[Piece]) -> FinishReason | None:
    """How the answer ended."""
    return next((FINISH_REASONS.get(piece.reason) for piece in pieces if isinstance(piece, End)), None)


def error_object(problem: Problem) -> dict[str, Any]:
    """A failure as OpenAI's error object. `partial_text`: ours, what had come of an answer that broke off."""
    error: dict[str, Any] = {
        "message": problem.message,
        "type": _error_type(problem),
        "param": problem.param,
        "code": problem.code,
    }
    if problem.partial_text:
        error["partial_text"] = problem.partial_text
    return {"error": error}


def _error_type(problem: Problem) -> str:
    if problem.code == "quota_exceeded":
        return "insufficient_quota"
    if problem.status >= 500:
        return "server_error"
    named = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return named.get(problem.status, "invalid_request_error")


@dataclass(slots=True, kw_only=True)
class Answer(ABC, Generic[Whole, Chunk]):
    """One reply or `n` on the way into OpenAI's shapes: whole by `completion`, or `chunks` of each batch and `end`.

    `reply_characters`: how much has gone into chunks.
    """

    id: str
    created: int
    model: str
    prompt_characters: int
    include_usage: bool = False
    reply_characters: int = 0

    def completion(self, *answers: Sequence[Piece]) -> Whole:
        """The whole: the pieces of each answer, its End among them."""
        return self._whole(answers, self._usage(size(piece) for answer in answers for piece in answer))

    def chunks(self, pieces: Sequence[Piece], index: int = 0) -> list[Chunk]:
        """The next pieces of one answer: a chunk for each text and for its End, two for a call."""
        self.reply_characters += sum(map(size, pieces))
        return [chunk for piece in pieces for chunk in self._chunks(piece, index)]

    def end(self) -> list[Chunk]:
        """What comes after all answers have ended: the usage, when it was asked for."""
        return [self._last(self._usage((self.reply_characters,)))] if self.include_usage else []

    def _usage(self, sizes: Iterable[int]) -> CompletionUsage:
        return usage(self.prompt_characters, sum(sizes))

    @abstractmethod
    def _whole(self, answers: Sequence[Sequence[Piece]], usage: CompletionUsage) -> Whole: ...

    @abstractmethod
    def _chunks(self, piece: Piece, index: int) -> Iterator[Chunk]: ...

    @abstractmethod
    def _last(self, usage: CompletionUsage) -> Chunk: ...


@dataclass(slots=True, kw_only=True)
class ChatAnswer(Answer[ChatCompletion, ChatCompletionChunk]):
    """An `Answer` of chat completions."""

    _calls: dict[int, int] = field(default_factory=dict)
    """How many calls each answer has made; one that is not in here has not begun."""

    def _whole(self, answers: Sequence[Sequence[Piece]], usage: CompletionUsage) -> ChatCompletion:
        choices = [_choice(pieces, index) for index, pieces in enumerate(answers)]
        return ChatCompletion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)

    def _chunks(self, piece: Piece, index: int) -> Iterator[ChatCompletionChunk]:
        return (self._chunk([choice]) for choice in self._choices(piece, index))

    def _last(self, usage: CompletionUsage) -> ChatCompletionChunk:
        return self._chunk([], usage)

    def _choices(self, piece: Piece, index: int) -> Iterator[ChunkChoice]:
        role: Literal["assistant"] | None = None if index in self._calls else "assistant"
        place = self._calls.setdefault(index, 0)
        if isinstance(piece, str):
            yield ChunkChoice(index=index, delta=ChoiceDelta(role=role, content=piece))
        elif isinstance(piece, End):
            yield ChunkChoice(index=index, delta=ChoiceDelta(role=role), finish_reason=ending((piece,)))
        elif isinstance(piece, ToolCall):
            self._calls[index] += 1
            begun = ToolCallDelta(
                index=place, id=piece.id, type="function", function=FunctionDelta(name=piece.name, arguments="")
            )
            yield ChunkChoice(index=index, delta=ChoiceDelta(role=role, tool_calls=[begun]))
            rest = ToolCallDelta(index=place, function=FunctionDelta(arguments=piece.arguments))
            yield ChunkChoice(index=index, delta=ChoiceDelta(tool_calls=[rest]))

    def _chunk(self, choices: list[ChunkChoice], usage: CompletionUsage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)


def _choice(pieces: Sequence[Piece], index: int) -> Choice:
    """One whole answer."""
    calls = [
        FunctionToolCall(id=piece.id, function=Function(name=piece.name, arguments=piece.arguments))
        for piece in pieces
        if isinstance(piece, ToolCall)
    ]
    content = text(pieces)
    message = ChatCompletionMessage(
        role="assistant",
        content=None if calls and not content else content,
        refusal=None,
        tool_calls=calls or None,
    )
    return Choice(index=index, message=message, finish_reason=ending(pieces))
