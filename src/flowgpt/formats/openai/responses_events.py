"""OpenAI's Responses API, what is answered: a Response, and the events of its stream. Values only.

Source: OpenAI's OpenAPI description, Response and ResponseStreamEvent. What makes them is in responses_encoder.py.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..values import Value
from .responses_items import OutputItem, OutputText, Status
from .responses_request import FunctionTool, TextConfig, ToolChoiceParam


class InputTokensDetails(Value, frozen=True, kw_only=True):
    """Nothing is cached here."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(Value, frozen=True, kw_only=True):
    """Nothing is known of reasoning."""

    reasoning_tokens: int = 0


class ResponseUsage(Value, frozen=True, kw_only=True):
    """Tokens, by formats.estimate: right in magnitude, never an account."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    estimated: bool = True


class IncompleteDetails(Value, frozen=True, kw_only=True):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Response(Value, frozen=True, kw_only=True):
    """An answer, with the parameters that it was made by; null for those that had no effect.

    `status` is "incomplete" without details when nothing proves that the answer came whole: "completed" would be a
    claim, and the API has no word for not knowing.
    """

    id: str
    created_at: int
    model: str
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    temperature: float | None
    text: TextConfig
    tool_choice: str | ToolChoiceParam
    tools: list[FunctionTool]
    status: Status = "in_progress"
    incomplete_details: IncompleteDetails | None = None
    output: list[OutputItem] = msgspec.field(default_factory=list)
    usage: ResponseUsage | msgspec.UnsetType = msgspec.UNSET
    error: None = None
    top_p: None = None
    object: Literal["response"] = "response"


class ResponseEvent(Value, frozen=True, kw_only=True):
    """The answer as it is now."""

    response: Response
    sequence_number: int


class ResponseCreated(ResponseEvent, frozen=True, kw_only=True, tag="response.created"):
    """The first event."""


class ResponseInProgress(ResponseEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    """The second."""


class ResponseCompleted(ResponseEvent, frozen=True, kw_only=True, tag="response.completed"):
    """The last event of a whole answer."""


class ResponseIncomplete(ResponseEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    """The last event of an answer that is not whole, or of which that is not known."""


class ItemEvent(Value, frozen=True, kw_only=True):
    """An item of the output, as it is now."""

    output_index: int
    item: OutputItem
    sequence_number: int


class OutputItemAdded(ItemEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    """It begins."""


class OutputItemDone(ItemEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    """It has ended."""


class PartEvent(Value, frozen=True, kw_only=True):
    """The one part of a message, as it is now."""

    item_id: str
    output_index: int
    part: OutputText
    sequence_number: int
    content_index: int = 0


class ContentPartAdded(PartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    """It begins."""


class ContentPartDone(PartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    """It has ended."""


class OutputTextDelta(Value, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """More text. The encoder relies on it that `delta` and `sequence_number` are last."""

    item_id: str
    output_index: int
    content_index: int = 0
    logprobs: list[Any] = msgspec.field(default_factory=list)
    delta: str
    sequence_number: int


class OutputTextDone(Value, frozen=True, kw_only=True, tag="response.output_text.done"):
    """The text is whole."""

    item_id: str
    output_index: int
    text: str
    sequence_number: int
    content_index: int = 0
    logprobs: list[Any] = msgspec.field(default_factory=list)


class ArgumentsDelta(Value, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    """More of a call's arguments, as JSON text."""

    item_id: str
    output_index: int
    delta: str
    sequence_number: int


class ArgumentsDone(Value, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    """The arguments are whole."""

    item_id: str
    output_index: int
    name: str
    arguments: str
    sequence_number: int


class ErrorEvent(Value, frozen=True, kw_only=True, tag="error"):
    """The answer broke off. `error`: the same as an error object, without which OpenAI's SDKs would not raise."""

    code: str
    message: str
    param: str | None
    error: dict[str, Any]
    sequence_number: int


StreamEvent = (
    ResponseCreated
    | ResponseInProgress
    | ResponseCompleted
    | ResponseIncomplete
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | ArgumentsDelta
    | ArgumentsDone
    | ErrorEvent
)
