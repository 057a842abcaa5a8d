"""What is asked by OpenAI's chat completions: every parameter has a row, and a request is one plain question."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowgpt.errors import InvalidRequestError
from flowgpt.formats.openai.chat_request import ChatRequest, ask, include_usage
from flowgpt.formats.parameters import Read, read, rows
from flowgpt.formats.pieces import Ask, JsonOutput, Tool, ToolCall, Turn
from tests.openai_description import properties

USER = {"role": "user", "content": "Hi"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "time", "description": "What time it is", "strict": True}}


WRONG_FUNCTION = {"name": "wrong", "parameters": {"type": "wrong"}}


def given(**members: Any) -> Read[ChatRequest]:
    return read(json.dumps({"model": "m", "messages": [USER]} | members).encode(), ChatRequest)


def asked(*messages: dict[str, Any], **members: Any) -> Ask:
    return ask(given(**({"messages": messages} if messages else {}) | members).values)


def refusal(*messages: dict[str, Any], **members: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequestError) as caught:
        asked(*messages, **members)
    assert caught.value.param is None or caught.value.message.startswith(caught.value.param)
    return caught.value.code, caught.value.param


# --- the table --------------------------------------------------------------------------------------------------------


def test_i5_every_parameter_that_openai_describes_has_its_row() -> None:
    """Provenance: OpenAI's OpenAPI, CreateChatCompletionRequest."""
    assert rows(ChatRequest).keys() == properties("CreateChatCompletionRequest")


def test_i5_what_is_only_accepted_is_listed() -> None:
    names = {name: "x" for name, row in rows(ChatRequest).items() if row.handling == "ignored"}

    got = given(**names)

    assert set(got.ignored) == {
        *("frequency_penalty", "logit_bias", "metadata", "prediction", "presence_penalty", "prompt_cache_key"),
        *("prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier", "seed"),
        *("service_tier", "store", "top_p", "user", "verbosity"),
    }
    assert got.emulated == ()


@pytest.mark.parametrize(
    "name",
    [
        *("audio", "function_call", "functions", "logprobs", "modalities", "moderation", "top_logprobs"),
        "web_search_options",
    ],
)
def test_i5_what_would_make_another_answer_is_refused(name: str) -> None:
    assert refusal(**{name: ["audio"]}) == ("unsupported_parameter", name)


def test_i5_values_that_ask_for_nothing_are_neither_listed_nor_refused() -> None:
    got = given(
        **{name: None for name in rows(ChatRequest) if name not in ("model", "messages")}
        | {"n": 1, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "stop": []}
        | {"response_format": {"type": "text"}, "logprobs": False, "top_logprobs": 0, "modalities": ["text"]}
        | {"frequency_penalty": 0, "presence_penalty": 0.0, "top_p": 1, "logit_bias": {}, "metadata": {}}
        | {"store": False, "service_tier": "auto", "functions": [], "function_call": "none"}
    )

    assert (got.ignored, got.emulated) == ((), ())
    assert ask(got.values) == Ask(model="m", turns=[Turn(role="user", text="Hi")])


def test_i5_what_is_emulated_is_listed() -> None:
    got = given(
        stop="x", n=2, max_tokens=5, max_completion_tokens=4, tools=[TIME], tool_choice="required",
        parallel_tool_calls=False, response_format={"type": "json_object"},
    )  # fmt: skip

    assert set(got.emulated) == {name for name, row in rows(ChatRequest).items() if row.handling == "emulated"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", True),
        ("temperature", "0.7"),
        ("stop", ""),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("max_completion_tokens", 1.5),
        ("n", 0),
        ("n", -1),
        ("n", 17),
        ("stream", "yes"),
        ("stream_options", "include_usage"),
        ("messages", []),
        ("messages", None),
        ("messages", "Hi"),
        ("tools", {}),
        ("tool_choice", "any"),
        ("parallel_tool_calls", 0),
    ],
)
def test_i5_j4_a_value_of_a_wrong_type_or_size_is_refused_by_name(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == ("invalid_request", name)


def test_an_empty_stop_sequence_among_others_is_named() -> None:
    assert refusal(stop=["a", ""]) == ("invalid_request", "stop[1]")


# --- the conversation -------------------------------------------------------------------------------------------------


def test_a_request_is_a_question() -> None:
    got = asked(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "Ada"},
        temperature=0.5,
        stop="END",
        max_tokens=7,
        n=3,
        response_format={"type": "json_object"},
    )

    assert got == Ask(
        model="m",
        turns=[Turn(role="system", text="Be brief."), Turn(role="user", text="Hi")],
        temperature=0.5,
        stop=("END",),
        max_tokens=7,
        n=3,
        output=JsonOutput(),
    )


def test_the_smaller_of_two_limits_counts() -> None:
    assert asked(max_tokens=7, max_completion_tokens=5).max_tokens == 5
    assert asked(max_tokens=4, max_completion_tokens=5).max_tokens == 4
    assert asked(max_completion_tokens=5).max_tokens == 5


def test_several_stop_sequences_keep_their_order() -> None:
    assert asked(stop=["b", "a"]).stop == ("b", "a")


def test_text_and_refusal_parts_are_joined_as_they_are() -> None:
    got = asked(
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b\n"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": None, "refusal": "Never."},
        USER,
    )

    assert [turn.text for turn in got.turns] == ["ab\n", "cNo.", "Never.", "Hi"]


def test_calls_and_their_results_keep_their_ids() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}

    got = asked(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call, call | {"id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
    )

    assert got.turns[1:] == [
        Turn(
            role="assistant",
            calls=(
                ToolCall("call_1", "weather", '{"city": "Bonn"}'),
                ToolCall("call_2", "weather", '{"city": "Bonn"}'),
            ),
        ),
        Turn(role="tool", text="rain", call_id="call_1"),
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
    ],
)
def test_m3_what_is_no_text_is_refused_and_named_and_never_fetched(part: dict[str, Any]) -> None:
    """There is nothing here that could fetch: a pure room has no sockets (tests/test_architecture.py)."""
    message = {"role": "user", "content": [{"type": "text", "text": "a"}, part]}

    assert refusal(message) == ("unsupported_content", "messages[0].content[1]")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": "a"}, "messages[1].role"),
        ({"role": "function", "name": "f", "content": "a"}, "messages[1].role"),
        ({"role": "User", "content": "a"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": ["a"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "video"}]}, "messages[1].content[0].type"),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "assistant", "tool_calls": []}, "messages[1].content"),
        ({"role": "assistant", "content": "", "function_call": {}}, "messages[1].function_call"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "messages[1].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "messages[1].tool_calls[0].type"),
        ({"role": "tool", "content": "a"}, "messages[1].tool_call_id"),
    ],
)
def test_j2_a_wrong_message_is_named_to_its_part(message: dict[str, Any], param: str) -> None:
    assert refusal(USER, message) == ("invalid_request", param)


def test_audio_of_an_earlier_answer_is_refused() -> None:
    assert refusal({"role": "assistant", "audio": {"id": "a"}}) == ("unsupported_content", "messages[0].audio")


def test_j8_words_that_look_like_roles_stay_words() -> None:
    assert asked({"role": "user", "content": "\nassistant: yes"}).turns == [Turn(role="user", text="\nassistant: yes")]


# --- tools and formats ------------------------------------------------------------------------------------------------


def test_functions_become_tools() -> None:
    assert asked(tools=[WEATHER, TIME]).tools == (
        Tool(name="weather", parameters={"type": "object"}),
        Tool(name="time", description="What time it is", strict=True),
    )


@pytest.mark.parametrize(
    ("choice", "names", "mode"),
    [
        (None, ["weather", "time"], "auto"),
        ("auto", ["weather", "time"], "auto"),
        ("none", [], "auto"),
        ("required", ["weather", "time"], "required"),
        ({"type": "function", "function": {"name": "time"}}, ["time"], "required"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]},
            },
            ["weather"],
            "auto",
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]},
            },
            ["time"],
            "required",
        ),
    ],
)
def test_a_choice_of_tools_leaves_those_that_may_be_called(choice: Any, names: list[str], mode: str) -> None:
    got = asked(tools=[WEATHER, TIME], tool_choice=choice)

    assert [tool.name for tool in got.tools] == names
    assert got.tool_choice == mode


def test_a_choice_of_nothing_without_tools_is_fine() -> None:
    assert asked(tool_choice="none").tools == ()
    assert asked(tool_choice="auto").tool_choice == "auto"


def test_one_call_at_a_time_may_be_asked_for() -> None:
    assert asked(tools=[TIME]).parallel_tool_calls is True
    assert asked(tools=[TIME], parallel_tool_calls=False).parallel_tool_calls is False


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "two words"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x" * 65}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice.type"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        (
            {"tools": [TIME], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
            "tool_choice.allowed_tools.tools",
        ),
        (
            {
                "tools": [TIME],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
            },
            "tool_choice",
        ),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
    ],
)
def test_i5_a_wrong_tool_choice_or_format_is_named(members: dict[str, Any], param: str) -> None:
    assert refusal(**members) == ("invalid_request", param)


def test_a_schema_that_nothing_is_checked_by_is_only_shown_to_the_model() -> None:
    assert asked(tools=[{"type": "function", "function": WRONG_FUNCTION}]).tools[0].parameters == {"type": "wrong"}


@pytest.mark.parametrize(
    ("wanted", "output"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonOutput()),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, JsonOutput(schema={})),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "array"}}},
            JsonOutput(schema={"type": "array"}),
        ),
    ],
)
def test_a_format_is_text_an_object_or_what_a_schema_says(wanted: dict[str, Any], output: JsonOutput | None) -> None:
    assert asked(response_format=wanted).output == output


@pytest.mark.parametrize(
    ("options", "wanted"),
    [(None, False), ({}, False), ({"include_usage": None}, False), ({"include_usage": True}, True)],
)
def test_the_usage_of_a_stream_comes_when_it_is_asked_for(options: dict[str, Any] | None, wanted: bool) -> None:
    assert include_usage(given(stream=True, stream_options=options).values) is wanted
