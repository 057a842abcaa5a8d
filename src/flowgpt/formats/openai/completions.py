"""OpenAI's legacy completions, both ways: a prompt is asked as one user message. Values only.

Source: OpenAI's OpenAPI description, CreateCompletionRequest and CreateCompletionResponse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from ..parameters import honoured, refused, wrong
from ..pieces import Ask, Piece, Turn
from ..values import Value
from .chat import Answer, CompletionUsage, FinishReason, ending, text
from .chat_request import CompletionParameters, stop_sequences
from .chunks import ChunkEncoder


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
    words = "it must be one text; FlowGPT takes no tokens, and several prompts must be asked one by one"
    raise wrong("prompt", words, "unsupported_content")


class CompletionAnswer(Answer[Completion, Completion]):
    """An `Answer` in the legacy shapes."""

    def _whole(self, answers: Sequence[Sequence[Piece]], usage: CompletionUsage) -> Completion:
        return self._made([_choice(pieces, index) for index, pieces in enumerate(answers)], usage)

    def _chunks(self, piece: Piece, index: int) -> Iterator[Completion]:
        yield self._made([_choice((piece,), index)])

    def _last(self, usage: CompletionUsage) -> Completion:
        return self._made([], usage)

    def _made(self, choices: list[CompletionChoice], usage: CompletionUsage | None = None) -> Completion:
        return Completion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)


def _choice(pieces: Sequence[Piece], index: int) -> CompletionChoice:
    return CompletionChoice(index=index, text=text(pieces), finish_reason=ending(pieces))


class CompletionEncoder(ChunkEncoder):
    """Legacy completions, unstreamed or streamed."""

    _answers = CompletionAnswer
    _prefix = "cmpl-"
    _empty = b'"text":'
