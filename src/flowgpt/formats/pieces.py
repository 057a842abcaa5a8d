"""What travels through the gateway: a question in nobody's dialect down, and the pieces of its answer up. Values only.

A **piece** is a text (`str`) or a `ToolCall`; the last one is an `End` or a `Failure`. A **stage** is a function from
pieces to pieces: each emulation is one. A **dialect** turns its requests into an `Ask`, and pieces into its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from ..errors import FlowGPTError
from ..messages import Message

Reason = Literal["stop", "stop_sequence", "length", "tool_calls"]


class ToolCall(msgspec.Struct, frozen=True):
    """The model wants a tool called. `arguments`: a JSON object, as text."""

    id: str
    name: str
    arguments: str


class End(msgspec.Struct, frozen=True):
    """The answer's end. `reason`: None when nothing proves that the answer came whole. `sequence`: what stopped it."""

    reason: Reason | None = "stop"
    sequence: str | None = None


class Failure(msgspec.Struct, frozen=True):
    """The answer broke off; all that came before it has been handed on."""

    error: FlowGPTError


class Again(msgspec.Struct, frozen=True):
    """Instead of an end, before any other piece has left: ask once more, with these messages behind the others."""

    messages: tuple[Message, ...]


Piece = str | ToolCall | End | Failure | Again

Stage = Callable[[Sequence[Piece]], list[Piece]]
"""Called with what comes, batch by batch; gives what may go on, and may hold back the rest until it knows.

The last piece that comes is an End or a Failure: then it gives out all that it held and that is of use. It may say End
earlier, and is not called again. After an `Again` come the pieces of the next answer, from their beginning.
"""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `calls`: of the assistant. `call_id`: with the role `tool`, which call `text` is the result of."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


# Dataclasses: a Struct cannot leave a field out of comparison.
@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call. `parameters`: a JSON schema. `strict`: arguments must be valid by it.

    `param`: where the schema stands in the request, for the word that it cannot be used.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False
    param: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonOutput:
    """The answer must be a JSON object; with a `schema`, a value that is valid by it. `param`: as in `Tool`."""

    schema: Mapping[str, Any] | None = None
    param: str | None = field(default=None, compare=False)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A question as every dialect means it. `n`: how many answers.

    `tool_choice` "required": at least one of `tools` is called. A choice of none, or of some, leaves only those there.
    `max_tokens`: by formats.estimate.
    """

    model: str
    turns: Sequence[Turn]
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    n: int = 1
    output: JsonOutput | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "required"] = "auto"
    parallel_tool_calls: bool = True


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder needs to know of an answer. `new_id`: makes a fresh id with a prefix, as `new_id("call_")`.

    `model`: who answers. `created`: Unix seconds.
    """

    new_id: Callable[[str], str]
    created: int
    model: str
    prompt_characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A failure as HTTP tells it. `retriable`: whether the same request may succeed later."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    retriable: bool = False
    request_id: str | None = None
    partial_text: str = ""


class Encoder(Protocol):
    """One answer in a dialect. The stream: `start`, then `pieces` until each answer has its End, then `end`.

    Or, at any point, `failure`, after which nothing comes. `index`: which of the `n` answers. `Failure` and `Again`
    never come in here. Unstreamed, the pieces of each answer are handed over whole, Ends included.
    """

    def start(self) -> bytes: ...

    def pieces(self, pieces: Sequence[Piece], index: int = 0) -> bytes: ...

    def end(self) -> bytes: ...

    def failure(self, problem: Problem) -> bytes: ...

    def whole(self, answers: Sequence[Sequence[Piece]]) -> bytes: ...
