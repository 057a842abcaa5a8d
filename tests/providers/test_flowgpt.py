"""FlowGpt is what its description says: every name and default, its examples as written, its request on the wire."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import inspect
import json
import os
import re
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowgpt
from flowgpt import FlowGpt, InvalidRequestError, ModelNotFoundError, RateLimitError
from flowgpt.embedded import Server
from flowgpt.messages import Message
from flowgpt.providers.base import AsyncGeneratorProvider, ProviderModelMixin
from tests.conftest import API_KEY, PROXY_PASSWORD
from tests.upstream import Upstream, answer, reply

ASK: list[Message] = [{"role": "user", "content": "?"}]
CHAT: list[Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Who é are you?"},
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([reply("Hel", "lo")]) as upstream:
        yield upstream


def sent(upstream: Upstream, messages: Any = ASK, **options: Any) -> dict[str, Any]:
    """The body of the request that a call makes."""
    list(FlowGpt.create_completion(messages=messages, base_url=upstream.url, **options))
    body: dict[str, Any] = json.loads(upstream.requests[-1].body)
    return body


# The description, word by word


def test_the_attributes_are_those_of_the_description() -> None:
    """Provenance: the provider's description, "Attributes" and "Parameter Details"."""
    assert issubclass(FlowGpt, AsyncGeneratorProvider)
    assert issubclass(FlowGpt, ProviderModelMixin)
    assert FlowGpt.url == "https://flowgpt.com/chat"
    assert FlowGpt.working is True
    assert FlowGpt.supports_message_history is True
    assert FlowGpt.supports_system_message is True
    assert FlowGpt.default_model == "gpt-3.5-turbo"
    assert FlowGpt.models == [
        "gpt-3.5-turbo",
        "gpt-3.5-long",
        "gpt-4-turbo",
        "google-gemini",
        "claude-instant",
        "claude-v1",
        "claude-v2",
        "llama2-13b",
        "mythalion-13b",
        "pygmalion-13b",
        "chronos-hermes-13b",
        "Mixtral-8x7B",
        "Dolphin-2.6-8x7B",
    ]
    assert FlowGpt.model_aliases == {"gemini": "google-gemini", "gemini-pro": "google-gemini"}
    assert FlowGpt.get_models() == FlowGpt.models


@pytest.mark.parametrize("form", ["create_async_generator", "create_async", "create_completion"])
def test_each_form_takes_the_parameters_of_the_description_in_its_order(form: str) -> None:
    parameters = list(inspect.signature(getattr(FlowGpt, form)).parameters.values())

    assert [(one.name, one.default) for one in parameters[:4]] == [
        ("model", ""),
        ("messages", ()),
        ("proxy", None),
        ("temperature", 0.7),
    ]
    assert parameters[4].kind is inspect.Parameter.VAR_KEYWORD


def test_the_parameters_can_be_asked_for() -> None:
    parameters = FlowGpt.get_parameters()

    assert list(parameters)[:4] == ["model", "messages", "proxy", "temperature"]
    assert parameters["temperature"].default == 0.7
    assert parameters["proxy"].annotation == str | None
    assert {"api_key", "base_url", "timeout", "max_retries", "nsfw", "extra_body"} <= parameters.keys()
    assert parameters["max_retries"].default == 2
    assert "options" not in parameters
    assert FlowGpt.params.startswith("model='', messages=(), proxy=None, temperature=0.7, ")
    assert "max_retries=2" in FlowGpt.params


@pytest.mark.parametrize(
    ("model", "known"),
    [("", "gpt-3.5-turbo"), ("gemini", "google-gemini"), ("gemini-pro", "google-gemini"), ("claude-v2", "claude-v2")],
)
def test_a_model_is_an_id_an_alias_or_the_default(upstream: Upstream, model: str, known: str) -> None:
    assert FlowGpt.get_model(model) == known
    assert sent(upstream, model=model)["model"] == known
    assert json.loads(upstream.requests[-1].body)["promptId"] == f"model-{known}"


def test_an_unknown_model_is_refused_with_the_nearest_and_can_be_used_anyway(upstream: Upstream) -> None:
    with pytest.raises(ModelNotFoundError, match="the nearest: gpt-4-turbo"):
        FlowGpt.stream("gpt-4-turbot", ASK)
    assert upstream.connections == 0

    assert sent(upstream, model="FlowGPT-Ares", allow_unknown_model=True)["model"] == "FlowGPT-Ares"
    assert sent(upstream, model="FlowGPT-Ares", extra_models=["FlowGPT-Ares"])["model"] == "FlowGPT-Ares"


EXAMPLES = {
    "example 1 of the class: the default model": """
        # Example 1: Using the default model
        async def example_1():
            messages = [
                {"role": "user", "content": "Hello, how are you?"},
                {"role": "assistant", "content": "I am doing well, thank you. How about you?"},
            ]
            async for response in FlowGpt.create_async_generator(messages=messages):
                print(response)
        """,
    "example 2 of the class: a model and a system message": """
        # Example 2: Using a specific model with system message
        async def example_2():
            messages = [
                {"role": "system", "content": "You are a helpful and polite chatbot."},
                {"role": "user", "content": "What is the capital of France?"},
            ]
            async for response in FlowGpt.create_async_generator(model="gpt-3.5-turbo", messages=messages):
                print(response)
        """,
    "example 1: simple interaction": """
        # Example 1: Simple interaction
        async def example_1():
            messages = [
                {"role": "user", "content": "Hello, how are you?"},
            ]
            async for response in FlowGpt.create_async_generator(messages=messages):
                print(f"Assistant: {response}")
        """,
    "example 2: a specific model": """
        # Example 2: Using a specific model
        async def example_2():
            messages = [
                {"role": "user", "content": "What is the meaning of life?"},
            ]
            async for response in FlowGpt.create_async_generator(model="gpt-4-turbo", messages=messages):
                print(f"Assistant: {response}")
        """,
    "example 3: a system message": """
        # Example 3: Using a system message
        async def example_3():
            messages = [
                {"role": "system", "content": "You are a friendly and informative chatbot."},
                {"role": "user", "content": "What is the capital of France?"},
            ]
            async for response in FlowGpt.create_async_generator(model="google-gemini", messages=messages):
                print(f"Assistant: {response}")
        """,
}
"""Provenance: the provider's description, both its sections "Examples", verbatim but for the indentation."""

ASKED = [
    ("gpt-3.5-turbo", "", ["Hello, how are you?"], "I am doing well, thank you. How about you?"),
    ("gpt-3.5-turbo", "You are a helpful and polite chatbot.", [], "What is the capital of France?"),
    ("gpt-3.5-turbo", "", [], "Hello, how are you?"),
    ("gpt-4-turbo", "", [], "What is the meaning of life?"),
    ("google-gemini", "You are a friendly and informative chatbot.", [], "What is the capital of France?"),
]


@pytest.mark.parametrize(("source", "asked"), [*zip(EXAMPLES.values(), ASKED, strict=True)], ids=EXAMPLES)
def test_the_examples_of_the_description_run_as_written(
    source: str, asked: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the embedded server, which judges signature, headers and body by itself."""

    async def respond(_request: object) -> Any:
        for text in ("Paris", " is it."):
            yield text

    space: dict[str, Any] = {"FlowGpt": FlowGpt}
    exec(textwrap.dedent(source), space)  # as a reader of the description would
    with Server(respond) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        asyncio.run(next(value for name, value in space.items() if name.startswith("example"))())
        (request,) = server.requests

    label = "Assistant: " if "Assistant: " in source else ""
    assert capsys.readouterr().out == f"{label}Paris\n{label} is it.\n"
    assert request.chat is not None
    prompt = request.chat.prompt
    history = [turn.content for turn in prompt.history]
    assert (request.chat.model, prompt.system, history, prompt.question) == asked
    assert (request.path, request.status, request.chat.temperature) == ("/v3/chat-anonymous", 200, 0.7)


def test_every_form_gives_the_same_answer(upstream: Upstream) -> None:
    call: dict[str, Any] = {"messages": ASK, "base_url": upstream.url}

    async def ask() -> None:
        assert [text async for text in FlowGpt.create_async_generator(**call)] == ["Hel", "lo"]
        assert await FlowGpt.create_async(**call) == "Hello"
        assert list(FlowGpt.create_completion(**call)) == ["Hel", "lo"]  # in a running loop
        async with FlowGpt.stream(**call) as answered:
            assert [text async for text in answered] == ["Hel", "lo"]

    asyncio.run(ask())
    assert list(FlowGpt.create_completion(**call)) == ["Hel", "lo"]
    assert len({request.body for request in upstream.requests}) == 1


def test_the_generator_is_an_async_generator(upstream: Upstream) -> None:
    generator = FlowGpt.create_async_generator(messages=ASK, base_url=upstream.url)

    assert inspect.isasyncgen(generator)


# The wire


def test_the_anonymous_request_is_the_protocols_to_the_letter(upstream: Upstream) -> None:
    """Provenance: docs/protocol.md, "Endpoints", "Request headers", "Request body"."""
    before = int(time.time())
    body = sent(upstream, CHAT, model="gemini", temperature=1)
    request = upstream.requests[0]

    assert (request.method, request.target) == ("POST", "/v3/chat-anonymous")
    assert json.dumps(body) == json.dumps(
        {
            "model": "google-gemini",
            "nsfw": False,
            "question": "Who é are you?",
            "history": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}],
            "system": "Be kind.\nBe short.",
            "temperature": 1.0,
            "promptId": "model-google-gemini",
            "documentIds": [],
            "generateImage": False,
            "generateAudio": False,
            "chatFileDocumentIds": [],
        }
    )
    headers = dict(request.headers)
    stamp, nonce = headers.pop("x-timestamp"), headers.pop("x-nonce")
    assert before <= int(stamp) <= int(time.time())
    assert re.fullmatch(r"[0-9a-f]{32}", nonce)
    assert headers.pop("x-signature") == hashlib.md5(f"{stamp}-{nonce}-Bearer null".encode()).hexdigest()
    assert re.fullmatch(r"f-[a-z0-9]{19}", headers.pop("x-flow-device-id"))
    assert headers == {
        "host": upstream.url.removeprefix("http://"),
        "authorization": "Bearer null",
        "content-type": "application/json",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": f"flowgpt-python/{flowgpt.__version__}",
        "content-length": str(len(request.body)),
    }


def test_a_key_goes_signed_to_the_other_address_with_its_two_fields(upstream: Upstream) -> None:
    body = sent(upstream, api_key=API_KEY, user_id="u1", conversation_id="c1")
    request = upstream.requests[0]

    assert request.target == "/v3/chat"
    bearer = f"Bearer {API_KEY}"
    assert request.headers["authorization"] == bearer
    signed = f"{request.headers['x-timestamp']}-{request.headers['x-nonce']}-{bearer}"
    assert request.headers["x-signature"] == hashlib.md5(signed.encode()).hexdigest()
    assert (body["userId"], body["conversationId"]) == ("u1", "c1")
    assert "chatFileDocumentIds" not in body


def test_an_empty_key_is_anonymous(upstream: Upstream) -> None:
    sent(upstream, api_key="")

    assert upstream.requests[0].headers["authorization"] == "Bearer null"
    assert upstream.requests[0].target == "/v3/chat-anonymous"


def test_g3_each_send_is_signed_anew_and_the_device_stays() -> None:
    with Upstream([answer(503, b"", "Retry-After: 0.001")], [reply("a")]) as upstream:
        assert sent(upstream) == sent(upstream)

    first, again, later = (request.headers for request in upstream.requests)
    assert len({headers["x-nonce"] for headers in (first, again, later)}) == 3
    assert len({headers["x-signature"] for headers in (first, again, later)}) == 3
    assert len({headers["x-flow-device-id"] for headers in (first, again, later)}) == 1
    assert upstream.requests[0].body == upstream.requests[1].body


def test_b13_a_cookie_is_not_kept() -> None:
    with Upstream([answer(429, b"", "Set-Cookie: a=b", "Retry-After: 0.001")], [reply("a")]) as upstream:
        sent(upstream)
        sent(upstream)

    assert len(upstream.requests) == 3
    assert all("cookie" not in request.headers for request in upstream.requests)


def test_the_options_customise_the_request(upstream: Upstream) -> None:
    body = sent(
        upstream,
        nsfw=True,
        prompt_id="character",
        greeting="Welcome!",
        document_ids=["d1"],
        generate_image=True,
        extra_body={"generateAudio": True, "mood": "calm"},
    )

    assert body["nsfw"] is True
    assert body["promptId"] == "character"
    assert body["history"] == [{"role": "assistant", "content": "Welcome!"}]
    assert body["documentIds"] == ["d1"]
    assert body["generateImage"] is True
    assert body["generateAudio"] is True
    assert body["mood"] == "calm"


# Calls that are wrong

WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "no messages": ([], {}),
    "no list": ("Hello", {}),
    "one dict": (ASK[0], {}),
    "no role": ([{"content": "?"}], {}),
    "no content": ([{"role": "user"}], {}),
    "content is none": ([{"role": "user", "content": None}], {}),
    "content is a number": ([{"role": "user", "content": 5}], {}),
    "another role": ([{"role": "tool", "content": "?"}], {}),
    "an image part": ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], {}),
    "J3 a lone surrogate": ([{"role": "user", "content": "\ud83d"}], {}),
    "no dict": ([5], {}),
    "J4 temperature nan": (ASK, {"temperature": float("nan")}),
    "J4 temperature inf": (ASK, {"temperature": float("inf")}),
    "J4 temperature 1e308": (ASK, {"temperature": 1e308}),
    "J4 temperature below zero": (ASK, {"temperature": -0.1}),
    "J4 temperature text": (ASK, {"temperature": "0.7"}),
    "J4 temperature bool": (ASK, {"temperature": True}),
    "an unknown model": (ASK, {"model": "gpt-9"}),
    "J1 a model with a newline": (ASK, {"model": "gpt-4-turbo\r\nX: 1"}),
    "a model that is no text": (ASK, {"model": 4}),
    "A16 a proxy of another scheme": (ASK, {"proxy": f"ftp://user:{PROXY_PASSWORD}@127.0.0.1:1"}),
    "A16 a proxy with a bad port": (ASK, {"proxy": f"http://user:{PROXY_PASSWORD}@127.0.0.1:99999"}),
    "M2 a base_url with a path": (ASK, {"base_url": "http://127.0.0.1:1/v1"}),
    "M2 a base_url of another scheme": (ASK, {"base_url": "file:///etc/passwd"}),
    "J6 a key with a newline": (ASK, {"api_key": f"{API_KEY}\r\nX: 1"}),
    "a timeout below zero": (ASK, {"timeout": -1}),
    "half a retry": (ASK, {"max_retries": 0.5}),
    "a body that is no JSON": (ASK, {"extra_body": {"a": {1, 2}}}),
}


@pytest.mark.parametrize(("messages", "options"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_refused_before_anything_is_sent(
    upstream: Upstream, messages: Any, options: dict[str, Any]
) -> None:
    call = {"messages": messages, "base_url": upstream.url} | options

    async def ask() -> None:
        with pytest.raises(InvalidRequestError):
            await FlowGpt.create_async(**call)
        with pytest.raises(InvalidRequestError):
            FlowGpt.create_async_generator(**call)

    asyncio.run(ask())
    with pytest.raises(InvalidRequestError):
        FlowGpt.stream(**call)
    with pytest.raises(InvalidRequestError) as refused:
        FlowGpt.create_completion(**call)

    assert isinstance(refused.value, ValueError)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert upstream.connections == 0


def test_j7_an_unknown_keyword_warns_once_with_the_nearest_name_and_the_request_goes_on(upstream: Upstream) -> None:
    with pytest.warns(UserWarning, match="no option 'temprature'; did you mean 'temperature'"):
        sent(upstream, temprature=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sent(upstream, temprature=0.2)["temperature"] == 0.7
    assert len(upstream.requests) == 2


def test_nothing_that_is_given_is_changed(upstream: Upstream) -> None:
    messages: list[Any] = [*CHAT, {"role": "user", "content": [{"type": "text", "text": "?"}]}]
    options: dict[str, Any] = {"extra_body": {"a": [1]}, "document_ids": ["d"], "extra_models": ["m"]}
    before = copy.deepcopy((messages, options, vars(FlowGpt)["models"], FlowGpt.model_aliases))

    sent(upstream, messages, greeting="Hi", model="gemini", **options)

    assert (messages, options, vars(FlowGpt)["models"], FlowGpt.model_aliases) == before


def test_j2_messages_are_read_when_the_call_is_made(upstream: Upstream) -> None:
    messages = copy.deepcopy(ASK)
    texts = FlowGpt.create_completion(messages=messages, base_url=upstream.url)
    messages.clear()

    assert list(texts) == ["Hel", "lo"]
    assert list(FlowGpt.create_completion(messages=iter(ASK), base_url=upstream.url)) == ["Hel", "lo"]  # type: ignore[arg-type]
    assert len({request.body for request in upstream.requests}) == 1


def test_a_refusal_comes_out_typed() -> None:
    with (
        Upstream([answer(429, b'{"error":"slow down"}')]) as upstream,
        pytest.raises(RateLimitError, match="slow down"),
    ):
        sent(upstream, max_retries=0)


def test_a_configured_temperature_counts_where_none_is_given(upstream: Upstream) -> None:
    home = Path(os.environ["FLOWGPT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text("temperature = 0.25\n")

    asyncio.run(FlowGpt.stream(messages=ASK, base_url=upstream.url).read())
    asyncio.run(FlowGpt.create_async(messages=ASK, base_url=upstream.url))
    asyncio.run(FlowGpt.create_async(messages=ASK, base_url=upstream.url, temperature=0.7))

    assert [json.loads(request.body)["temperature"] for request in upstream.requests] == [0.25, 0.25, 0.7]


def test_the_word_embedded_says_what_to_use_in_python() -> None:
    with pytest.raises(InvalidRequestError, match="is for the terminal") as caught:
        FlowGpt.stream(messages=ASK, base_url="embedded")
    assert "flowgpt.embedded" in str(caught.value.hint)
