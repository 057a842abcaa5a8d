"""LiteLLM against a real gateway, by its `openai/` provider."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

from flowgpt.embedded import Server
from tests.clients.conftest import MODEL, Gateway


def ask(gateway: Gateway, text: str, model: str = MODEL, **more: Any) -> Any:
    return litellm.completion(
        model=f"openai/{model}",
        base_url=gateway.base_url,
        api_key="none",
        messages=[{"role": "user", "content": text}],
        **{"max_retries": 0, **more},
    )


def test_a_question_is_answered(gateway: Gateway) -> None:
    answer = ask(gateway, "Say seven.")

    assert answer.choices[0].message.content == "The model says: Say seven."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0


def test_a_stream_brings_the_text_in_pieces(gateway: Gateway) -> None:
    chunks = list(ask(gateway, "Say seven.", stream=True, stream_options={"include_usage": True}))

    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(texts) == "The model says: Say seven."
    assert len(texts) > 2
    assert litellm.stream_chunk_builder(chunks).usage.total_tokens > 0


async def test_the_async_form_streams_too(gateway: Gateway) -> None:
    answer: Any = await litellm.acompletion(
        model=f"openai/{MODEL}",
        base_url=gateway.base_url,
        api_key="none",
        messages=[{"role": "user", "content": "Say seven."}],
        stream=True,
    )

    assert "".join([chunk.choices[0].delta.content or "" async for chunk in answer]) == "The model says: Say seven."


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(gateway: Gateway, stream: bool) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    answer = ask(gateway, "get_weather for Paris, please", tools=[tool], stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))

    assert answer.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_weather"]


def test_an_unknown_model_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(litellm.NotFoundError) as caught:
        ask(gateway, "Hello", model="gpt-9")

    assert caught.value.status_code == 404


def test_a_wrong_parameter_is_a_bad_request(gateway: Gateway, upstream: Server) -> None:
    with pytest.raises(litellm.BadRequestError):
        ask(gateway, "Hello", temperature=9)

    assert not upstream.requests


@pytest.mark.parametrize(
    ("fault", "kind"), [("credit", litellm.RateLimitError), ("status:401", litellm.BadGatewayError)]
)
def test_a_failing_service_raises_once(gateway: Gateway, upstream: Server, fault: str, kind: Any) -> None:
    upstream.fault(fault, times=9)

    with pytest.raises(kind):
        ask(gateway, "Hello", max_retries=2)

    assert len(upstream.requests) == 1


def test_a_stream_that_is_cut_raises(gateway: Gateway, upstream: Server) -> None:
    upstream.fault("cut_at_line:2")

    chunks: list[Any] = []
    with pytest.raises(litellm.exceptions.MidStreamFallbackError) as caught:
        chunks.extend(ask(gateway, "Say seven.", stream=True))

    assert chunks[0].choices[0].delta.content
    assert "the reply ended before its end" in str(caught.value)
