"""Anthropic's Messages API, what is asked: the table of its parameters, and a request as an `Ask`. Values only.

Source: the types of Anthropic's Python SDK 2.12, MessageCreateParams and MessageCountTokensParams, and its beta's.
What is answered is in answer.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec

from ...errors import InvalidRequestError
from ..parameters import emulated, honoured, ignored, offered, refused, wrong
from ..pieces import Ask, JsonOutput, Tool, ToolCall, Turn
from .answer import TextBlock, ToolUseBlock


class ToolResultBlock(msgspec.Struct, tag="tool_result"):
    """What came of a call. `is_error`: the call failed, and `content` says how."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(msgspec.Struct, tag="thinking"):
    """Of an earlier answer of another service; it is dropped."""


class RedactedThinkingBlock(msgspec.Struct, tag="redacted_thinking"):
    """As `ThinkingBlock`."""


class ImageBlock(msgspec.Struct, tag="image"):
    """Refused, and never fetched (M3)."""


class DocumentBlock(msgspec.Struct, tag="document"):
    """Refused, and never fetched (M3)."""


class SearchResultBlock(msgspec.Struct, tag="search_result"):
    """Refused: the answer could not cite it."""


ContentBlock = (
    TextBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
)


class MessageParam(msgspec.Struct):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class ToolParam(msgspec.Struct):
    """A tool. `type`: "custom", or one of Anthropic's own, which are refused."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct):
    """Which tools are to be called. `name`: with the type `tool`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class JsonFormat(msgspec.Struct):
    """The answer must be JSON that is valid by the schema."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    """The answer's form."""

    format: JsonFormat | None = None


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """POST /v1/messages/count_tokens: the parameters that make the prompt."""

    model: Annotated[str, honoured("who answers")]
    messages: Annotated[
        Annotated[list[MessageParam], msgspec.Meta(min_length=1)],
        honoured("text, tool_use and tool_result; earlier thinking is dropped, images and documents are refused"),
    ]
    system: Annotated[str | list[TextBlock] | None, honoured("a string or text blocks")] = None
    tools: Annotated[
        list[ToolParam] | None, emulated("by instruction; Anthropic's own tools are refused", harmless=[[]])
    ] = None
    tool_choice: Annotated[ToolChoice | None, emulated("by instruction", harmless=[{"type": "auto"}])] = None
    output_config: Annotated[
        OutputConfig | None, emulated("`format` by instruction, and validated; the rest has no effect", harmless=[{}])
    ] = None
    output_format: Annotated[JsonFormat | None, emulated("the older name of output_config.format")] = None
    thinking: Annotated[Any, ignored("the answer has no thinking blocks", harmless=[{"type": "disabled"}])] = None
    cache_control: Annotated[Any, ignored("nothing is cached, wherever it stands")] = None
    context_management: Annotated[Any, ignored()] = None
    speed: Annotated[Any, ignored(harmless=["standard"])] = None
    mcp_servers: Annotated[Any, refused("FlowGPT calls no servers", harmless=[[]])] = None
    thread: Annotated[Any, refused("no conversation is kept here: send all of its messages")] = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """POST /v1/messages."""

    max_tokens: Annotated[
        Annotated[int, msgspec.Meta(ge=1)], emulated("by the estimate: the answer is cut, with max_tokens")
    ]
    stream: Annotated[bool | None, honoured("one answer, or its events")] = None
    temperature: Annotated[Annotated[float, msgspec.Meta(ge=0, le=1)] | None, honoured("0 to 1")] = None
    stop_sequences: Annotated[
        Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=16)] | None,
        emulated("found in the answer's text, and not given out; at most 16", harmless=[[]]),
    ] = None
    top_p: Annotated[Any, ignored()] = None
    top_k: Annotated[Any, ignored()] = None
    metadata: Annotated[Any, ignored()] = None
    service_tier: Annotated[Any, ignored(harmless=["auto", "standard_only"])] = None
    diagnostics: Annotated[Any, ignored("nothing is cached")] = None
    user_profile_id: Annotated[Any, ignored()] = None
    container: Annotated[Any, refused("FlowGPT runs no code")] = None
    compaction: Annotated[Any, refused("FlowGPT makes no compaction blocks")] = None
    inference_geo: Annotated[Any, refused("FlowGPT does not say where its models run", harmless=["global"])] = None


def ask(request: CountTokensRequest) -> Ask:
    """The question. Raises: InvalidRequestError, with `param` as "messages[0].content[1]".

    A conversation that ends with the assistant's words, to be continued by the answer (prefill), is refused, as by
    Anthropic's newer models: FlowGPT would take these words for the question.
    """
    turns = [turn for place, message in enumerate(request.messages) for turn in _turns(f"messages[{place}]", message)]
    spoken = [turn for turn in turns if turn.role != "system"]
    if spoken and spoken[-1].role == "assistant":
        last = max(n for n, message in enumerate(request.messages) if message.role == "assistant")
        words = "FlowGPT cannot continue a begun answer (prefill): the last message is the assistant's"
        raise wrong(f"messages[{last}]", words, "unsupported_content")
    wants, place = request.output_config.format if request.output_config else None, "output_config.format"
    if wants is None:
        wants, place = request.output_format, "output_format"
    given = request if isinstance(request, MessagesRequest) else None
    tools, tool_choice = _offered(request)
    return Ask(
        model=request.model,
        turns=[*(Turn(role="system", text=text) for text in _system(request)), *turns],
        temperature=given.temperature if given else None,
        stop=tuple(given.stop_sequences or ()) if given else (),
        max_tokens=given.max_tokens if given else None,
        output=JsonOutput(schema=wants.schema, param=f"{place}.schema") if wants else None,
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=not (request.tool_choice and request.tool_choice.disable_parallel_tool_use),
    )


def _system(request: CountTokensRequest) -> Sequence[str]:
    if isinstance(request.system, str):
        return [request.system]
    return [block.text for block in request.system or ()]


def _turns(path: str, message: MessageParam) -> Iterator[Turn]:
    """One message: its results each as a turn, and then all that it says as one."""
    if isinstance(message.content, str):
        yield Turn(role=message.role, text=message.content)
        return
    said: list[str] = []
    calls: list[ToolCall] = []
    results = 0
    for place, block in enumerate(message.content):
        match message.role, block:
            case _, TextBlock():
                said.append(block.text)
            case "assistant", ToolUseBlock():
                calls.append(ToolCall(block.id, block.name, msgspec.json.encode(block.input).decode()))
            case "assistant", ThinkingBlock() | RedactedThinkingBlock():
                pass
            case "user", ToolResultBlock():
                results += 1
                yield Turn(role="tool", call_id=block.tool_use_id, text=_result(f"{path}.content[{place}]", block))
            case _:
                raise _unsupported(f"{path}.content[{place}]", block, message.role)
    if said or calls or not results:
        yield Turn(role=message.role, text="".join(said), calls=tuple(calls))


def _result(path: str, block: ToolResultBlock) -> str:
    """What the tool said; a failure is said in words, since a turn has no other place for it."""
    content = block.content or ""
    if not isinstance(content, str):
        content = "".join(_text(f"{path}.content[{place}]", part) for place, part in enumerate(content))
    return f"error: {content}" if block.is_error else content


def _text(path: str, block: ContentBlock) -> str:
    if isinstance(block, TextBlock):
        return block.text
    raise _unsupported(path, block, "tool")


def _unsupported(path: str, block: ContentBlock, role: str) -> InvalidRequestError:
    words = f"FlowGPT takes no {block.__struct_config__.tag} block of the role {role}"
    return wrong(path, words, "unsupported_content")


def _offered(request: CountTokensRequest) -> tuple[tuple[Tool, ...], Literal["auto", "required"]]:
    tools = [_tool(f"tools[{place}]", tool) for place, tool in enumerate(request.tools or ())]
    match request.tool_choice:
        case ToolChoice(type="tool", name=name):
            return offered(tools, "required", [name or ""], "tool_choice.name")
        case ToolChoice(type="any"):
            return offered(tools, "required")
        case ToolChoice(type="none"):
            return offered(tools, "none")
    return offered(tools, "auto")


def _tool(path: str, tool: ToolParam) -> Tool:
    if tool.type not in (None, "custom"):
        words = f"{tool.type[:64]!r}: FlowGPT has none of Anthropic's own tools; give name and input_schema"
        raise wrong(f"{path}.type", words, "unsupported_parameter")
    if tool.input_schema is None:
        raise wrong(f"{path}.input_schema", "it is missing")
    return Tool(
        name=tool.name,
        description=tool.description or "",
        parameters=tool.input_schema,
        strict=bool(tool.strict),
        param=f"{path}.input_schema",
    )
