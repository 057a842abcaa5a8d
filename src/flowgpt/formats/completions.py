"""OpenAI's legacy completions, both ways: a prompt is asked as one user message. Values only.

Source: OpenAI's OpenAPI description, CreateCompletionRequest and CreateCompletionResponse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ..errors import InvalidRequestError
from .chat import CompletionUsage, FinishReason, Value, ending, size, text, usage
from .chat_request import CompletionParameters, include_usage, stop_sequences
from .chunks import ChunkEncoder
from .parameters import honoured, refused
from .pieces import Ask, Facts, Piece, Turn


class CompletionRequest(CompletionParameters, kw_only=True):
    """POST /v1/completions."""

    prompt: Annotated[str | list[Any], honoured("one text; it is asked as a user's message, and not continued")]
    best_of: Annotated[Any, refused("FlowGPT gives no probabilities to choose by", harmless=[0, 1])] = None
    echo: Annotated[Any, refused("the answer has the model's words only", harmless=[False])] = None
    logprobs: Annotated[Any, refused("FlowGPT gives no probabilities")] = None
    suffix: Annotated[Any, refused("FlowGPT cannot insert into a text", harmless=[""])] = None


class CompletionChoice(Value, frozen=True, kw_only=True):
    """One answer, or its next text. `finish_reason`: as in `chat.Choice`; in a stream, in the last one only."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None = None


class Completion(Value, frozen=True, kw_only=True):
    """A whole reply, or a chunk of it. `usage`: in a stream, in one more chunk, without choices, when asked for."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None


def ask(request: CompletionRequest) -> Ask:
    """The question that the request is. Raises: InvalidRequestError with `param`."""
    return Ask(
        model=request.model,
        turns=[Turn(role="user", text=_prompt(request.prompt))],
        temperature=request.temperature,
        stop=stop_sequences(request),
        max_tokens=request.max_tokens,
        n=request.n or 1,
    )


def _prompt(prompt: str | list[Any]) -> str:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if len(texts) == 1 and isinstance(texts[0], str):
        return texts[0]
    words = "prompt: must be one text; FlowGPT takes no tokens, and several prompts must be asked one by one"
    raise InvalidRequestError(words, code="unsupported_content", param="prompt")


@dataclass(slots=True, kw_only=True)
class CompletionAnswer:
    """As `chat.Answer`, in the legacy shapes."""

    id: str
    created: int
    model: str
    prompt_characters: int
    include_usage: bool = False
    reply_characters: int = 0

    def completion(self, *answers: Sequence[Piece]) -> Completion:
        """The whole: the pieces of each answer, its End among them."""
        choices = [
            CompletionChoice(index=index, text=text(pieces), finish_reason=ending(pieces))
            for index, pieces in enumerate(answers)
        ]
        return self._made(choices, usage(self.prompt_characters, sum(map(size, answers))))

    def chunks(self, pieces: Sequence[Piece], index: int = 0) -> list[Completion]:
        """The next pieces of one answer, each a chunk."""
        self.reply_characters += size(pieces)
        return [
            self._made([CompletionChoice(index=index, text=text((piece,)), finish_reason=ending((piece,)))])
            for piece in pieces
        ]

    def end(self) -> list[Completion]:
        """What comes after all answers have ended: the usage, when it was asked for."""
        return [self._made([], usage(self.prompt_characters, self.reply_characters))] if self.include_usage else []

    def _made(self, choices: list[CompletionChoice], usage: CompletionUsage | None = None) -> Completion:
        return Completion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)


class CompletionEncoder(ChunkEncoder):
    """Legacy completions, unstreamed or streamed."""

    _empty = b'"text":'

    def __init__(self, facts: Facts, request: CompletionRequest) -> None:
        answer = CompletionAnswer(
            id=facts.new_id("cmpl-"),
            created=facts.created,
            model=facts.model,
            prompt_characters=facts.prompt_characters,
            include_usage=include_usage(request),
        )
        super().__init__(answer)
