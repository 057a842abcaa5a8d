"""OpenAI's Responses API, what is asked: the table of its parameters, and a request as an `Ask`. Values only.

Source: OpenAI's OpenAPI description, CreateResponse. Items are in response_items.py, the answer in response_events.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from ..errors import InvalidRequestError
from .chat import Value
from .parameters import emulated, honoured, ignored, refused
from .pieces import Ask, JsonOutput, Tool, Turn
from .response_items import InputItem, given, items, turns

LOGPROBS = "message.output_text.logprobs"


class FunctionTool(Value, frozen=True, kw_only=True):
    """A tool; those whose `type` is not "function" are refused. `strict`: true unless it is set to false."""

    type: str
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,128}$")] = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Value, frozen=True, kw_only=True, omit_defaults=True):
    """One function ("function", with a `name`), or some ("allowed_tools", with `mode` and `tools`)."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = None


class TextFormat(Value, frozen=True, kw_only=True, tag="text"):
    """Any text."""


class JsonObjectFormat(Value, frozen=True, kw_only=True, tag="json_object"):
    """A JSON object."""


class JsonSchemaFormat(Value, frozen=True, kw_only=True, tag="json_schema", omit_defaults=True):
    """JSON that is valid by `schema`."""

    name: str
    schema: dict[str, Any]
    description: str = ""
    strict: bool | None = None


class TextConfig(Value, frozen=True, kw_only=True, omit_defaults=True):
    """The form of the answer's text."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """POST /v1/responses."""

    model: Annotated[str, honoured("who answers")]
    input: Annotated[
        str | list[InputItem],
        honoured("a string, or messages, function_call and function_call_output; reasoning is dropped, images refused"),
    ]
    instructions: Annotated[str | None, honoured("a system message before all; not carried on to later responses")] = (
        None
    )
    temperature: Annotated[Annotated[float, msgspec.Meta(ge=0, le=2)] | None, honoured("0 to 2")] = None
    stream: Annotated[bool | None, honoured("one answer, or its events")] = None
    previous_response_id: Annotated[str | None, honoured("a stored response, whose conversation goes on")] = None
    store: Annotated[bool | None, honoured("true unless it is false: the response is kept for a time")] = None
    max_output_tokens: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, emulated("by the estimate: the answer is cut, and incomplete")
    ] = None
    text: Annotated[
        TextConfig | None,
        emulated(
            "`format` by instruction, and validated; `verbosity` has no effect",
            harmless=[{}, {"format": {"type": "text"}}, {"format": {"type": "text"}, "verbosity": "medium"}],
        ),
    ] = None
    tools: Annotated[
        list[FunctionTool] | None, emulated("functions, by instruction; OpenAI's own tools are refused", harmless=[[]])
    ] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ToolChoice | None, emulated("by instruction", harmless=["auto"])
    ] = None
    parallel_tool_calls: Annotated[bool | None, emulated("by instruction", harmless=[True])] = None
    metadata: Annotated[dict[str, str] | None, ignored("without effect on the answer; kept with it", harmless=[{}])] = (
        None
    )
    include: Annotated[list[str] | None, ignored("there is none of it; logprobs are refused", harmless=[[]])] = None
    top_p: Annotated[Any, ignored()] = None
    user: Annotated[Any, ignored()] = None
    truncation: Annotated[Any, ignored("a conversation is never shortened", harmless=["disabled"])] = None
    reasoning: Annotated[Any, ignored("the answer has no reasoning items", harmless=[{}])] = None
    service_tier: Annotated[Any, ignored(harmless=["auto", "default"])] = None
    safety_identifier: Annotated[Any, ignored()] = None
    prompt_cache_key: Annotated[Any, ignored("nothing is cached")] = None
    prompt_cache_retention: Annotated[Any, ignored("nothing is cached")] = None
    prompt_cache_options: Annotated[Any, ignored("nothing is cached", harmless=[{}])] = None
    context_management: Annotated[Any, ignored("a conversation is never shortened", harmless=[[]])] = None
    max_tool_calls: Annotated[Any, ignored("it limits OpenAI's own tools, of which there are none")] = None
    stream_options: Annotated[
        Any, ignored("there is no obfuscation", harmless=[{}, {"include_obfuscation": False}])
    ] = None
    background: Annotated[Any, refused("an answer is made while its client waits", harmless=[False])] = None
    conversation: Annotated[Any, refused("use previous_response_id")] = None
    prompt: Annotated[Any, refused("there are no prompt templates; use instructions and input")] = None
    top_logprobs: Annotated[Any, refused("FlowGPT gives no logprobs", harmless=[0])] = None
    moderation: Annotated[Any, refused("FlowGPT does not moderate on request")] = None


def ask(request: ResponsesRequest, earlier: Sequence[Turn] = ()) -> Ask:
    """The question; `earlier` is the conversation of previous_response_id. Raises: InvalidRequestError."""
    said = turns(items(request.input))
    if not said:
        raise InvalidRequestError("input: there is nothing to answer in it", param="input")
    if LOGPROBS in (request.include or ()):
        words = "include: FlowGPT gives no logprobs"
        raise InvalidRequestError(words, code="unsupported_parameter", param="include")
    first = [Turn(role="system", text=request.instructions)] if request.instructions else []
    return Ask(
        model=request.model,
        turns=[*first, *earlier, *said],
        temperature=request.temperature,
        max_tokens=request.max_output_tokens,
        output=_output(request.text),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        **_offer(request),
    )


def _output(text: TextConfig | None) -> JsonOutput | None:
    match text and text.format:
        case JsonSchemaFormat(schema=schema):
            return JsonOutput(schema=schema, param="text.format.schema")
        case JsonObjectFormat():
            return JsonOutput()
    return None


def _offer(request: ResponsesRequest) -> Mapping[str, Any]:
    """What an `Ask` says of tools."""
    tools = {tool.name: tool for tool in (_tool(f"tools[{n}]", tool) for n, tool in enumerate(request.tools or ()))}
    if len(tools) < len(request.tools or ()):
        raise InvalidRequestError("tools: two have the same name", param="tools")
    mode, names = _choice(request.tool_choice or "auto")
    if unknown := [name for name in names or () if name not in tools]:
        raise InvalidRequestError(f"tool_choice: there is no tool {unknown[0][:64]!r} in `tools`", param="tool_choice")
    if mode == "required" and not tools:
        raise InvalidRequestError("tool_choice: there are no `tools`", param="tool_choice")
    chosen = [tool for name, tool in tools.items() if names is None or name in names]
    return {"tools": tuple(chosen), "tool_choice": mode}


def _choice(choice: str | ToolChoice) -> tuple[str, list[str] | None]:
    """How many of which tools: the mode, and the names when not all are meant."""
    if isinstance(choice, str):
        return choice, None
    if choice.type == "function":
        return "required", [given(choice.name, "tool_choice.name")]
    if choice.type != "allowed_tools":
        words = f"tool_choice.type: FlowGPT has no tool of the type {choice.type[:64]!r}"
        raise InvalidRequestError(words, code="unsupported_parameter", param="tool_choice.type")
    names = [tool.get("name") for tool in choice.tools or () if tool.get("type") == "function"]
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidRequestError("tool_choice.tools: name some functions", param="tool_choice.tools")
    return given(choice.mode, "tool_choice.mode"), [str(name) for name in names]


def _tool(path: str, tool: FunctionTool) -> Tool:
    if tool.type != "function":
        words = f"{path}.type: FlowGPT has no tool of the type {tool.type[:64]!r}; only functions"
        raise InvalidRequestError(words, code="unsupported_parameter", param=f"{path}.type")
    return Tool(
        name=given(tool.name or None, f"{path}.name"),
        description=tool.description or "",
        parameters=tool.parameters,
        strict=tool.strict is not False,
        param=f"{path}.parameters",
    )
