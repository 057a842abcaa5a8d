"""The objects of OpenAI's Responses API: each is valid by OpenAI's description, and has all that this requires."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from flowgpt.formats.openai import responses_events
from flowgpt.formats.openai.chat_request import ResponseFormatText
from flowgpt.formats.openai.responses_events import Response, ResponseUsage, StreamEvent
from flowgpt.formats.openai.responses_request import TextConfig
from tests.openai_description import DESCRIPTION, faults

EVENTS = {kind.__struct_config__.tag: kind for kind in get_args(StreamEvent)}

BEGUN = Response(
    id="resp_1",
    created_at=1700000000,
    model="m",
    instructions=None,
    max_output_tokens=None,
    metadata={},
    parallel_tool_calls=True,
    previous_response_id=None,
    temperature=None,
    text=TextConfig(format=ResponseFormatText()),
    tool_choice="auto",
    tools=[],
)


def test_a_begun_response_has_no_usage_rather_than_none() -> None:
    """Provenance: OpenAI's OpenAPI, Response: `usage` may be left out, and may not be null."""
    begun = BEGUN.model_dump()

    assert faults(begun, "Response") == []
    assert "usage" not in begun
    assert faults(begun | {"usage": None}, "Response") != []


def test_the_usage_is_complete_and_says_that_it_is_an_estimate() -> None:
    usage = ResponseUsage(input_tokens=1, output_tokens=2, total_tokens=3).model_dump()

    assert faults(usage, "ResponseUsage") == []
    assert usage["estimated"] is True


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_has_the_name_and_the_members_of_openais(name: str) -> None:
    """Provenance: OpenAI's OpenAPI, ResponseStreamEvent."""
    [theirs] = [
        schema
        for schema in DESCRIPTION["components"]["schemas"].values()
        if schema.get("properties", {}).get("type", {}).get("enum") == [name]
        and "sequence_number" in schema["required"]
    ]
    ours = {field.encode_name for field in msgspec.structs.fields(EVENTS[name])} | {"type"}

    assert set(theirs["required"]) <= ours
    assert ours <= theirs["properties"].keys() | {"error"}  # the latter for OpenAI's own SDKs, see ErrorEvent


def test_every_event_that_is_defined_can_be_streamed() -> None:
    defined = {
        kind
        for kind in vars(responses_events).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and "sequence_number" in kind.__struct_fields__
        if kind.__struct_config__.tag
    }

    assert defined == {*get_args(StreamEvent)}
