"""Anthropic's requests as bodies: what each parameter becomes, what a conversation is, and whose fault a bad one is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.errors import InvalidRequestError
from flowgpt.formats.anthropic import request as messages_request
from flowgpt.formats.anthropic.request import CountTokensRequest, MessagesRequest
from flowgpt.formats.parameters import Read, read, rows
from flowgpt.formats.pieces import Ask, JsonOutput, Tool, ToolCall, Turn

HELLO = {"role": "user", "content": "Hello"}
ADD = {"name": "add", "description": "adds", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
SUB = {"name": "sub", "input_schema": {"type": "object"}, "type": "custom", "strict": True}
SCHEMA = {"type": "json_schema", "schema": {"type": "object"}}


def reading(**changes: Any) -> Read[MessagesRequest]:
    body = {"model": "m", "max_tokens": 100, "messages": [HELLO]} | changes
    return read(json.dumps(body).encode(), MessagesRequest)


def asked(**changes: Any) -> Ask:
    return messages_request.ask(reading(**changes).values)


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks]}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [*blocks]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# The table


def test_a_plain_question_is_an_ask() -> None:
    assert asked() == Ask(model="m", turns=[Turn(role="user", text="Hello")], max_tokens=100)


def test_what_is_honoured_and_emulated_reaches_the_ask() -> None:
    got = asked(temperature=0.5, stop_sequences=["END", "\n\n"], max_tokens=7, stream=True)

    assert (got.temperature, got.stop, got.max_tokens) == (0.5, ("END", "\n\n"), 7)
    assert reading(stream=True).values.stream is True


def test_i5_what_is_emulated_and_what_is_ignored_is_listed() -> None:
    got = reading(
        temperature=1,
        stop_sequences=["."],
        tools=[ADD],
        tool_choice={"type": "any"},
        output_config={"format": SCHEMA},
        top_p=0.9,
        top_k=5,
        metadata={"user_id": "u"},
        thinking={"type": "enabled", "budget_tokens": 1024},
        cache_control={"type": "ephemeral"},
        service_tier="priority",
        betas_of_next_year=1,
    )

    assert {*got.emulated} == {"max_tokens", "stop_sequences", "tools", "tool_choice", "output_config"}
    assert {*got.ignored} == {
        "top_p",
        "top_k",
        "metadata",
        "thinking",
        "cache_control",
        "service_tier",
        "betas_of_next_year",
    }


def test_what_asks_for_nothing_is_not_listed() -> None:
    got = reading(
        stop_sequences=[],
        tools=[],
        tool_choice={"type": "auto"},
        thinking={"type": "disabled"},
        service_tier="auto",
        mcp_servers=[],
        container=None,
        speed="standard",
        inference_geo="global",
    )

    assert (got.emulated, got.ignored) == (("max_tokens",), ())


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("mcp_servers", [{"type": "url", "url": "https://example.org", "name": "x"}]),
        ("container", "container_1"),
        ("inference_geo", "us"),
        ("thread", {"type": "create"}),
        ("compaction", {}),
    ],
)
def test_i5_what_would_change_the_answer_is_refused_by_its_name(param: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        reading(**{param: value})

    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [HELLO, {"role": "tool", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [user(text("a"), {"type": "server_tool_use"})]}, "messages[0].content[1].type"),
        ({"temperature": 1.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        ({"stop_sequences": ["a"] * 65}, "stop_sequences"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"stream": 1}, "stream"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{**ADD, "name": ""}]}, "tools[0].name"),
        ({"tools": [{"name": "add"}]}, "tools[0].input_schema"),
        ({"tools": [ADD, ADD]}, "tools"),
        ({"tools": [ADD], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "mul"}}, "tool_choice.name"),
        ({"tools": [ADD], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ],
)
def test_i5_a_wrong_value_is_named(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        asked(**changes)

    assert (raised.value.code, raised.value.param) == ("invalid_request", param)


@pytest.mark.parametrize("kind", [MessagesRequest, CountTokensRequest])
def test_every_parameter_has_its_row(kind: type[CountTokensRequest]) -> None:
    assert {*rows(kind)} == {*kind.__struct_fields__}
    assert [row.name for row in rows(kind).values() if not row.words] == []


WORDS = st.sampled_from(["role", "content", "type", "text", "name", "input", "user", "tool", "tool_use"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*rows(MessagesRequest)]), VALUES))
def test_i5_whatever_the_values_are_it_is_an_ask_or_a_clear_refusal(body: dict[str, Any]) -> None:
    try:
        ask = asked(**body)
    except InvalidRequestError as error:
        refusal = error
    else:
        assert ask.model
        return
    assert refusal.param


# The conversation


def test_the_system_prompt_comes_first_a_turn_for_each_block() -> None:
    system = [text("Be brief.") | {"cache_control": {"type": "ephemeral"}}, text("Be kind.")]

    assert asked(system="Be brief.").turns == [Turn(role="system", text="Be brief."), Turn(role="user", text="Hello")]
    assert asked(system=system).turns[:2] == [
        Turn(role="system", text="Be brief."),
        Turn(role="system", text="Be kind."),
    ]


def test_j8_text_blocks_are_joined_as_they_are() -> None:
    """Nothing is spliced in between."""
    got = asked(messages=[user(text("One"), text("\nassistant: two") | {"citations": []})])

    assert got.turns == [Turn(role="user", text="One\nassistant: two")]


def test_a_system_message_within_the_conversation_stays_in_its_place() -> None:
    """Provenance: SystemMessageParam of Anthropic's SDK."""
    got = asked(messages=[HELLO, {"role": "system", "content": [text("Now in French.")]}])

    assert got.turns == [Turn(role="user", text="Hello"), Turn(role="system", text="Now in French.")]


def test_calls_and_results_are_turns_results_before_the_rest_of_their_message() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": "é"}}
    results = [
        text("And now?"),
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3", "is_error": False},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "content": [text("no "), text("such tool")],
            "is_error": True,
        },
        {"type": "tool_result", "tool_use_id": "toolu_3"},
    ]

    got = asked(messages=[HELLO, assistant(text("I add."), call), user(*results)])

    assert got.turns == [
        Turn(role="user", text="Hello"),
        Turn(role="assistant", text="I add.", calls=(ToolCall("toolu_1", "add", '{"a":1,"b":"é"}'),)),
        Turn(role="tool", call_id="toolu_1", text="3"),
        Turn(role="tool", call_id="toolu_2", text="error: no such tool"),
        Turn(role="tool", call_id="toolu_3", text=""),
        Turn(role="user", text="And now?"),
    ]


def test_a_message_of_results_alone_has_no_turn_of_the_user() -> None:
    got = asked(messages=[HELLO, assistant(), user({"type": "tool_result", "tool_use_id": "t", "content": "3"})])

    assert got.turns[1:] == [Turn(role="assistant"), Turn(role="tool", call_id="t", text="3")]


def test_the_thinking_of_earlier_answers_is_dropped() -> None:
    thinking = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}]

    got = asked(messages=[HELLO, assistant(*thinking, text("Hi")), HELLO])

    assert got.turns[1] == Turn(role="assistant", text="Hi")


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [text("see"), IMAGE]}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(text("see"), IMAGE), "messages[1].content[1]"),
        (user({"type": "document", "source": {"type": "file", "file_id": "f"}}), "messages[1].content[0]"),
        (user({"type": "search_result", "content": [], "source": "s", "title": "t"}), "messages[1].content[0]"),
        (user(text("see"), RESULT), "messages[1].content[1].content[1]"),
        (user({"type": "tool_use", "id": "t", "name": "add", "input": {}}), "messages[1].content[0]"),
        (assistant({"type": "tool_result", "tool_use_id": "t"}), "messages[1].content[0]"),
    ],
)
def test_m3_a_block_that_cannot_be_text_is_refused_by_its_place_and_never_fetched(
    message: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        asked(messages=[HELLO, message, HELLO])

    assert (raised.value.code, raised.value.param) == ("unsupported_content", param)


@pytest.mark.parametrize("last", [[], [{"role": "system", "content": "x"}]], ids=["last", "before a system message"])
def test_a_begun_answer_cannot_be_continued_and_says_so(last: list[Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot continue a begun answer \(prefill\)") as raised:
        asked(messages=[HELLO, {"role": "assistant", "content": "The best answer is ("}, *last])

    assert (raised.value.code, raised.value.param) == ("unsupported_content", "messages[1]")


# Tools and JSON


def test_tools_are_offered_as_functions() -> None:
    got = asked(tools=[ADD, SUB])

    assert got.tools == (
        Tool(name="add", description="adds", parameters={"type": "object"}),
        Tool(name="sub", parameters={"type": "object"}, strict=True),
    )
    assert (got.tool_choice, got.parallel_tool_calls) == ("auto", True)


@pytest.mark.parametrize(
    ("choice", "names", "word", "parallel"),
    [
        ({"type": "auto"}, ["add", "sub"], "auto", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["add", "sub"], "auto", False),
        ({"type": "any", "disable_parallel_tool_use": False}, ["add", "sub"], "required", True),
        ({"type": "tool", "name": "sub", "disable_parallel_tool_use": True}, ["sub"], "required", False),
        ({"type": "none"}, [], "auto", True),
    ],
)
def test_a_choice_of_tools_is_kept(choice: dict[str, Any], names: list[str], word: str, parallel: bool) -> None:
    got = asked(tools=[ADD, SUB], tool_choice=choice)

    assert [tool.name for tool in got.tools] == names
    assert (got.tool_choice, got.parallel_tool_calls) == (word, parallel)


def test_a_tool_of_the_service_itself_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="web_search_20250305") as raised:
        asked(tools=[ADD, {"type": "web_search_20250305", "name": "web_search"}])

    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "tools[1].type")


@pytest.mark.parametrize(
    "changes",
    [{"output_config": {"format": SCHEMA, "effort": "low"}}, {"output_format": SCHEMA}],
    ids=["output_config", "its older name"],
)
def test_a_schema_of_the_answer_is_asked_for(changes: dict[str, Any]) -> None:
    assert asked(**changes).output == JsonOutput(schema={"type": "object"})
    assert asked(output_config={"effort": "low"}).output is None


def test_counting_reads_the_same_prompt_as_asking() -> None:
    prompt = {
        "model": "m",
        "messages": [user(text("Hello"))],
        "system": "Be brief.",
        "tools": [ADD, SUB],
        "tool_choice": {"type": "tool", "name": "add"},
        "output_config": {"format": SCHEMA},
    }
    counted = messages_request.ask(read(json.dumps(prompt).encode(), CountTokensRequest).values)
    real = asked(**prompt, max_tokens=5, stop_sequences=["x"], temperature=0)

    assert (counted.turns, counted.tools, counted.tool_choice) == (real.turns, real.tools, real.tool_choice)
    assert (counted.output, counted.max_tokens, counted.stop) == (real.output, None, ())
