"""Anthropic's Python SDK against a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import Anthropic

from flowgpt.embedded import Server
from tests.clients.conftest import MODEL, Gateway

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def asking(text: str, **more: Any) -> Any:
    return {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": text}]} | more


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.origin, api_key="none", max_retries=0) as client:
        yield client


def test_a_question_is_answered(client: Anthropic, upstream: Server) -> None:
    answer = client.messages.create(**asking("Say seven.", system="Be brief.", extra_body={"temperature": 0.5}))

    assert [block.text for block in answer.content if block.type == "text"] == ["The model says: Say seven."]
    assert (answer.stop_reason, answer.stop_sequence, answer.role) == ("end_turn", None, "assistant")
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens
    chat = upstream.requests[-1].chat
    assert chat is not None
    assert (chat.prompt.system, chat.temperature) == ("Be brief.", 0.5)


def test_a_stream_is_put_together_by_the_sdk(client: Anthropic) -> None:
    with client.messages.stream(**asking("Say seven.")) as stream:
        texts = list(stream.text_stream)
        answer = stream.get_final_message()

    assert "".join(texts) == "The model says: Say seven."
    assert len(texts) > 2
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0


def test_the_raw_events_come_in_the_legal_order(client: Anthropic) -> None:
    kinds = [event.type for event in client.messages.create(**asking("Say seven."), stream=True)]

    assert (kinds[0], kinds[1]) == ("message_start", "content_block_start")
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("more", "text", "reason", "sequence"),
    [
        ({"stop_sequences": [" two"]}, "The model says: One", "stop_sequence", " two"),
        ({"max_tokens": 3}, "The model sa", "max_tokens", None),
    ],
)
def test_the_reason_of_an_early_end_is_told(
    client: Anthropic, more: Any, text: str, reason: str, sequence: str | None
) -> None:
    whole = client.messages.create(**asking("One two three", **more))
    with client.messages.stream(**asking("One two three", **more)) as stream:
        streamed = stream.get_final_message()

    for answer in (whole, streamed):
        assert [block.text for block in answer.content if block.type == "text"] == [text]
        assert (answer.stop_reason, answer.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_used(client: Anthropic, stream: bool) -> None:
    question = asking("get_weather for Paris, please", tools=[WEATHER])
    if stream:
        with client.messages.stream(**question) as streaming:
            first = streaming.get_final_message()
    else:
        first = client.messages.create(**question)

    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert call.type == "tool_use"
    assert call.name == "get_weather"
    assert isinstance(call.input, dict)
    assert call.input.keys() == {"city"}

    result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
    history = [
        *question["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = client.messages.create(**(question | {"messages": history}))
    assert second.stop_reason == "end_turn"
    assert "21 degrees" in "".join(block.text for block in second.content if block.type == "text")


class City(pydantic.BaseModel):
    """A city."""

    city: str


def test_an_answer_is_parsed_into_a_class(client: Anthropic) -> None:
    assert isinstance(client.messages.parse(**asking("Paris"), output_format=City).parsed_output, City)


def test_tokens_are_estimated(client: Anthropic) -> None:
    question = asking("Hello there")
    del question["max_tokens"]

    assert client.messages.count_tokens(**question).input_tokens > 0


def test_the_models_are_listed(client: Anthropic) -> None:
    assert MODEL in [model.id for model in client.models.list()]


@pytest.mark.parametrize(
    ("more", "kind", "status", "code"),
    [
        ({"model": "claude-9"}, anthropic.NotFoundError, 404, "model_not_found"),
        ({"messages": []}, anthropic.BadRequestError, 400, "invalid_request"),
        ({"extra_body": {"temperature": 2}}, anthropic.BadRequestError, 400, "invalid_request"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, anthropic.BadRequestError, 400, None),
    ],
)
def test_a_wrong_request_raises_the_sdks_error_and_asks_nobody(
    client: Anthropic, upstream: Server, more: Any, kind: Any, status: int, code: str | None
) -> None:
    with pytest.raises(kind) as caught:
        client.with_options(max_retries=2).messages.create(**(asking("Hello") | more))

    assert caught.value.status_code == status
    assert caught.value.body["type"] == "error"
    assert code is None or caught.value.body["error"]["code"] == code
    assert not upstream.requests


@pytest.mark.parametrize(
    ("fault", "kind", "status", "asked"),
    [("status:401", anthropic.InternalServerError, 502, 1), ("credit", anthropic.RateLimitError, 429, 1)],
)
def test_a_failing_service_raises_the_sdks_error_without_a_storm_of_requests(
    client: Anthropic, upstream: Server, fault: str, kind: Any, status: int, asked: int
) -> None:
    upstream.fault(fault, times=9)

    with pytest.raises(kind) as caught:
        client.with_options(max_retries=2).messages.create(**asking("Hello"))

    assert caught.value.status_code == status
    assert len(upstream.requests) == asked


@pytest.mark.parametrize("fault", ["cut_at_line:2", "reset_mid_stream:2"])
def test_a_stream_that_is_cut_raises_after_its_text(client: Anthropic, upstream: Server, fault: str) -> None:
    upstream.fault(fault)
    texts: list[str] = []
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(**asking("Say seven.")) as stream:
        texts.extend(stream.text_stream)

    assert texts
    assert "The model says: Say seven.".startswith("".join(texts))


def test_who_leaves_a_stream_frees_the_service(client: Anthropic, upstream: Server) -> None:
    upstream.fault("endless")
    stream = client.messages.create(**asking("Hello"), stream=True)
    next(iter(stream))
    stream.close()

    upstream.wait_until_idle()
