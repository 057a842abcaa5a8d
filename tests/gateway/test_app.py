"""The gateway's routes over a real socket, what every answer carries, and mounting in somebody's own application."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from flowgpt.embedded import Server
from flowgpt.gateway import app, auth
from flowgpt.gateway.app import create_app
from flowgpt.gateway.settings import Settings
from flowgpt.limits.breaker import Health
from flowgpt.providers.flowgpt import FlowGpt
from flowgpt.store import Store
from tests.gateway.conftest import Serve, Served

ASK = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello"}]}


def test_health_and_readiness(gateway: Served) -> None:
    health, ready = gateway.request("GET", "/healthz"), gateway.request("GET", "/readyz")

    assert (health.status, health.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json) == (200, {"status": "ready"})


def test_a_provider_whose_circuit_is_open_is_not_ready(serve: Serve) -> None:
    class Down(FlowGpt):
        @classmethod
        def health(cls, **_: object) -> Health:
            return Health(working=False)

    ready = serve({"provider": Down}).request("GET", "/readyz")

    assert (ready.status, ready.json) == (503, {"status": "circuit open"})


def test_the_models_are_listed_with_aliases_and_foreign_names(serve: Serve) -> None:
    gateway = serve(model_names={"gpt-4o-mini": "gpt-3.5-turbo"})

    models = {model["id"]: model for model in gateway.request("GET", "/v1/models").json["data"]}

    assert models["gemini"]["alias_of"] == "google-gemini"
    assert models["gpt-4o-mini"]["alias_of"] == "gpt-3.5-turbo"
    assert all(model["object"] == "model" and model["owned_by"] == "flowgpt" for model in models.values())


@pytest.mark.parametrize("name", ["gpt-3.5-turbo", "gemini", "gpt-4o-mini"])
def test_a_model_is_shown_by_id_alias_or_foreign_name(serve: Serve, name: str) -> None:
    gateway = serve(model_names={"gpt-4o-mini": "gpt-3.5-turbo"})

    assert gateway.request("GET", f"/v1/models/{name}").json["id"] == name


def test_an_unknown_model_is_404(gateway: Served) -> None:
    answer = gateway.request("GET", "/v1/models/nobody/knows")

    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/audio/transcriptions"),
        ("GET", "/v1/files"),
        ("POST", "/v1/moderations"),
        ("GET", "/v1/assistants"),
    ],
)
def test_what_flowgpt_cannot_do_is_501_with_an_error_object(gateway: Served, method: str, path: str) -> None:
    answer = gateway.request(method, path, {} if method == "POST" else None)

    assert (answer.status, answer.json["error"]["code"]) == (501, "not_supported")
    assert answer.headers["x-should-retry"] == "false"


def test_an_upload_that_flowgpt_cannot_use_is_501_too(gateway: Served) -> None:
    answer = gateway.request(
        "POST", "/v1/audio/transcriptions", b"--x--", headers={"content-type": "multipart/form-data; boundary=x"}
    )

    assert (answer.status, answer.json["error"]["code"]) == (501, "not_supported")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/filesystem", 404),
        ("GET", "/v1/audiobooks/1", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "//v1/models", 404),
    ],
)
def test_m5_an_unknown_route_is_an_error_object(gateway: Served, method: str, path: str, status: int) -> None:
    """No file is ever served."""
    answer = gateway.request(method, path)

    assert (answer.status, answer.json["error"]["code"]) == (status, "unknown_route")
    assert answer.headers["content-type"] == "application/json"


def test_an_error_of_messages_is_anthropics(gateway: Served) -> None:
    answer = gateway.request("POST", "/v1/messages", {"model": "gpt-3.5-turbo"})

    assert answer.status == 400
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["request_id"] == answer.headers["request-id"]


def test_a_request_id_is_taken_over_and_else_made(gateway: Served) -> None:
    given = gateway.request("GET", "/healthz", headers={"x-request-id": "my-id.1"})
    made = gateway.request("GET", "/healthz")
    broken = gateway.request("GET", "/healthz", headers={"x-request-id": "x y" * 100})

    assert given.headers["x-request-id"] == "my-id.1"
    assert re.fullmatch("req_[0-9a-f]{24}", made.headers["x-request-id"])
    assert re.fullmatch("req_[0-9a-f]{24}", broken.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/v1/models", "/v1/embeddings", "/openapi.json"])
def test_l10_l13_l14_every_answer_says_how_long_it_took_and_how_it_may_be_used(gateway: Served, path: str) -> None:
    headers = gateway.request("GET", path).headers

    assert headers["openai-processing-ms"].isdigit()
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"


ROUTES = ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/x", "/v1/embeddings"]


def test_a_stored_response_is_not_streamed_and_says_so(gateway: Served) -> None:
    answer = gateway.request("GET", "/v1/responses/resp_1?stream=true")

    assert (answer.status, answer.json["error"]["param"]) == (400, "stream")


def test_the_tokens_of_an_unknown_model_are_not_counted(gateway: Served) -> None:
    answer = gateway.request("POST", "/v1/messages/count_tokens", ASK | {"model": "nobody"})

    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


def test_with_keys_that_cannot_be_read_nobody_comes_in_and_it_is_not_ready(gateway: Served, store: Store) -> None:
    store.close()

    answers = [gateway.request("GET", path) for path in ("/readyz", "/v1/models")]

    assert [answer.status for answer in answers] == [503, 503]


def test_l5_revoking_the_last_key_locks(serve: Serve, store: Store) -> None:
    """Also when no request had been made with it."""
    store.add_key("mine", auth.digest(auth.new_key()), 0)
    gateway = serve()
    store.revoke_key("mine")

    assert gateway.chat().status == 401


@pytest.mark.parametrize("path", ROUTES)
def test_l1_l6_a_strange_host_is_refused_on_every_route(gateway: Served, path: str) -> None:
    answer = gateway.request("GET", path, headers={"host": "evil.example"})

    assert answer.status in (403, 421)
    assert answer.json["error"]["code"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_l2_a_form_of_a_web_page_is_refused(gateway: Served, upstream: Server, path: str) -> None:
    simple = gateway.request("POST", path, b"{}", headers={"content-type": "text/plain"})
    foreign = gateway.request("POST", path, ASK, headers={"origin": "https://evil.example"})

    assert (simple.status, foreign.status) == (415, 403)
    assert not upstream.requests


def test_once_a_key_exists_it_is_asked_for(serve: Serve, store: Store) -> None:
    gateway = serve()
    assert gateway.chat().status == 200
    key = auth.new_key()
    store.add_key("mine", auth.digest(key), 0)

    statuses = {
        path: gateway.request("GET", path).status
        for path in ("/healthz", "/readyz", "/metrics", "/v1/models", "/openapi.json")
    }
    known = [
        gateway.request("GET", "/metrics", headers={"authorization": f"Bearer {key}"}).status,
        gateway.request("GET", "/v1/models", headers={"x-api-key": key}).status,
        gateway.request("POST", "/v1/chat/completions", ASK, headers={"authorization": f"Bearer {key}"}).status,
    ]
    store.revoke_key("mine")
    store.add_key("other", auth.digest(auth.new_key()), 0)

    assert statuses == {"/healthz": 200, "/readyz": 200, "/metrics": 401, "/v1/models": 401, "/openapi.json": 401}
    assert known == [200, 200, 200]
    assert gateway.request("GET", "/v1/models", headers={"x-api-key": key}).status == 401


def test_the_metrics_count_what_was_answered(gateway: Served) -> None:
    gateway.chat()
    gateway.chat(model="nobody knows")

    answer = gateway.request("GET", "/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert b'route="chat"' in answer.body
    assert b"nobody" not in answer.body


def test_the_description_of_the_api_is_served(gateway: Served) -> None:
    document = gateway.request("GET", "/openapi.json").json

    assert document["openapi"].startswith("3.1")
    assert "/v1/chat/completions" in document["paths"]


def test_it_can_be_mounted_in_an_application(upstream: Server) -> None:
    mounted = create_app(base_url=upstream.base_url, settings=Settings())
    host = Starlette(routes=[Mount("/ai", app=mounted)])
    with Served(lambda: host) as served:  # type: ignore[arg-type,return-value]  # any ASGI application
        answer = served.request("POST", "/ai/v1/chat/completions", ASK)
        unknown = served.request("GET", "/ai/nothing")

    assert answer.status == 200
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "unknown_route")


def test_the_impossible_is_no_route_that_exists() -> None:
    assert not {"chat", "completions", "models", "messages", "responses"} & set(app.IMPOSSIBLE)


def test_the_package_shows_its_public_names_and_loads_no_server_for_the_rest() -> None:
    from flowgpt import gateway

    ran = subprocess.run(
        [sys.executable, "-c", "import sys, flowgpt.gateway.auth; print('starlette' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert gateway.create_app is create_app
    assert {getattr(gateway, name).__name__ for name in gateway.__all__} == set(gateway.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gateway.nothing
    assert ran.stdout == "False\n"
