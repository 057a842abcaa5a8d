"""OpenAICompatible over real sockets: what it sends, what it reads, every surface, and whose key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
import warnings
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

import flowgpt
from flowgpt import (
    AsyncClient,
    Client,
    FlowGPTError,
    InvalidRequestError,
    ModelNotFoundError,
    OpenAICompatible,
)
from flowgpt.embedded import Server
from flowgpt.gateway.app import create_app
from flowgpt.gateway.settings import Settings
from flowgpt.transport import exchange
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER
from tests.gateway.conftest import Served
from tests.transport.calls import limits, read
from tests.upstream import BOUND_S, CHUNKED, FIN, HUNG_UP, LAST, RST, Gate, Script, Step, Upstream, answer, chunk, head

ASK: list[Any] = [{"role": "user", "content": "?"}]
OTHER_KEY = "canary-other-key-55d1"
DONE = b"data: [DONE]\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    """A chunk as vLLM writes it. Provenance: vllm-project/vllm#35705."""
    value = {
        "id": "chatcmpl-8b2b",
        "object": "chat.completion.chunk",
        "created": 1772423572,
        "model": "qwen3_8b",
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


BODY = delta("Hel") + delta("lo", "stop") + DONE
GOOD = CHUNKED + chunk(BODY) + LAST


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([GOOD]) as upstream:
        yield upstream


def local(upstream: Upstream, **more: Any) -> OpenAICompatible:
    return OpenAICompatible(upstream.url, **({"model": "llama3"} | more))


async def texts(provider: OpenAICompatible, **options: Any) -> list[str]:
    return [text async for text in provider.stream(messages=ASK, **options)]


def sent(upstream: Upstream, *arguments: Any, **options: Any) -> dict[str, Any]:
    """The body of the request that a call makes."""

    async def ask() -> None:
        await local(upstream).stream(*arguments, **({"messages": ASK} | options)).read()

    asyncio.run(ask())
    body: dict[str, Any] = json.loads(upstream.requests[-1].body)
    return body


# What is sent


def test_the_request_is_that_of_chat_completions(upstream: Upstream) -> None:
    """Provenance: OpenAI's OpenAPI description, createChatCompletion."""
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "é"}]},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Who are you?"},
    ]
    body = sent(upstream, messages=messages, temperature=1, extra_body={"max_tokens": 9}, nsfw=True, prompt_id="x")
    (request,) = upstream.requests

    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert body == {
        "model": "llama3",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi é"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Who are you?"},
        ],
        "temperature": 1.0,
        "stream": True,
        "max_tokens": 9,
    }
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie"} & request.headers.keys()
    assert not [name for name in request.headers if name.startswith("x-")]  # FlowGPT's signature and device id


@pytest.mark.parametrize("before", [[], [{"role": "system", "content": "S"}]])
def test_a_greeting_is_an_assistant_turn_behind_the_first_system_messages(
    upstream: Upstream, before: list[Any]
) -> None:
    body = sent(upstream, messages=[*before, *ASK], greeting="Welcome")
    assert body["messages"] == [*before, {"role": "assistant", "content": "Welcome"}, *ASK]


@pytest.mark.parametrize("messages", [[], "Hello", [{"role": "tool", "content": "x"}], [{"role": "user"}], [1]])
def test_what_is_no_conversation_is_refused_before_anything_is_sent(upstream: Upstream, messages: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages"):
        local(upstream).stream(messages=messages)
    assert upstream.connections == 0


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai/deployments/gpt-4.1_x~", "/openai/deployments/gpt-4.1_x~/chat/completions"),
    ],
)
def test_the_address_may_have_a_path(upstream: Upstream, path: str, target: str) -> None:
    assert asyncio.run(texts(OpenAICompatible(upstream.url + path, model="m"))) == ["Hel", "lo"]
    assert upstream.requests[0].target == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "public",
        "embedded",
        "example.com/v1",
        "ftp://example.com/v1",
        "http://example.com//",
        "http://example.com/v1//x",
        "http://example.com/../x",
        "http://example.com/v1/.",
        "http://example.com/v1?key=" + API_KEY,
        "http://example.com/v1#" + API_KEY,
        "http://example.com/%2e%2e/",
        "http://example.com/a\\b",
        "http://user:" + API_KEY + "@example.com/v1",
        "http://127.1/v1",
        None,
        7,
    ],
)
def test_m2_k1_an_address_that_is_none_is_refused_without_showing_it(url: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        OpenAICompatible(url, model="m")
    assert caught.value.code == "bad_base_url"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"api_key": "a\nb"}, "printable ASCII"),
        ({"api_key": 7}, "api_key must be a string"),
        ({"model": 7}, "must be strings"),
        ({"models": "llama3"}, "models a list"),
        ({"models": [7]}, "models a list"),
        ({"name": None}, "must be strings"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        OpenAICompatible("http://127.0.0.1:1", **arguments)


# Whose key


def test_k1_flowgpts_key_and_address_never_reach_this_server(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call's, a client's, the environment's: all of them are FlowGPT's."""
    with Upstream([FIN]) as flowgpt_server:
        monkeypatch.setenv("FLOWGPT_API_KEY", API_KEY)
        monkeypatch.setenv("FLOWGPT_BASE_URL", flowgpt_server.url)
        monkeypatch.setenv("FLOWGPT_MODEL", "gpt-4-turbo")
        client = Client(api_key=API_KEY, base_url=flowgpt_server.url, provider=local(upstream))
        client.chat.completions.create(messages=ASK)
        asyncio.run(texts(local(upstream), api_key=API_KEY, base_url=flowgpt_server.url))
        asyncio.run(texts(local(upstream)))

        assert flowgpt_server.connections == 0
    assert len(upstream.requests) == 3
    for request in upstream.requests:
        assert API_KEY not in f"{request.target} {request.headers} {request.body!r}"
        assert json.loads(request.body)["model"] == "llama3"


def test_k1_its_own_key_is_sent_as_bearer_token_and_shown_nowhere(upstream: Upstream) -> None:
    provider = local(upstream, api_key=API_KEY)
    asyncio.run(texts(provider, api_key=OTHER_KEY))

    assert upstream.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
    assert API_KEY not in f"{provider!r} {vars(provider)!r} {Client(provider=provider)!r}"


def test_k1_a_server_that_echoes_its_key_does_not_make_us_show_it() -> None:
    echo = json.dumps({"error": {"message": f"bad key {API_KEY}", "code": "invalid_api_key"}}).encode()
    scripts: list[Script] = [
        [answer(401, echo)],
        [answer(200, echo)],
        [CHUNKED + chunk(b"data: " + echo + b"\n\n") + LAST],
        [CHUNKED + chunk(b"data: " + API_KEY.encode() + b"\n\n") + LAST],
    ]
    with Upstream(*scripts) as upstream:
        for _ in scripts:
            with pytest.raises(FlowGPTError, match=r"\*\*\*"):
                asyncio.run(texts(local(upstream, api_key=API_KEY)))
        assert len(upstream.requests) == len(scripts)


def test_a_proxy_of_the_call_is_used(upstream: Upstream) -> None:
    """A11 speaks of what a proxy answers; here only that it is the one that is asked."""
    proxy = upstream.url.replace("http://", f"http://{PROXY_USER}:{PROXY_PASSWORD}@")
    provider = OpenAICompatible("http://server.test/v1", model="m")

    assert asyncio.run(texts(provider, proxy=proxy)) == ["Hel", "lo"]
    assert upstream.requests[0].target == "http://server.test/v1/chat/completions"


# Models


def test_the_models_are_those_that_were_named() -> None:
    provider = OpenAICompatible("http://127.0.0.1:1", models=["llama3", "qwen3"], name="local")

    assert (provider.get_models(), provider.default_model) == (["llama3", "qwen3"], "llama3")
    assert (provider.get_model(), provider.get_model("qwen3")) == ("llama3", "qwen3")
    with pytest.raises(ModelNotFoundError, match="model 'qwen4' is not in local's list; the nearest: qwen3"):
        provider.get_model("qwen4")
    assert provider.get_model("qwen4", allow_unknown_model=True) == "qwen4"
    assert provider.get_model("qwen4", extra_models=["qwen4"]) == "qwen4"


def test_without_a_list_any_id_goes_but_there_must_be_one(upstream: Upstream) -> None:
    assert sent(upstream, "whatever")["model"] == "whatever"
    with pytest.raises(ModelNotFoundError, match="no default model"):
        local(upstream, model="").stream(messages=ASK)
    assert len(upstream.requests) == 1


# Surfaces


def test_both_clients_answer_through_it(upstream: Upstream) -> None:
    with Client(provider=local(upstream, models=["llama3"], name="local")) as client:
        whole = client.chat.completions.create(messages=ASK)
        stream = client.chat.completions.create(messages=ASK, stream=True)
        chunks = [part.choices[0].delta.content for part in stream if part.choices[0].delta.content]
        assert [(model.id, model.owned_by) for model in client.models.list()] == [("llama3", "local")]

    async def ask() -> str | None:
        async with AsyncClient(provider=local(upstream)) as client:
            return (await client.chat.completions.create(messages=ASK)).choices[0].message.content

    assert (whole.choices[0].message.content, whole.model, chunks) == ("Hello", "llama3", ["Hel", "lo"])
    assert asyncio.run(ask()) == "Hello"


def test_the_gateway_answers_through_it(upstream: Upstream) -> None:
    with Served(lambda: create_app(provider=local(upstream), settings=Settings())) as gateway:
        whole = gateway.chat("?", model="llama3")
        streamed = gateway.chat("?", model="llama3", stream=True)

    assert whole.json["choices"][0]["message"]["content"] == "Hello"
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in streamed.chunks) == "Hello"


WORDS = ["Gr", "üße \u2028", '"}\n\ndata: [DONE]\n\n', "😀", "\\ud83d", " end"]


def test_e13_our_own_gateway_is_such_a_server_and_no_character_is_lost() -> None:
    async def respond(_request: object) -> Any:
        for word in WORDS:
            yield word

    with (
        Server(respond) as server,
        Served(lambda: create_app(settings=Settings(), base_url=server.base_url)) as gateway,
    ):
        provider = OpenAICompatible(f"http://127.0.0.1:{gateway.port}", model="gpt-3.5-turbo")

        async def ask() -> None:
            outcome = await read(provider.stream(messages=ASK))
            assert (outcome.texts, outcome.code, outcome.reply.verdict) == (WORDS, None, "complete")
            missing = await read(provider.stream("no-such", ASK))
            assert missing.code == "not_found"

        asyncio.run(ask())


def test_the_public_name_is_loaded_when_it_is_used() -> None:
    assert "OpenAICompatible" in flowgpt.__all__
    assert flowgpt.OpenAICompatible is OpenAICompatible


def test_an_unknown_option_gives_the_usual_warning(upstream: Upstream) -> None:
    with pytest.warns(UserWarning, match="no option 'top_q'"):
        asyncio.run(texts(local(upstream), top_q=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(texts(local(upstream), user_id="x", conversation_id="y", generate_image=True))


# Faults

ERROR = b'{"error":{"message":"model \\"x\\" not found, try pulling it first","type":"api_error","code":null}}'
"""Provenance: ollama/ollama, its OpenAI compatibility, the answer for an unknown model (status 404)."""

FAULTS: dict[str, tuple[Script, str]] = {
    "B1 closed before any byte": ([FIN], "stream_interrupted"),
    "B3 reset before the head": ([RST], "stream_interrupted"),
    "B7 no HTTP": ([b"SSH-2.0-x\r\n\r\n", FIN], "bad_http"),
    "B10 204": ([answer(204)], "empty_reply"),
    "B10 E11 empty": ([answer(200)], "empty_reply"),
    "C12 compressed": ([answer(200, b"x", "Content-Encoding: gzip")], "compression_refused"),
    "a redirect": ([answer(307, b"", "Location: http://evil.test/")], "redirect_refused"),
    "F1 400": ([answer(400, ERROR)], "bad_request"),
    "F2 401": ([answer(401, b"")], "authentication_failed"),
    "F3 402": ([answer(402, b"")], "quota_exceeded"),
    "F4 403": ([answer(403, ERROR)], "permission_denied"),
    "F5 a challenge": ([answer(403, b"<html>", "Content-Type: text/html", "cf-mitigated: challenge")], "challenge"),
    "F6 a page with status 200": ([answer(200, b"<html>Just a moment", "Content-Type: text/html")], "not_a_stream"),
    "F7 404": ([answer(404, ERROR)], "not_found"),
    "F9 408": ([answer(408, b"")], "request_timeout"),
    "413": ([answer(413, b"")], "bad_request"),
    "429": ([answer(429, b"")], "rate_limited"),
    "429, and an hour to wait": ([answer(429, b"", "Retry-After: 3600")], "rate_limited"),
    "F20 no credit": ([answer(429, b'{"error":{"message":"no quota","code":"insufficient_quota"}}')], "quota_exceeded"),
    "F22 500": ([answer(500, ERROR)], "server_error"),
    "503, the model loads": ([answer(503, b'{"error":{"message":"Loading model"}}')], "service_unavailable"),
    "D10 FlowGPT's stream": ([answer(200, b'{"event":"text","data":"x"}\n\n')], "not_a_stream"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_same_error_as_with_flowgpt(name: str) -> None:
    script, code = FAULTS[name]
    with Upstream(script) as upstream:

        async def ask() -> None:
            outcome = await read(local(upstream).stream(messages=ASK, max_retries=0))
            assert (outcome.code, outcome.texts) == (code, [])

        asyncio.run(ask())
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"detail":"no such route"}', "no such route"),
        (b'{"detail":[{"loc":["body","x"],"msg":"field required","input":"?"}]}', "field required"),
        (b'[{"error":{"code":400,"message":"bad argument"}}]', "bad argument"),
        (b"[]", ""),
        (b'[[[["deep"]]]]', ""),
    ],
    ids=["FastAPI", "FastAPI, checked", "Google", "empty", "deep"],
)
def test_f1_the_words_of_other_servers_refusals_are_told(body: bytes, words: str) -> None:
    with Upstream([answer(422, body)]) as upstream, pytest.raises(FlowGPTError) as caught:
        asyncio.run(texts(local(upstream)))
    assert caught.value.message == "the service refuses the request (status 422)" + (f": {words}" if words else "")


def test_a_wrong_clock_is_not_why_a_key_is_rejected_where_nothing_is_signed() -> None:
    refusal = answer(401, b'{"error":{"message":"wrong key"}}', f"Date: {formatdate(time.time() - 600, usegmt=True)}")
    with Upstream([refusal], [GOOD]) as upstream:

        async def ask() -> None:
            outcome = await read(local(upstream).stream(messages=ASK))
            assert outcome.code == "authentication_failed"
            assert outcome.failure is not None
            assert outcome.failure.message.endswith("(status 401): wrong key")

        asyncio.run(ask())
        assert len(upstream.requests) == 1


def test_f7_an_unknown_model_is_told_in_the_servers_words() -> None:
    with Upstream([answer(404, ERROR)]) as upstream, pytest.raises(FlowGPTError, match="try pulling it first"):
        asyncio.run(texts(local(upstream)))


def test_a4_a_server_that_is_not_there_is_no_connection() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

    async def ask() -> None:
        provider = OpenAICompatible(f"http://127.0.0.1:{port}/v1", model="m")
        assert (await read(provider.stream(messages=ASK, max_retries=0))).code == "connect_error"

    asyncio.run(ask())


@pytest.mark.parametrize(
    "first", [[FIN], [answer(503)], [CHUNKED + chunk(DONE) + LAST]], ids=["closed", "503", "no text"]
)
def test_what_fails_before_its_first_text_is_asked_again(first: Script) -> None:
    with Upstream(first, [GOOD]) as upstream:

        async def ask() -> None:
            outcome = await read(local(upstream).stream(messages=ASK))
            assert (outcome.texts, outcome.reply.attempts) == (["Hel", "lo"], 2)

        asyncio.run(ask())


def test_b4_c1_the_deadlines_hold() -> None:
    gate = Gate()
    with Upstream([gate], [CHUNKED + chunk(delta("Hel")), gate]) as upstream:

        async def ask() -> None:
            silent = await read(local(upstream).stream(messages=ASK, max_retries=0, timeout=limits(head_s=0.05)))
            stalled = await read(local(upstream).stream(messages=ASK, timeout=limits(idle_s=0.05)))
            assert (silent.code, stalled.code, stalled.texts) == ("header_timeout", "idle_timeout", ["Hel"])

        asyncio.run(ask())
        gate.open()


PLACES = sorted({0, 1, 5, *range(0, len(BODY), 7), len(delta("Hel")), len(BODY) - len(DONE), len(BODY) - 1, len(BODY)})


@pytest.mark.parametrize("end", [FIN, RST], ids=["C5 closed", "C3 reset"])
def test_a_cut_gives_an_exact_prefix_and_an_error_unless_the_end_had_come(end: Step) -> None:
    """The chunked body never has its last chunk: only the bytes themselves can prove the end."""
    scripts: list[Script] = [[CHUNKED + chunk(BODY[:place]) if place else CHUNKED, end] for place in PLACES]
    with Upstream(*scripts) as upstream:

        async def ask() -> None:
            for place in PLACES:
                provider = local(upstream, api_key=f"key-{place}")  # each has its own circuit
                outcome = await read(provider.stream(messages=ASK, max_retries=0))
                complete = place >= len(BODY) - len(DONE)
                whole = ["Hel", "lo"] if complete else ["Hel"] if place >= len(delta("Hel")) else []
                assert outcome.texts == whole[: len(outcome.texts)]
                if end is FIN:  # a reset may overtake what was on its way
                    assert (outcome.texts, outcome.code is None) == (whole, complete)
                assert (outcome.code is None) == (outcome.reply.verdict == "complete")
                assert outcome.code in (None, "stream_truncated", "stream_interrupted")

        asyncio.run(ask())


def test_c9_without_length_or_chunks_the_bytes_prove_the_end() -> None:
    with Upstream([head(), BODY, FIN], [head(), delta("Hel"), FIN]) as upstream:

        async def ask() -> None:
            outcome = await read(local(upstream).stream(messages=ASK))
            assert (outcome.reply.verdict, outcome.code) == ("complete", None)
            outcome = await read(local(upstream).stream(messages=ASK))
            assert (outcome.reply.verdict, outcome.code, outcome.texts) == ("truncated", "stream_truncated", ["Hel"])

        asyncio.run(ask())


def test_a_server_that_does_not_end_its_body_after_the_end_has_still_answered() -> None:
    gate = Gate()
    with Upstream([CHUNKED + chunk(BODY), gate]) as upstream:

        async def ask() -> None:
            outcome = await read(local(upstream).stream(messages=ASK, timeout=limits(idle_s=0.05)))
            assert (outcome.texts, outcome.code, outcome.reply.verdict) == (["Hel", "lo"], None, "complete")

        asyncio.run(ask())
        gate.open()


def test_after_done_nobody_waits_for_the_end_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit ends this reply but the one behind [DONE]; and a body that ends in time leaves its connection."""
    gate = Gate()
    with Upstream([CHUNKED + chunk(BODY), HUNG_UP], [CHUNKED + chunk(BODY), gate, LAST], [GOOD]) as upstream:

        async def ask() -> None:
            for end_s in (0.01, 3600.0, 3600.0):
                monkeypatch.setattr(exchange, "END_S", end_s)
                reply, said = local(upstream).stream(messages=ASK, timeout=limits()), list[str]()
                async with asyncio.timeout(BOUND_S):
                    async for text in reply:
                        said.append(text)
                        if end_s > 1:
                            gate.open()
                assert (said, reply.verdict) == (["Hel", "lo"], "complete")

        asyncio.run(ask())
        assert upstream.connections == 2


# Health


def test_its_circuit_is_its_own_by_address_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with Upstream([answer(500)]) as failing:
        provider, other = local(failing), local(failing, api_key=API_KEY)

        async def ask() -> None:
            for _ in range(25):
                await read(provider.stream(messages=ASK, max_retries=0))

        asyncio.run(ask())
        requests = len(failing.requests)

        assert (provider.working, other.working) == (False, True)
        monkeypatch.setenv("FLOWGPT_API_KEY", OTHER_KEY)  # FlowGPT's, and so it changes nothing
        assert (provider.working, other.working) == (False, True)
        assert provider.health().reason is not None
        assert requests < 25
        with pytest.raises(FlowGPTError) as caught:
            asyncio.run(texts(provider, max_retries=0))
        assert caught.value.code == "circuit_open"
        assert len(failing.requests) == requests
