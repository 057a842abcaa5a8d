"""OpenAI's Python SDK against a real gateway: the Responses API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from openai import OpenAI

from flowgpt.embedded import Server
from tests.clients.conftest import MODEL, Connect, Serve, serving

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def test_a_question_is_answered(client: OpenAI, upstream: Server) -> None:
    answer = client.responses.create(model=MODEL, instructions="Be brief.", input="Say seven.")

    assert answer.output_text == "The model says: Say seven."
    assert (answer.status, answer.incomplete_details, answer.error) == ("completed", None, None)
    chat = upstream.requests[-1].chat
    assert chat is not None
    assert chat.prompt.system == "Be brief."


def test_a_stream_brings_every_event_in_order(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Say seven.", stream=True))

    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_the_sdks_own_stream_ends_with_the_whole_response(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Say seven.") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        answer = stream.get_final_response()

    assert text == answer.output_text == "The model says: Say seven."


def test_a_limit_of_tokens_makes_it_incomplete(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="One two three", max_output_tokens=16)
    assert answer.status == "completed"

    long = client.responses.create(model=MODEL, input="One two three " * 20, max_output_tokens=16)
    assert (long.status, len(long.output_text)) == ("incomplete", 64)
    assert long.incomplete_details is not None
    assert long.incomplete_details.reason == "max_output_tokens"


def test_a_function_is_called_and_its_output_used(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="get_weather for Paris, please", tools=[WEATHER])
    (call,) = first.output
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert set(json.loads(call.arguments)) == {"city"}

    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}],
        tools=[WEATHER],
    )
    assert "21 degrees" in second.output_text


def test_a_streamed_function_call_is_put_together_by_the_sdk(client: OpenAI) -> None:
    tool: Any = {"type": "function", **openai.pydantic_function_tool(City, name="get_weather")["function"]}
    with client.responses.stream(
        model=MODEL,
        input="get_weather for Paris, please",
        tools=[tool],
    ) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        (call,) = stream.get_final_response().output

    assert call.type == "function_call"
    assert [event.arguments for event in done] == [call.arguments]


class City(pydantic.BaseModel):
    """A city."""

    city: str


def test_an_answer_is_parsed_into_a_class(client: OpenAI) -> None:
    assert isinstance(client.responses.parse(model=MODEL, input="Paris", text_format=City).output_parsed, City)


def test_a_conversation_goes_on_by_the_earlier_response(client: OpenAI, upstream: Server) -> None:
    first = client.responses.create(model=MODEL, instructions="Be brief.", input="One?")
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input="Two?")

    chat = upstream.requests[-1].chat
    assert chat is not None
    assert [turn.content for turn in chat.prompt.history] == ["One?", "The model says: One?"]
    assert (chat.prompt.system, chat.prompt.question) == ("", "Two?")
    assert second.previous_response_id == first.id


def test_a_stored_response_is_found_listed_and_deleted(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Say seven.")

    assert client.responses.retrieve(made.id).output_text == made.output_text
    items: Any = client.responses.input_items.list(made.id)
    assert [item.content[0].text for item in items] == ["Say seven."]
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve(made.id)
    assert caught.value.code == "response_not_found"


def test_a_stored_response_survives_a_restart(serve: Serve, connect: Connect, tmp_path: Path, upstream: Server) -> None:
    with serving(upstream, tmp_path / "home") as gateway:
        made = connect(gateway).responses.create(model=MODEL, input="Say seven.")

    again = connect(serve(home=tmp_path / "home"))
    assert again.responses.retrieve(made.id).output_text == "The model says: Say seven."


def test_a_response_that_is_not_to_be_stored_is_not(client: OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Say seven.", store=False)

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, previous_response_id=made.id, input="And?")
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


@pytest.mark.parametrize("fault", ["cut_at_line:2", "reset_mid_stream:2"])
def test_a_stream_that_is_cut_tells_so_after_its_text(client: OpenAI, upstream: Server, fault: str) -> None:
    upstream.fault(fault)
    events: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        events.extend(client.responses.create(model=MODEL, input="Say seven.", stream=True))

    assert "response.output_text.delta" in {event.type for event in events}
    assert not {"response.completed", "response.output_text.done"} & {event.type for event in events}
    assert caught.value.code in ("stream_truncated", "stream_interrupted")


def test_who_leaves_a_stream_frees_the_service(client: OpenAI, upstream: Server) -> None:
    upstream.fault("endless")
    stream = client.responses.create(model=MODEL, input="Hello", stream=True)
    next(stream)
    stream.close()

    upstream.wait_until_idle()


def test_a_key_is_asked_for_once_there_is_one_and_keeps_responses_apart(
    serve: Serve, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = serve(home=tmp_path / "home")
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "home"))
    keys = [
        subprocess.run(
            [sys.executable, "-P", "-m", "flowgpt", "keys", "add", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("ada", "bob")
    ]

    with pytest.raises(openai.AuthenticationError) as caught:
        connect(gateway, api_key="fg-wrong").models.list()
    assert caught.value.code == "invalid_api_key"
    ada, bob = (connect(gateway, api_key=key) for key in keys)
    made = ada.responses.create(model=MODEL, input="Mine.")
    assert ada.responses.retrieve(made.id).id == made.id
    with pytest.raises(openai.NotFoundError):
        bob.responses.retrieve(made.id)
