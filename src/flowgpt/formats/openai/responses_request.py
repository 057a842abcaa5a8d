"""OpenAI's Responses API, what is asked: the table of its parameters, and a request as an `Ask`. Values only.

Source: OpenAI's OpenAPI description, CreateResponse. Items are in responses_items.py, what is answered in
responses_events.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from ..parameters import emulated, honoured, ignored, offered, refused, wrong
from ..pieces import Ask, JsonOutput, Tool, Turn
from ..values import Value
from .chat_request import ResponseFormatJsonObject, ResponseFormatText
from .responses_items import InputItem, given, items, turns

LOGPROBS = "message.output_text.logprobs"


class FunctionTool(Value, frozen=True, kw_only=True):
    """A tool; those whose `type` is not "function" are refused. `strict`: true unless it is set to false."""

    type: str
    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,128}$")] = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceParam(Value, frozen=True, kw_only=True, omit_defaults=True):
    """One function ("function", with a `name`), or some ("allowed_tools", with `mode` and `tools`)."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = None


class TextResponseFormatJsonSchema(Value, frozen=True, kw_only=True, tag="json_schema", omit_defaults=True):
    """JSON that is valid by `schema`."""

    name: str
    schema: dict[str, Any]
    description: str = ""
    strict: bool | None = None


class TextConfig(Value, frozen=True, kw_only=True, omit_defaults=True):
    """The form of the answer's text."""

    format: ResponseFormatText | ResponseFormatJsonObject | TextResponseFormatJsonSchema | None = None
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
        Literal["none", "auto", "required"] | ToolChoiceParam | None, emulated("by instruction", harmless=["auto"])
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
        raise wrong("input", "there is nothing to answer in it")
    if LOGPROBS in (request.include or ()):
        raise wrong("include", "FlowGPT gives no logprobs", "unsupported_parameter")
    tools, tool_choice = _offered(request)
    first = [Turn(role="system", text=request.instructions)] if request.instructions else []
    return Ask(
        model=request.model,
        turns=[*first, *earlier, *said],
        temperature=request.temperature,
        max_tokens=request.max_output_tokens,
        output=_output(request.text),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
    )


def _output(text: TextConfig | None) -> JsonOutput | None:
    match text and text.format:
        case TextResponseFormatJsonSchema(schema=schema):
            return JsonOutput(schema=schema, param="text.format.schema")
        case ResponseFormatJsonObject():
            return JsonOutput()
    return None


def _offered(request: ResponsesRequest) -> tuple[tuple[Tool, ...], Literal["auto", "required"]]:
    tools = [_tool(f"tools[{place}]", tool) for place, tool in enumerate(request.tools or ())]
    choice = request.tool_choice or "auto"
    if isinstance(choice, str):
        return offered(tools, choice)
    if choice.type == "function":
        return offered(tools, "required", [given(choice.name, "tool_choice.name")])
    if choice.type != "allowed_tools":
        words = f"FlowGPT has no tool of the type {choice.type[:64]!r}"
        raise wrong("tool_choice.type", words, "unsupported_parameter")
    names = [tool.get("name") for tool in choice.tools or () if tool.get("type") == "function"]
    if not names or not all(isinstance(name, str) for name in names):
        raise wrong("tool_choice.tools", "name some functions")
    return offered(tools, given(choice.mode, "tool_choice.mode"), [str(name) for name in names])


def _tool(path: str, tool: FunctionTool) -> Tool:
    if tool.type != "function":
        words = f"FlowGPT has no tool of the type {tool.type[:64]!r}; only functions"
        raise wrong(f"{path}.type", words, "unsupported_parameter")
    return Tool(
        name=given(tool.name or None, f"{path}.name"),
        description=tool.description or "",
        parameters=tool.parameters,
        strict=tool.strict is not False,
        param=f"{path}.parameters",
    )
