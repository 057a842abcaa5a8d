"""Items of OpenAI's Responses API: read, judged, turned into turns, and listed page by page."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.errors import InvalidRequestError
from flowgpt.formats.openai.responses_items import InputItem, item_list, items, turns
from flowgpt.formats.pieces import ToolCall, Turn
from tests.openai_description import faults


def read(*given: dict[str, Any]) -> list[InputItem]:
    return msgspec.convert(list(given), list[InputItem])


def asked(*given: dict[str, Any]) -> list[Turn]:
    return turns(items(read(*given)))


CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "2"}


def test_a_string_is_the_users_message() -> None:
    assert turns(items("Hello")) == [Turn(role="user", text="Hello")]


@pytest.mark.parametrize(
    ("role", "expected"), [("user", "user"), ("assistant", "assistant"), ("system", "system"), ("developer", "system")]
)
@pytest.mark.parametrize("type_", [{}, {"type": "message"}])
def test_a_message_has_its_role_with_or_without_a_type(role: str, expected: str, type_: dict[str, str]) -> None:
    [turn] = asked({"role": role, "content": "Hi"} | type_)

    assert (turn.role, turn.text) == (expected, "Hi")


def test_parts_of_a_content_are_joined_as_they_are() -> None:
    parts = [
        {"type": "input_text", "text": "a "},
        {"type": "output_text", "text": "b", "annotations": []},
        {"type": "refusal", "refusal": "no"},
    ]

    assert asked({"role": "assistant", "content": parts}) == [Turn(role="assistant", text="a bno")]


def test_calls_belong_to_the_message_before_them_and_to_each_other() -> None:
    other = CALL | {"call_id": "call_2"}
    calls = (ToolCall("call_1", "add", '{"a":1}'), ToolCall("call_2", "add", '{"a":1}'))
    question, said = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "Let me see."}
    reasoning: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None}

    assert asked(question, reasoning, CALL, reasoning, other, RESULT) == [
        Turn(role="user", text="1+1?"),
        Turn(role="assistant", calls=calls),
        Turn(role="tool", call_id="call_1", text="2"),
    ]
    assert asked(said, CALL, other, said) == [
        Turn(role="assistant", text="Let me see.", calls=calls),
        Turn(role="assistant", text="Let me see."),
    ]


def test_a_result_may_be_a_list_of_texts() -> None:
    texts = [{"type": "input_text", "text": "1"}, {"type": "input_text", "text": "2"}]

    assert asked(RESULT | {"output": texts}) == [Turn(role="tool", call_id="call_1", text="12")]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input[1]"),
        ({"id": "msg_1"}, "input[1]"),
        ({"type": "web_search_call", "id": "ws_1"}, "input[1]"),
        ({"type": "\r\nx" * 1000}, "input[1]"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "http://169.254.169.254/"}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "input_text", "text": ""}, {"type": "input_file"}]}, "content[1]"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "content[0]"),
        (RESULT | {"output": [{"type": "input_image"}]}, "output[0]"),
    ],
)
def test_m3_what_is_no_text_is_refused_and_never_fetched(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked({"role": "user", "content": "?"}, item)

    assert caught.value.code == "unsupported_content"
    assert caught.value.param == (param if param.startswith("input") else f"input[1].{param}")
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({}, "input[0].content"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": None}, "input[0].content"),
        ({"type": "message", "content": "x"}, "input[0].role"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "assistant", "content": [{"type": "refusal", "text": "x"}]}, "input[0].content[0].refusal"),
        (CALL | {"call_id": None}, "input[0].call_id"),
        (CALL | {"name": None}, "input[0].name"),
        (CALL | {"arguments": None}, "input[0].arguments"),
        (RESULT | {"call_id": None}, "input[0].call_id"),
        (RESULT | {"output": None}, "input[0].output"),
    ],
)
def test_what_is_missing_is_named(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError, match="is missing") as caught:
        asked(item)

    assert caught.value.param == param


def test_items_are_listed_as_openai_lists_them_each_with_an_id() -> None:
    """Provenance: OpenAI's OpenAPI, ItemResource."""
    given = read(
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "id": "msg_theirs"},
        CALL,
        RESULT,
    )

    listed = [item.model_dump() for item in items(given, "_f00")]

    assert [item["id"] for item in listed] == ["msg_f00_0", "msg_theirs", "fc_f00_2", "fco_f00_3"]
    assert [fault for item in listed for fault in faults(item, "ItemResource")] == []
    assert listed[0]["content"] == [{"type": "input_text", "text": "Hi"}]


def page(*, limit: int = 20, order: str = "desc", after: str | None = None) -> tuple[list[str], bool]:
    found = item_list([{"id": name} for name in "abcde"], limit=limit, order=order, after=after)
    ids = [item["id"] for item in found.data]
    assert (found.first_id, found.last_id) == (ids[0] if ids else "", ids[-1] if ids else "")
    return ids, found.has_more


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("edcba", False)),
        ({"order": "asc"}, ("abcde", False)),
        ({"limit": 2}, ("ed", True)),
        ({"limit": 2, "after": "d"}, ("cb", True)),
        ({"limit": 2, "after": "c"}, ("ba", False)),
        ({"limit": 5, "order": "asc", "after": "a"}, ("bcde", False)),
        ({"after": "a"}, ("", False)),
    ],
)
def test_a_page_has_what_stands_behind_an_item(asked: dict[str, Any], expected: tuple[str, bool]) -> None:
    assert page(**asked) == ([*expected[0]], expected[1])


def test_a_page_behind_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        page(after="z")

    assert caught.value.param == "after"


@given(st.integers(1, 7), st.sampled_from(["asc", "desc"]))
def test_pages_one_after_the_other_are_the_list(limit: int, order: str) -> None:
    seen: list[str] = []
    more = True
    while more:
        ids, more = page(limit=limit, order=order, after=seen[-1] if seen else None)
        seen += ids

    assert "".join(seen) == ("abcde" if order == "asc" else "edcba")


def test_an_empty_page_is_valid() -> None:
    empty = item_list([], limit=20, order="desc", after=None).model_dump()

    assert faults(empty, "ResponseItemList") == []
