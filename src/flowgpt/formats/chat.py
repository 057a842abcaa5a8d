"""OpenAI's chat completions: a reply as one object, or as the chunks of a stream. Values only; ids and time come in.

Source: OpenAI's OpenAPI description, CreateChatCompletionResponse and CreateChatCompletionStreamResponse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ..messages import Verdict

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]

CHARACTERS_PER_TOKEN = 4
"""The rule of thumb for English text. FlowGPT reports no usage and its models' tokenizers are unknown."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One object of the API, frozen; it compares by value."""

    def model_dump(self) -> dict[str, Any]:
        """The object as plain dicts and lists."""
        builtins: dict[str, Any] = msgspec.to_builtins(self)
        return builtins

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The object as JSON text."""
        text = msgspec.json.encode(self)
        return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()


class CompletionUsage(Value, frozen=True, kw_only=True):
    """Tokens, estimated from characters (CHARACTERS_PER_TOKEN): right in magnitude, never an account."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool = True


class ChatCompletionMessage(Value, frozen=True, kw_only=True):
    """The assistant's turn."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class Choice(Value, frozen=True, kw_only=True):
    """The one answer. `finish_reason`: "stop" when the reply surely came whole, None when that cannot be proved."""

    message: ChatCompletionMessage
    finish_reason: FinishReason | None
    index: int = 0
    logprobs: None = None


class ChatCompletion(Value, frozen=True, kw_only=True):
    """A whole reply."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    object: Literal["chat.completion"] = "chat.completion"


class ChoiceDelta(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What a chunk adds; `role` in the first one only."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Value, frozen=True, kw_only=True):
    """The one answer's next piece; `finish_reason` as in `Choice`, in the last one only."""

    delta: ChoiceDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class ChatCompletionChunk(Value, frozen=True, kw_only=True):
    """One text of a streamed reply, or its end. `usage`: in one more chunk, without choices, when it was asked for."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


def finish_reason(verdict: Verdict | None) -> FinishReason | None:
    """What may be said of a reply's end: "stop" when it is `complete`, else nothing."""
    return "stop" if verdict == "complete" else None


def characters(messages: Iterable[Any]) -> int:
    """How many characters the messages' texts have. What is no message counts nothing: judging is the provider's."""
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, (list, tuple)) for part in content]
    texts = contents + [part.get("text") for part in parts if isinstance(part, Mapping)]
    return sum(len(text) for text in texts if isinstance(text, str))


def usage(prompt_characters: int, reply_characters: int) -> CompletionUsage:
    """The estimate: characters divided by CHARACTERS_PER_TOKEN, rounded up."""
    prompt, reply = (-(-count // CHARACTERS_PER_TOKEN) for count in (prompt_characters, reply_characters))
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=reply, total_tokens=prompt + reply)


@dataclass(slots=True, kw_only=True)
class Answer:
    """One reply on its way into OpenAI's shapes: whole by `completion`, or by `chunks` for each batch and one `end`."""

    id: str
    created: int
    model: str
    prompt_characters: int
    include_usage: bool = False
    _begun: bool = False
    _reply_characters: int = 0

    def completion(self, text: str, verdict: Verdict | None) -> ChatCompletion:
        """The whole reply."""
        choice = Choice(message=ChatCompletionMessage(content=text), finish_reason=finish_reason(verdict))
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[choice],
            usage=usage(self.prompt_characters, len(text)),
        )

    def chunks(self, texts: Sequence[str]) -> list[ChatCompletionChunk]:
        """One chunk for each text; the very first has the role."""
        made = []
        for text in texts:
            delta = ChoiceDelta(content=text) if self._begun else ChoiceDelta(role="assistant", content=text)
            self._begun = True
            self._reply_characters += len(text)
            made.append(self._chunk(ChunkChoice(delta=delta)))
        return made

    def end(self, verdict: Verdict | None) -> list[ChatCompletionChunk]:
        """The last chunks: the finish reason, and the usage when it was asked for."""
        last = [self._chunk(ChunkChoice(delta=ChoiceDelta(), finish_reason=finish_reason(verdict)))]
        if self.include_usage:
            last.append(self._chunk(usage=usage(self.prompt_characters, self._reply_characters)))
        return last

    def _chunk(self, *choices: ChunkChoice, usage: CompletionUsage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id, created=self.created, model=self.model, choices=list(choices), usage=usage
        )
