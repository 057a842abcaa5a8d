"""Requests of OpenAI's Responses API: the table of parameters is complete, and a request is the right question."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowgpt.errors import InvalidRequestError
from flowgpt.formats.openai import responses_request
from flowgpt.formats.openai.responses_request import ResponsesRequest
from flowgpt.formats.parameters import Read, read, rows
from flowgpt.formats.pieces import Ask, JsonOutput, Tool, Turn
from tests.openai_description import properties


def reading(**parameters: Any) -> Read[ResponsesRequest]:
    body = {"model": "gpt-3.5-turbo", "input": "Hello"} | parameters
    return read(json.dumps(body).encode(), ResponsesRequest)


def asked(*earlier: Turn, **parameters: Any) -> Ask:
    return responses_request.ask(reading(**parameters).values, earlier)


def refused(**parameters: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**parameters)
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value


def test_i5_every_parameter_of_openais_has_its_row() -> None:
    """Provenance: OpenAI's OpenAPI, CreateResponse."""
    assert rows(ResponsesRequest).keys() == properties("CreateResponse")


def test_a_question_needs_a_model_and_an_input() -> None:
    ask = asked()

    assert (ask.model, ask.turns, ask.n) == ("gpt-3.5-turbo", [Turn(role="user", text="Hello")], 1)
    assert (ask.temperature, ask.max_tokens, ask.output, ask.tools, ask.tool_choice) == (None, None, None, (), "auto")
    assert ask.parallel_tool_calls
    assert refused(input=[]).param == "input"
    assert refused(input=[{"type": "reasoning", "id": "rs_1", "summary": []}]).param == "input"
    assert refused(input=None).param == "input"
    assert refused(model=None).param == "model"


def test_instructions_come_first_and_then_what_was_said_earlier() -> None:
    earlier = Turn(role="user", text="1"), Turn(role="assistant", text="2")

    assert [turn.text for turn in asked(*earlier, instructions="Be brief.", input="3").turns] == ["Be brief.", *"123"]
    assert [turn.text for turn in asked(*earlier, input="3").turns] == [*"123"]


def test_figures_are_passed_on_and_checked() -> None:
    ask = asked(temperature=0.5, max_output_tokens=16, parallel_tool_calls=False)

    assert (ask.temperature, ask.max_tokens, ask.parallel_tool_calls) == (0.5, 16, False)
    assert refused(temperature=2.1).param == "temperature"
    assert refused(max_output_tokens=0).param == "max_output_tokens"


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonOutput()),
        ({"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}, JsonOutput(schema=SCHEMA)),
    ],
)
def test_the_form_of_the_text(form: dict[str, Any], expected: JsonOutput | None) -> None:
    assert asked(text={"format": form}).output == expected
    assert reading(text={"format": form}).emulated == (("text",) if expected else ())


ADD = {"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": False}
SUBTRACT = {"type": "function", "name": "subtract"}


def test_functions_are_strict_unless_they_say_otherwise() -> None:
    """Provenance: OpenAI's reference, where `strict` of a function tool is true by default."""
    assert asked(tools=[ADD, SUBTRACT]).tools == (
        Tool(name="add", description="Adds.", parameters=SCHEMA, strict=False),
        Tool(name="subtract", strict=True),
    )


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        ("auto", "auto", ["add", "subtract"]),
        ("none", "auto", []),
        ("required", "required", ["add", "subtract"]),
        ({"type": "function", "name": "add"}, "required", ["add"]),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]}, "auto", ["add"]),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "subtract"}]},
            "required",
            ["subtract"],
        ),
    ],
)
def test_a_choice_of_tools_leaves_those_that_are_meant(choice: Any, mode: str, names: list[str]) -> None:
    ask = asked(tools=[ADD, SUBTRACT], tool_choice=choice)

    assert (ask.tool_choice, [tool.name for tool in ask.tools]) == (mode, names)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"tools": [ADD, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [ADD | {"name": "a b"}]}, "tools[0].name"),
        ({"tools": [ADD, ADD]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "multiply"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [ADD], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        (
            {"tools": [ADD], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "add"}]}},
            "tool_choice.mode",
        ),
        (
            {"tools": [ADD], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}},
            "tool_choice.tools",
        ),
    ],
)
def test_tools_that_are_not_to_be_had_are_refused(parameters: dict[str, Any], param: str) -> None:
    assert refused(**parameters).param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("background", True),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("top_logprobs", 5),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("include", ["message.output_text.logprobs"]),
    ],
)
def test_i5_what_would_change_the_answer_is_refused(name: str, value: Any) -> None:
    assert (refused(**{name: value}).code, refused(**{name: value}).param) == ("unsupported_parameter", name)


def test_i5_what_has_no_effect_is_listed() -> None:
    got = reading(
        user="u", top_p=0.5, metadata={"a": "b"}, reasoning={"effort": "low"}, service_tier="flex", max_tool_calls=3
    )

    assert set(got.ignored) == {"user", "top_p", "metadata", "reasoning", "service_tier", "max_tool_calls"}
    assert got.emulated == ()


def test_what_asks_for_nothing_is_not_listed() -> None:
    got = reading(
        background=False,
        top_logprobs=0,
        include=[],
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        truncation="disabled",
        text={"format": {"type": "text"}},
        store=False,
        stream=True,
        conversation=None,
    )

    assert (got.ignored, got.emulated) == ((), ())


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content[0].text"),
        ({"input": 7}, "input"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_i5_a_wrong_type_names_its_place(parameters: dict[str, Any], param: str) -> None:
    error = refused(**parameters)

    assert error.param is not None
    assert error.param.startswith(param)
