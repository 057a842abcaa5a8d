"""OpenAI's Python SDK against a real gateway: chat completions, legacy completions, models; streamed and not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI

from flowgpt.embedded import Server
from tests.clients.conftest import MODEL, Connect, Gateway, Serve

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


# --- answers -----------------------------------------------------------------------------------------------------


def test_a_question_is_answered(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=user("Say seven."))

    assert answer.choices[0].message.content == "The model says: Say seven."
    assert (answer.choices[0].finish_reason, answer.choices[0].message.role) == ("stop", "assistant")
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_a_system_prompt_a_history_and_a_temperature_reach_the_model(client: OpenAI, upstream: Server) -> None:
    client.chat.completions.create(
        model="gemini",
        temperature=0.25,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": [{"type": "text", "text": "Three?"}]},
        ],
    )

    chat = upstream.requests[-1].chat
    assert chat is not None
    assert (chat.model, chat.temperature) == ("google-gemini", 0.25)
    assert (chat.prompt.system, chat.prompt.question) == ("Be brief.", "Three?")
    assert [(turn.role, turn.content) for turn in chat.prompt.history] == [("user", "One?"), ("assistant", "Two.")]


def test_a_stream_brings_the_text_in_pieces(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=user("Say seven."), stream=True))

    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices[0].delta.role] == ["assistant"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "The model says: Say seven."
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len(chunks) > 3
    assert {chunk.usage for chunk in chunks} == {None}


def test_usage_comes_in_one_more_chunk_when_it_is_asked_for(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=user("Say seven."), stream=True, stream_options={"include_usage": True}
        )
    )

    assert [len(chunk.choices) for chunk in chunks] == [1] * (len(chunks) - 1) + [0]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_the_sdks_own_stream_ends_with_the_whole_completion(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=user("Say seven.")) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert answer.choices[0].message.content == "The model says: Say seven."


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_ends_the_answer_and_is_not_shown(client: OpenAI, stream: bool) -> None:
    content, reason = said(client, "One two three", stop=[" two"], stream=stream)

    assert (content, reason) == ("The model says: One", "stop")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_cuts_the_answer(client: OpenAI, name: str, stream: bool) -> None:
    content, reason = said(client, "One two three", **{name: 3}, stream=stream)

    assert (content, reason) == ("The model sa", "length")


def said(client: OpenAI, question: str, **parameters: Any) -> tuple[str, str]:
    answer: Any = client.chat.completions.create(model=MODEL, messages=user(question), **parameters)
    if not parameters.get("stream"):
        return answer.choices[0].message.content, answer.choices[0].finish_reason
    chunks = list(answer)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks[-1].choices[0].finish_reason


def test_n_answers_come_side_by_side(client: OpenAI, upstream: Server) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=user("Say seven."), n=3)

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"The model says: Say seven."}
    assert len(upstream.requests) == 3


def test_n_streamed_answers_keep_apart(client: OpenAI) -> None:
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model=MODEL, messages=user("Say seven."), n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert set(texts.values()) == {"The model says: Say seven."}


def test_headers_name_what_was_ignored_and_what_was_emulated(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=user("Hello"), seed=1, top_p=0.5, stop=["zzz"]
    )

    assert raw.headers["x-flowgpt-ignored"] == "seed, top_p"
    assert raw.headers["x-flowgpt-emulated"] == "stop"
    assert raw.request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0


# --- tools and structured output ---------------------------------------------------------------------------------


def test_a_tool_is_called_and_its_result_used(client: OpenAI) -> None:
    messages = user("get_weather for Paris, please")
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER]).choices[0]

    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    (call,) = first.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] == "celsius"

    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    second = client.chat.completions.create(
        model=MODEL, messages=[*messages, first.message.model_dump(exclude_none=True), result], tools=[WEATHER]
    ).choices[0]
    assert second.finish_reason == "stop"
    assert "21 degrees" in (second.message.content or "")


def test_a_streamed_tool_call_is_put_together_by_the_sdk(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=user("get_weather for Paris, please"), tools=[openai.pydantic_function_tool(Weather)]
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        answer = stream.get_final_completion().choices[0]

    assert [event.name for event in done] == ["Weather"]
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


class Weather(pydantic.BaseModel):
    """get_weather: what it is like in a city."""

    city: str
    degrees: int


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_can_be_made_to_be_called(client: OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=user("Hello"), tools=[WEATHER], tool_choice=choice)

    assert [call.type for call in answer.choices[0].message.tool_calls or []] == ["function"]


def test_no_tool_is_called_where_none_may_be(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user("get_weather for Paris"), tools=[WEATHER], tool_choice="none"
    )

    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_an_answer_is_parsed_into_a_class(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=user("Paris in May"), response_format=Weather)

    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_json_mode_gives_an_object(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=user("Paris as JSON"), response_format={"type": "json_object"}
    )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "kind", "status", "code", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, 404, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, 400, "invalid_request", "messages"),
        ({"temperature": 3}, openai.BadRequestError, 400, "invalid_request", "temperature"),
        ({"logprobs": True}, openai.BadRequestError, 400, "unsupported_parameter", "logprobs"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a.invalid/"}}]}
                ]
            },
            openai.BadRequestError,
            400,
            "unsupported_content",
            "messages[0].content[0]",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_raises_the_sdks_error_and_asks_nobody(
    client: OpenAI, upstream: Server, parameters: Any, kind: Any, status: int, code: str, param: str, stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client.with_options(max_retries=2).chat.completions.create(
            **({"model": MODEL, "messages": user("Hello"), "stream": stream} | parameters)
        )

    assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)
    assert caught.value.request_id
    assert not upstream.requests


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code", "asked"),
    [
        ("status:400", openai.InternalServerError, 502, "bad_request", 1),
        ("status:401", openai.InternalServerError, 502, "authentication_failed", 1),
        ("challenge", openai.InternalServerError, 502, "challenge", 1),
        ("html_page", openai.InternalServerError, 502, "not_a_stream", 1),
        ("credit", openai.RateLimitError, 429, "quota_exceeded", 1),
        ("status:500", openai.InternalServerError, 502, "server_error", 3),
        ("refuse", openai.InternalServerError, 502, "connection_closed_idle|stream_interrupted", 3),
        ("status:503", openai.InternalServerError, 502, "service_unavailable", 3),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_service_raises_the_sdks_error_without_a_storm_of_requests(
    client: OpenAI, upstream: Server, fault: str, kind: Any, status: int, code: str, asked: int, stream: bool
) -> None:
    upstream.fault(fault, times=9)

    with pytest.raises(kind) as caught:
        client.with_options(max_retries=2).chat.completions.create(model=MODEL, messages=user("Hello"), stream=stream)

    assert caught.value.status_code == status
    assert caught.value.code in code.split("|")
    assert len(upstream.requests) <= asked


def test_a_rate_limit_is_waited_out_by_the_sdk(serve: Serve, connect: Connect, upstream: Server) -> None:
    upstream.fault("rate_limit:1")
    client = connect(serve(), max_retries=2)

    assert client.chat.completions.create(model=MODEL, messages=user("Hello")).choices[0].message.content
    assert [request.status for request in upstream.requests] == [429, 200]


def test_a_rate_limit_is_handed_on_with_its_time_and_asks_nobody_meanwhile(
    serve: Serve, connect: Connect, upstream: Server
) -> None:
    upstream.fault("rate_limit:60")
    client = connect(serve())

    for _ in range(3):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=MODEL, messages=user("Hello"))
        assert caught.value.code == "rate_limited"
        assert 50 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("fault", ["cut_at_line:2", "cut_mid_line:2", "reset_mid_stream:2", "wrong_json:2"])
def test_a_stream_that_is_cut_raises_after_its_text(client: OpenAI, upstream: Server, fault: str) -> None:
    upstream.fault(fault)
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        chunks.extend(client.chat.completions.create(model=MODEL, messages=user("Say seven."), stream=True))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text
    assert "The model says: Say seven.".startswith(text)
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}
    assert caught.value.code in ("stream_truncated", "stream_interrupted", "bad_event")


@pytest.mark.parametrize("name", ["embeddings", "images", "moderations"])
def test_what_flowgpt_cannot_do_is_said_to_be_so(client: OpenAI, name: str) -> None:
    calls: Any = {
        "embeddings": lambda: client.embeddings.create(model=MODEL, input="Hello"),
        "images": lambda: client.images.generate(prompt="Hello"),
        "moderations": lambda: client.moderations.create(input="Hello"),
    }
    with pytest.raises(openai.InternalServerError) as caught:
        calls[name]()

    assert (caught.value.status_code, caught.value.code) == (501, "not_supported")


# --- leaving -----------------------------------------------------------------------------------------------------


def test_who_leaves_a_stream_frees_the_service(client: OpenAI, upstream: Server) -> None:
    upstream.fault("endless")
    stream = client.chat.completions.create(model=MODEL, messages=user("Hello"), stream=True)
    next(stream)
    stream.close()

    upstream.wait_until_idle()


@pytest.mark.parametrize("fault", ["stall_head", "stall:0", "stall:2"])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_cancels_frees_the_service(gateway: Gateway, upstream: Server, fault: str, stream: bool) -> None:
    async def ask() -> None:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
            answer: Any = await client.chat.completions.create(model=MODEL, messages=user("Hello"), stream=stream)
            async for _ in answer:
                pass

    upstream.fault(fault)
    asking = asyncio.create_task(ask())
    await asyncio.to_thread(upstream.wait_until_open, 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    await asyncio.to_thread(upstream.wait_until_idle)


# --- keys, models, legacy ----------------------------------------------------------------------------------------


def test_the_models_are_listed_and_found(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]

    assert {MODEL, "gemini"} <= set(ids)
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_a_program_with_a_fixed_name_of_a_model_is_answered(serve: Serve, connect: Connect, upstream: Server) -> None:
    gateway = serve("--model-name", "gpt-4o-mini=google-gemini", "--any-model", MODEL)
    client = connect(gateway)

    for name in ("gpt-4o-mini", "gpt-9"):
        client.chat.completions.create(model=name, messages=user("Hello"))

    assert [request.chat.model for request in upstream.requests if request.chat] == ["google-gemini", MODEL]
    assert "gpt-4o-mini" in [model.id for model in client.models.list()]


def test_a_legacy_completion_is_answered(client: OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt="Say seven.")
    chunks = list(client.completions.create(model=MODEL, prompt="Say seven.", stream=True))

    assert whole.choices[0].text == "The model says: Say seven." == "".join(chunk.choices[0].text for chunk in chunks)
    assert whole.choices[0].finish_reason == "stop" == chunks[-1].choices[0].finish_reason
