"""The gateway over several providers: who answered is named everywhere, and a failure has the last one's status."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from flowgpt import Fallback, FlowGpt, config
from flowgpt.gateway import access
from flowgpt.limits.breaker import LEAST_CALLS
from flowgpt.messages import Messages
from flowgpt.providers.base import AsyncGeneratorProvider, ProviderModelMixin
from flowgpt.providers.registry import Configured
from tests.gateway.conftest import Answer, Serve, Served
from tests.upstream import CHUNKED, FIN, Script, Upstream, answer, chunk, event

HELLO = [{"role": "user", "content": "Hello"}]
ASKING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 100},
}


class Local(AsyncGeneratorProvider, ProviderModelMixin):
    """It steps in."""

    default_model = "llama3"
    models: ClassVar = ["llama3"]

    @classmethod
    async def create_async_generator(  # type: ignore[override]  # as others write it
        cls, model: str, messages: Messages, proxy: str | None = None, temperature: float = 0.7, **options: Any
    ) -> AsyncIterator[str]:
        yield "from "
        yield "here"


def over(*upstreams: Upstream, local: bool = True) -> dict[str, Any]:
    """What a gateway is made with: those, and then `Local`."""
    there = [Configured("there", FlowGpt, {"base_url": each.url, "max_retries": 0}) for each in upstreams]
    return {"provider": Fallback([*there, *([Local] if local else [])]), "base_url": None}


def post(gateway: Served, path: str, **more: Any) -> Answer:
    return gateway.request("POST", path, {"model": "gpt-3.5-turbo"} | ASKING[path] | more)


def models_in(value: Any) -> set[str]:
    """All that is called a model in there."""
    if isinstance(value, list):
        return {found for each in value for found in models_in(each)}
    if not isinstance(value, dict):
        return set()
    here = {value["model"]} if isinstance(value.get("model"), str) else set()
    return here | {found for each in value.values() for found in models_in(each)}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ASKING)
def test_who_steps_in_is_named_in_every_dialect_and_in_log_and_metrics(
    serve: Serve, caplog: pytest.LogCaptureFixture, path: str, *, stream: bool
) -> None:
    with Upstream([answer(500)]) as there, caplog.at_level(logging.INFO, access.log.name):
        gateway = serve(over(there))
        told = post(gateway, path, stream=stream)
        metrics = gateway.request("GET", "/metrics").body.decode()

    assert told.status == 200
    said = [json.loads(each.data) for each in told.events if each.data != "[DONE]"] if stream else told.json
    assert models_in(said) == {"llama3"}
    assert "here" in told.body.decode()
    logged = json.loads(next(r.getMessage() for r in caplog.records if r.name == access.log.name))
    assert (logged["model"], logged["attempts"]) == ("llama3", 2)
    assert 'flowgpt_gateway_upstream_attempts_total{model="llama3"} 2.0' in metrics


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_when_all_fail_the_status_is_that_of_the_last_and_no_address_shows(serve: Serve, *, stream: bool) -> None:
    with Upstream([answer(500)]) as first, Upstream([answer(429, b"", "Retry-After: 3600")]) as second:
        told = serve(over(first, second, local=False)).chat(stream=stream)

        assert (told.status, told.json["error"]["code"]) == (429, "rate_limited")
        assert told.headers["retry-after"] == "3600"
        assert "causes" not in told.json["error"]
        assert "127.0.0.1" not in told.body.decode()


CUT: Script = [CHUNKED, chunk(event("half")), FIN]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_after_the_first_text_nobody_steps_in(serve: Serve, *, stream: bool) -> None:
    with Upstream(CUT) as there:
        told = serve(over(there)).chat(stream=stream)

    assert "here" not in told.body.decode()
    error = told.chunks[-1]["error"] if stream else told.json["error"]
    assert (told.status, error["partial_text"]) == (200 if stream else 502, "half")


def test_side_by_side_each_answer_finds_its_provider(serve: Serve) -> None:
    with Upstream([answer(500)]) as there:
        told = serve(over(there)).chat(n=3)

    assert [choice["message"]["content"] for choice in told.json["choices"]] == ["from here"] * 3


def test_a_model_that_no_provider_has_is_404_and_the_list_is_that_of_all(serve: Serve) -> None:
    with Upstream([answer(500)]) as there:
        gateway = serve(over(there))

        assert gateway.chat(model="nobodys").status == 404
        assert {"llama3", "gpt-3.5-turbo", "gemini"} <= {
            m["id"] for m in gateway.request("GET", "/v1/models").json["data"]
        }
        assert gateway.chat(model="llama3").json["model"] == "llama3"
        assert there.requests == []


def test_it_is_ready_as_long_as_one_provider_would_be_asked(serve: Serve) -> None:
    with Upstream([answer(500)]) as there:
        alone, both = serve(over(there, local=False)), serve(over(there))
        for _ in range(LEAST_CALLS):
            assert alone.request("GET", "/readyz").status == 200
            alone.chat()

        assert [each.request("GET", "/readyz").status for each in (alone, both)] == [503, 200]


def test_without_a_provider_the_configured_one_answers(serve: Serve) -> None:
    with Upstream([answer(500)], [answer(500)]) as there:
        config.home().mkdir(parents=True, exist_ok=True)
        (config.home() / "config.toml").write_text(
            f'providers = ["a", "b"]\nmax_retries = 0\n[provider.a]\ntype = "flowgpt"\nbase_url = "{there.url}"\n'
            f'[provider.b]\ntype = "openai"\nbase_url = "{there.url}"\nmodel = "llama3"\n'
        )
        told = serve({"base_url": None}).chat()

        assert (told.status, told.json["error"]["code"]) == (502, "server_error")
        assert [request.target for request in there.requests] == ["/v3/chat-anonymous", "/v1/chat/completions"]
