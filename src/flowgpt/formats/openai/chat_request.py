"""OpenAI's chat completions, what is asked: the table of its parameters, and a request as an `Ask`. Values only.

Source: OpenAI's OpenAPI description, CreateChatCompletionRequest. What is answered is in chat.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..parameters import emulated, honoured, ignored, offered, refused, wrong
from ..pieces import Ask, JsonOutput, Tool, ToolCall, Turn
from ..values import Value
from .chat import FunctionToolCall

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Tokens = Annotated[int, msgspec.Meta(ge=1)]
Answers = Annotated[int, msgspec.Meta(ge=1, le=16)]
StopSequence = Annotated[str, msgspec.Meta(min_length=1)]
StopSequences = Annotated[list[StopSequence], msgspec.Meta(max_length=4)]
Mode = Literal["none", "auto", "required"]
ToolName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]


class TextPart(msgspec.Struct, tag="text"):
    """A text of a message."""

    text: str


class RefusalPart(msgspec.Struct, tag="refusal"):
    """What an earlier answer refused."""

    refusal: str


class ImagePart(msgspec.Struct, tag="image_url"):
    """Refused, and never fetched (M3)."""


class AudioPart(msgspec.Struct, tag="input_audio"):
    """Refused."""


class FilePart(msgspec.Struct, tag="file"):
    """Refused, and never fetched (M3)."""


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class ChatMessage(msgspec.Struct, kw_only=True):
    """One message. `tool_calls`: of the assistant. `tool_call_id`: with the role `tool`, whose result it is."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[FunctionToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None


class StreamOptions(msgspec.Struct):
    """How to stream. Padding against listeners (`include_obfuscation`) is never sent."""

    include_usage: bool | None = None


class ResponseFormatText(Value, frozen=True, tag="text"):
    """Any text."""


class ResponseFormatJsonObject(Value, frozen=True, tag="json_object"):
    """A JSON object."""


class JsonSchema(msgspec.Struct):
    """Which JSON. It is always enforced, whether `strict` says so or not."""

    name: str
    schema: dict[str, Any] | None = None


class ResponseFormatJsonSchema(msgspec.Struct, tag="json_schema"):
    """JSON that is valid by a schema."""

    json_schema: JsonSchema


class FunctionObject(msgspec.Struct):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatCompletionTool(msgspec.Struct, tag="function"):
    """The one kind of tools that there is here."""

    function: FunctionObject


class FunctionName(msgspec.Struct):
    """A function, by its name."""

    name: str


class NamedToolChoice(msgspec.Struct, tag="function"):
    """This function must be called."""

    function: FunctionName


class AllowedTools(msgspec.Struct):
    """Only these may be called, or must."""

    mode: Literal["auto", "required"]
    tools: list[NamedToolChoice]


class AllowedToolsChoice(msgspec.Struct, tag="allowed_tools"):
    """Some of the tools."""

    allowed_tools: AllowedTools


class CompletionParameters(msgspec.Struct, kw_only=True):
    """What can be asked of chat completions and of the legacy completions alike."""

    model: Annotated[str, honoured("who answers")]
    temperature: Annotated[Temperature | None, honoured("0 to 2")] = None
    stream: Annotated[bool | None, honoured("server-sent events")] = None
    stream_options: Annotated[StreamOptions | None, honoured("`include_usage`: an estimate")] = None
    stop: Annotated[
        StopSequence | StopSequences | None, emulated("found in the answer, which ends before it", harmless=[[]])
    ] = None
    max_tokens: Annotated[Tokens | None, emulated("by an estimate from characters")] = None
    n: Annotated[Answers | None, emulated("by questions side by side, at most 16", harmless=[1])] = None
    frequency_penalty: Annotated[Any, ignored(harmless=[0, 0.0])] = None
    logit_bias: Annotated[Any, ignored(harmless=[{}])] = None
    presence_penalty: Annotated[Any, ignored(harmless=[0, 0.0])] = None
    seed: Annotated[Any, ignored()] = None
    top_p: Annotated[Any, ignored(harmless=[1, 1.0])] = None
    user: Annotated[Any, ignored()] = None


class ChatRequest(CompletionParameters, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[
        Annotated[list[ChatMessage], msgspec.Meta(min_length=1)],
        honoured("text only; the last one is the question; `developer` is `system`; a message's `name` has no effect"),
    ]
    max_completion_tokens: Annotated[
        Tokens | None, emulated("by an estimate from characters; the smaller one counts if there is `max_tokens` too")
    ] = None
    response_format: Annotated[
        ResponseFormatText | ResponseFormatJsonObject | ResponseFormatJsonSchema | None,
        emulated("JSON by instruction, validated, with one repair", harmless=[{"type": "text"}]),
    ] = None
    tools: Annotated[list[ChatCompletionTool] | None, emulated("functions, by instruction", harmless=[[]])] = None
    tool_choice: Annotated[
        Mode | NamedToolChoice | AllowedToolsChoice | None,
        emulated("by instruction", harmless=["auto"]),
    ] = None
    parallel_tool_calls: Annotated[bool | None, emulated("false: the first call ends the answer", harmless=[True])] = (
        None
    )
    metadata: Annotated[Any, ignored(harmless=[{}])] = None
    prediction: Annotated[Any, ignored("it would only make the answer faster")] = None
    prompt_cache_key: Annotated[Any, ignored()] = None
    prompt_cache_options: Annotated[Any, ignored()] = None
    prompt_cache_retention: Annotated[Any, ignored()] = None
    reasoning_effort: Annotated[Any, ignored()] = None
    safety_identifier: Annotated[Any, ignored()] = None
    service_tier: Annotated[Any, ignored(harmless=["auto", "default"])] = None
    store: Annotated[Any, ignored("chat completions are not stored; responses are", harmless=[False])] = None
    verbosity: Annotated[Any, ignored()] = None
    audio: Annotated[Any, refused("FlowGPT answers in text only")] = None
    function_call: Annotated[Any, refused("deprecated: use tool_choice", harmless=["none", "auto"])] = None
    functions: Annotated[Any, refused("deprecated: use tools", harmless=[[]])] = None
    logprobs: Annotated[Any, refused("FlowGPT gives no probabilities", harmless=[False])] = None
    modalities: Annotated[Any, refused("FlowGPT answers in text only", harmless=[["text"], []])] = None
    moderation: Annotated[Any, refused("FlowGPT does not moderate")] = None
    top_logprobs: Annotated[Any, refused("FlowGPT gives no probabilities", harmless=[0])] = None
    web_search_options: Annotated[Any, refused("FlowGPT does not search")] = None


def ask(request: ChatRequest) -> Ask:
    """The question that the request is. Raises: InvalidRequestError with `param`."""
    tools, tool_choice = _offered(request)
    limits = [limit for limit in (request.max_tokens, request.max_completion_tokens) if limit is not None]
    return Ask(
        model=request.model,
        turns=[_turn(message, f"messages[{place}]") for place, message in enumerate(request.messages)],
        temperature=request.temperature,
        stop=stop_sequences(request),
        max_tokens=min(limits, default=None),
        n=request.n or 1,
        output=_output(request),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
    )


def stop_sequences(request: CompletionParameters) -> tuple[str, ...]:
    """`stop`, be it one or some."""
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())


def include_usage(request: CompletionParameters) -> bool:
    """Whether a stream ends with the usage."""
    return request.stream_options is not None and bool(request.stream_options.include_usage)


def _turn(message: ChatMessage, path: str) -> Turn:
    if message.function_call is not None:
        raise wrong(f"{path}.function_call", "deprecated: use tool_calls")
    if message.audio is not None:
        raise wrong(f"{path}.audio", "FlowGPT takes text only", "unsupported_content")
    text = _text(message, path)
    if message.role == "tool":
        if message.tool_call_id is None:
            raise wrong(f"{path}.tool_call_id", "a tool's message must say which call it is the result of")
        return Turn(role="tool", text=text, call_id=message.tool_call_id)
    if message.role == "assistant":
        calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        return Turn(role="assistant", text=text, calls=tuple(calls))
    return Turn(role="user" if message.role == "user" else "system", text=text)


def _text(message: ChatMessage, path: str) -> str:
    """The content's texts, joined as they are."""
    if message.content is None:
        if message.role != "assistant" or (message.refusal is None and not message.tool_calls):
            raise wrong(f"{path}.content", "must be a string or a list of parts")
        return message.refusal or ""
    if isinstance(message.content, str):
        return message.content
    texts = []
    for place, part in enumerate(message.content):
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, RefusalPart):
            texts.append(part.refusal)
        else:
            words = f"FlowGPT takes text only; a part of the type {part.__struct_config__.tag} is not read nor fetched"
            raise wrong(f"{path}.content[{place}]", words, "unsupported_content")
    return "".join(texts)


def _output(request: ChatRequest) -> JsonOutput | None:
    wanted = request.response_format
    if isinstance(wanted, ResponseFormatJsonSchema):
        return JsonOutput(schema=wanted.json_schema.schema or {}, param="response_format.json_schema.schema")
    return JsonOutput() if isinstance(wanted, ResponseFormatJsonObject) else None


def _offered(request: ChatRequest) -> tuple[tuple[Tool, ...], Literal["auto", "required"]]:
    tools = [_tool(tool.function, f"tools[{place}].function") for place, tool in enumerate(request.tools or ())]
    match request.tool_choice or "auto":
        case NamedToolChoice(function):
            return offered(tools, "required", [function.name])
        case AllowedToolsChoice(allowed):
            return offered(tools, allowed.mode, [choice.function.name for choice in allowed.tools])
        case mode:
            return offered(tools, mode)


def _tool(function: FunctionObject, path: str) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters,
        strict=bool(function.strict),
        param=f"{path}.parameters",
    )
