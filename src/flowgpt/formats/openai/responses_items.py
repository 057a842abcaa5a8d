"""OpenAI's Responses API, its items: what a conversation is made of there, in and out, and the turns they are.

Values only. Source: OpenAI's OpenAPI description, InputItem, OutputItem, ItemResource and ResponseItemList.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from ..parameters import wrong
from ..pieces import ToolCall, Turn
from ..values import Value

T = TypeVar("T")

Status = Literal["in_progress", "completed", "incomplete"]

TEXT_FIELDS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The parts that are text, and where each has it."""


class InputPart(msgspec.Struct):
    """A part of a content: a text, or what is refused and never fetched (M3)."""

    type: str
    text: str | None = None
    refusal: str | None = None


class InputItem(msgspec.Struct):
    """An item as it is given, of any `type`; without one it is a message. `items` judges it."""

    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None


class InputText(Value, frozen=True, kw_only=True, tag="input_text"):
    """A text that was given."""

    text: str


class OutputText(Value, frozen=True, kw_only=True, tag="output_text"):
    """A text of the assistant's."""

    text: str
    annotations: list[Any] = msgspec.field(default_factory=list)
    logprobs: list[Any] = msgspec.field(default_factory=list)


class InputMessage(Value, frozen=True, kw_only=True, tag="message"):
    """A message that is not the assistant's."""

    id: str
    role: Literal["user", "system", "developer"]
    content: list[InputText]
    status: Status = "completed"


class OutputMessage(Value, frozen=True, kw_only=True, tag="message"):
    """A message of the assistant's. `status`: "incomplete" when it was cut, or nothing proves that it came whole."""

    id: str
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"
    status: Status = "completed"


class FunctionCall(Value, frozen=True, kw_only=True, tag="function_call"):
    """A function is to be called. `arguments`: a JSON object, as text. `call_id`: what its output refers to."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status = "completed"


class FunctionCallOutput(Value, frozen=True, kw_only=True, tag="function_call_output"):
    """What a function gave."""

    id: str
    call_id: str
    output: str
    status: Status = "completed"


OutputItem = OutputMessage | FunctionCall
Item = InputMessage | OutputItem | FunctionCallOutput


class ItemList(Value, frozen=True, kw_only=True):
    """A page of items. `first_id`, `last_id`: "" on an empty page."""

    data: list[dict[str, Any]]
    has_more: bool
    first_id: str
    last_id: str
    object: Literal["list"] = "list"


def items(given: str | Sequence[InputItem], owner: str = "") -> list[Item]:
    """The input, judged; those without an id get one made of `owner`, the response's. Reasoning is left out.

    Raises: InvalidRequestError, with `param` as "input[0].content[1]".
    """
    if isinstance(given, str):
        given = [InputItem(role="user", content=given)]
    judged = (_item(f"input[{place}]", f"{owner}_{place}", item) for place, item in enumerate(given))
    return [item for item in judged if item is not None]


def turns(items: Iterable[Item]) -> list[Turn]:
    """The items as turns; calls belong to the assistant's message before them, when there is one."""
    made: list[Turn] = []
    calls: list[ToolCall] = []
    for item in items:
        if isinstance(item, FunctionCall):
            calls.append(ToolCall(item.call_id, item.name, item.arguments))
            continue
        _put_calls(made, calls)
        if isinstance(item, FunctionCallOutput):
            made.append(Turn(role="tool", call_id=item.call_id, text=item.output))
        else:
            role = "system" if item.role == "developer" else item.role
            made.append(Turn(role=role, text="".join(part.text for part in item.content)))
    _put_calls(made, calls)
    return made


def item_list(items: Sequence[dict[str, Any]], *, limit: int, order: str, after: str | None) -> ItemList:
    """A page of at most `limit` items: those behind the id `after`, from the newest on ("desc") or the oldest ("asc").

    Raises: InvalidRequestError for an id that is none of theirs.
    """
    items = items if order == "asc" else items[::-1]
    start = 0
    if after is not None:
        start = next((place for place, item in enumerate(items, 1) if item["id"] == after), 0)
        if not start:
            raise wrong("after", f"there is no item {after[:64]!r}")
    page = list(items[start : start + limit])
    first, last = (page[0]["id"], page[-1]["id"]) if page else ("", "")
    return ItemList(data=page, has_more=len(items) > start + limit, first_id=first, last_id=last)


def given(value: T | None, param: str) -> T:
    """What must be there. Raises: InvalidRequestError."""
    if value is None:
        raise wrong(param, "it is missing")
    return value


def _item(path: str, id_: str, item: InputItem) -> Item | None:
    match item.type or ("item_reference" if item.id and not item.role else "message"):
        case "message":
            return _message(path, item.id or f"msg{id_}", item)
        case "function_call":
            return FunctionCall(
                id=item.id or f"fc{id_}",
                call_id=given(item.call_id, f"{path}.call_id"),
                name=given(item.name, f"{path}.name"),
                arguments=given(item.arguments, f"{path}.arguments"),
            )
        case "function_call_output":
            return FunctionCallOutput(
                id=item.id or f"fco{id_}",
                call_id=given(item.call_id, f"{path}.call_id"),
                output="".join(_texts(f"{path}.output", item.output)),
            )
        case "reasoning":  # of an earlier answer of another service
            return None
        case "item_reference":
            raise wrong(path, "items are not kept by themselves; use previous_response_id", "unsupported_content")
        case other:
            raise wrong(path, f"FlowGPT takes no item of the type {other[:64]!r}", "unsupported_content")


def _message(path: str, id_: str, item: InputItem) -> InputMessage | OutputMessage:
    texts = list(_texts(f"{path}.content", item.content))
    if item.role == "assistant":
        return OutputMessage(id=id_, content=[OutputText(text=text) for text in texts])
    if item.role is None:
        raise wrong(f"{path}.role", "it is missing")
    return InputMessage(id=id_, role=item.role, content=[InputText(text=text) for text in texts])


def _texts(path: str, content: str | Sequence[InputPart] | None) -> Iterator[str]:
    if content is None:
        raise wrong(path, "it is missing")
    if isinstance(content, str):
        yield content
        return
    for place, part in enumerate(content):
        field = TEXT_FIELDS.get(part.type)
        if field is None:
            raise wrong(f"{path}[{place}]", f"FlowGPT takes text only, not {part.type[:64]!r}", "unsupported_content")
        yield given(part.text if field == "text" else part.refusal, f"{path}[{place}].{field}")


def _put_calls(turns: list[Turn], calls: list[ToolCall]) -> None:
    if calls and turns and turns[-1].role == "assistant":
        turns[-1] = msgspec.structs.replace(turns[-1], calls=tuple(calls))
    elif calls:
        turns.append(Turn(role="assistant", calls=tuple(calls)))
    calls.clear()
