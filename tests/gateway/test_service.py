"""Answers over real sockets: true statuses before the first text, one error frame after it, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
import weakref
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowgpt.embedded import Server
from flowgpt.errors import InvalidRequestError, ModelNotFoundError
from flowgpt.gateway import Settings, auth, create_app
from flowgpt.providers.base import AsyncGeneratorProvider
from flowgpt.store import Store, StoredResponse
from tests.gateway.conftest import Answer, Serve, Served, post
from tests.upstream import Upstream, answer

STREAM = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


def texts(answer: Answer) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in answer.chunks if chunk.get("choices"))


def test_the_streamed_and_the_unstreamed_answer_say_the_same(gateway: Served) -> None:
    whole, streamed = gateway.chat(), gateway.chat(stream=True)

    assert (whole.status, streamed.status) == (200, 200)
    assert whole.json["choices"][0]["message"]["content"] == texts(streamed)
    assert "question: Hello" in texts(streamed)
    assert streamed.events[-1].data == "[DONE]"
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"


BEFORE = {
    "rate_limit:7": (429, "rate_limited"),
    "credit": (429, "quota_exceeded"),
    "status:500": (502, "server_error"),
    "status:503": (502, "service_unavailable"),
    "status:401": (502, "authentication_failed"),
    "status:403": (502, "permission_denied"),
    "status:404": (502, "not_found"),
    "status:400": (502, "bad_request"),
    "challenge": (502, "challenge"),
    "html_page": (502, "not_a_stream"),
    "empty": (502, "empty_reply"),
    "reset": (502, "stream_interrupted"),
    "redirect": (502, "redirect_refused"),
    "wrong_json:0": (502, "not_a_stream"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", BEFORE)
def test_a_failure_before_the_first_text_has_its_true_status(
    serve: Serve, upstream: Server, fault: str, *, stream: bool
) -> None:
    upstream.fault(fault)

    answer = serve({"max_retries": 0}).chat(stream=stream)

    status, code = BEFORE[fault]
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_timeout_before_the_first_text_is_504(serve: Serve, upstream: Server, *, stream: bool) -> None:
    upstream.fault("stall_head")

    answer = serve({"timeout": 0.2}).chat(stream=stream)

    assert (answer.status, answer.json["error"]["code"]) == (504, "deadline_exceeded")


def test_an_upstream_that_is_not_there_is_502(serve: Serve) -> None:
    with socket.socket() as reserved:  # bound, and not listening
        reserved.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{reserved.getsockname()[1]}"

        answer = serve({"base_url": gone, "max_retries": 0}).chat()

    assert (answer.status, answer.json["error"]["code"]) == (502, "connect_error")


def test_o4_what_may_have_been_processed_is_asked_once(gateway: Served, upstream: Server) -> None:
    """The rule for proxies, RFC 9110 9.2.2; the client may ask again."""
    upstream.fault("status:500", 3)

    answer = gateway.chat()

    assert (answer.status, len(upstream.requests)) == (502, 1)
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("fault", ["status:401", "credit", "html_page"])
def test_where_asking_again_is_pointless_the_client_is_told(gateway: Served, upstream: Server, fault: str) -> None:
    upstream.fault(fault)

    assert gateway.chat().headers["x-should-retry"] == "false"


CUTS = ["cut_at_line:2", "cut_mid_line:2", "reset_mid_stream:2", "wrong_json:2", "bad_chunk:2"]


@pytest.mark.parametrize("fault", CUTS)
def test_i14_a_failure_after_the_first_text_is_one_error_frame_and_no_invented_end(
    gateway: Served, upstream: Server, fault: str
) -> None:
    upstream.fault(fault)

    answer = gateway.chat(stream=True)

    assert answer.status == 200
    assert texts(answer) == "This is "
    assert [event.event for event in answer.events].count("message") == len(answer.events)
    assert [chunk for chunk in answer.chunks if "error" in chunk] == answer.chunks[-1:]
    assert answer.chunks[-1]["error"]["code"] in (
        "stream_interrupted",
        "stream_truncated",
        "bad_event",
        "bad_http",
        "decode_error",
    )
    assert [chunk["choices"][0]["finish_reason"] for chunk in answer.chunks[:-1]] == [None, None]
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("fault", CUTS)
def test_unstreamed_a_cut_answer_is_a_status_that_keeps_what_came(
    gateway: Served, upstream: Server, fault: str
) -> None:
    upstream.fault(fault)

    answer = gateway.chat()

    assert answer.status == 502
    assert answer.json["error"]["partial_text"] == "This is "


def test_a_429_is_handed_on_at_once_and_holds_while_its_pause_lasts(gateway: Served, upstream: Server) -> None:
    upstream.fault("rate_limit:3600")

    first = gateway.chat()
    second = gateway.chat(stream=True)

    assert [answer.status for answer in (first, second)] == [429, 429]
    assert [answer.json["error"]["code"] for answer in (first, second)] == ["rate_limited", "rate_limited"]
    assert int(first.headers["retry-after"]) == 3600
    assert 3500 < int(second.headers["retry-after"]) <= 3600
    assert len(upstream.requests) == 1


def test_a_quota_that_is_used_up_is_no_pause(gateway: Served, upstream: Server) -> None:
    upstream.fault("credit")

    assert [gateway.chat().status, gateway.chat().status] == [429, 200]


# --- leaving ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", ["stall_head", "stall:0", "stall:2", "heartbeat", "endless"])
def test_i6_a_client_that_leaves_in_any_phase_frees_the_upstream(
    gateway: Served, upstream: Server, fault: str, *, stream: bool
) -> None:
    upstream.fault(fault)
    connection = gateway.connect(post(STREAM | {"stream": stream}))
    upstream.wait_until_open(1)
    if stream and fault in ("stall:2", "endless"):
        assert connection.recv(1)

    connection.close()

    upstream.wait_until_idle()
    assert not gateway.call(lambda: gateway.app.service.under_way)


def test_i7_a_client_that_half_closes_counts_as_leaving(gateway: Served, upstream: Server) -> None:
    upstream.fault("stall:1")
    with gateway.connect(post(STREAM)) as connection:
        assert connection.recv(1)
        connection.shutdown(socket.SHUT_WR)

        upstream.wait_until_idle()


def test_i13_clients_that_cancel_and_ask_again_leave_nothing_open(gateway: Served, upstream: Server) -> None:
    for _ in range(100):
        gateway.connect(post(STREAM)).close()

    upstream.wait_until_idle()
    assert gateway.chat().status == 200
    upstream.wait_until_idle()


def test_several_answers_stop_together_when_their_client_leaves(gateway: Served, upstream: Server) -> None:
    upstream.fault("stall:1", 3)
    connection = gateway.connect(post(STREAM | {"n": 3}))
    upstream.wait_until_open(3)

    connection.close()

    upstream.wait_until_idle()


# --- limits -----------------------------------------------------------------------------------------------------


def test_i9_i11_more_than_the_gateway_takes_is_refused_and_what_is_under_way_goes_on(
    serve: Serve, upstream: Server
) -> None:
    gateway = serve(max_streams=1)
    upstream.fault("stall:1")
    with gateway.connect(post(STREAM)) as connection:
        assert connection.recv(1)

        refused = gateway.chat()

        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert upstream.open_streams == 1
    upstream.wait_until_idle()
    assert gateway.chat().status == 200


@pytest.fixture
def keys(store: Store) -> list[dict[str, str]]:
    """The headers of two keys."""
    made = {name: auth.new_key() for name in ("one", "two")}
    for name, key in made.items():
        store.add_key(name, auth.digest(key), 0)
    return [{"authorization": f"Bearer {key}"} for key in made.values()]


def ask(gateway: Served, headers: dict[str, str]) -> Answer:
    return gateway.request("POST", "/v1/chat/completions", STREAM | {"stream": False}, headers)


def test_i10_one_key_has_its_own_limits(serve: Serve, upstream: Server, keys: list[dict[str, str]]) -> None:
    gateway = serve(max_streams_per_key=1)
    upstream.fault("stall:1")
    with gateway.connect(post(STREAM, headers=keys[0])) as connection:
        assert connection.recv(1)

        refused, other = ask(gateway, keys[0]), ask(gateway, keys[1])

        assert other.status == 200

        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limited")
        assert len(upstream.requests) == 2


def test_too_many_requests_in_a_minute_are_refused_with_the_time_to_wait(
    serve: Serve, keys: list[dict[str, str]]
) -> None:
    gateway = serve(requests_per_minute=2)

    answers = [ask(gateway, keys[0]) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert ask(gateway, keys[1]).status == 200


# --- stopping ---------------------------------------------------------------------------------------------------


def test_i16_while_draining_new_work_is_refused_and_what_is_under_way_goes_on(
    gateway: Served, upstream: Server
) -> None:
    upstream.fault("stall:1")
    with gateway.connect(post(STREAM)) as connection:
        assert connection.recv(1)
        gateway.call(gateway.app.drain)

        refused, ready, health = gateway.chat(), gateway.request("GET", "/readyz"), gateway.request("GET", "/healthz")

        assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
        assert (ready.status, ready.json) == (503, {"status": "draining"})
        assert health.status == 200
        assert upstream.open_streams == 1


@pytest.mark.parametrize(("fault", "seen"), [("stall:1", b"HTTP/1.1 200"), ("stall_head", b"HTTP/1.1 503")])
def test_i16_what_does_not_end_in_time_gets_an_error(
    gateway: Served, upstream: Server, fault: str, seen: bytes
) -> None:
    upstream.fault(fault)
    with gateway.connect(post(STREAM)) as connection:
        upstream.wait_until_open(1)
        said = connection.recv(1) if fault == "stall:1" else b""

        asyncio.run_coroutine_threadsafe(gateway.app.finish(), gateway.loop).result(10)

        while data := connection.recv(65536):
            said += data
            if said.endswith(b"0\r\n\r\n") or b'"code":"shutting_down"' in said:
                break
    assert said.startswith(seen)
    assert b'"code":"shutting_down"' in said
    assert b"[DONE]" not in said
    upstream.wait_until_idle()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages/count_tokens"])
def test_i16_a_request_whose_body_is_still_coming_gets_an_error_too(
    gateway: Served, upstream: Server, path: str
) -> None:
    with gateway.connect(post(STREAM, path)[:-1]) as connection:
        while not gateway.call(lambda: gateway.app.service.under_way):
            pass

        asyncio.run_coroutine_threadsafe(gateway.app.finish(), gateway.loop).result(10)

        said = b""
        while b"shutting_down" not in said:
            data = connection.recv(65536)
            assert data, said
            said += data
    assert said.startswith(b"HTTP/1.1 503 ")
    assert not upstream.requests


def test_i16_a_request_whose_conversation_is_looked_up_gets_an_error_too(
    serve: Serve, upstream: Server, tmp_path: Path
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    class Slow(Store):
        def response(self, id: str, owner: str, now_s: float) -> StoredResponse | None:  # noqa: A002
            begun.set()
            assert may_go_on.wait(10)
            return super().response(id, owner, now_s)

    with contextlib.closing(Slow(tmp_path / "flowgpt.db")) as store:
        gateway = serve({"store": store})
        earlier = gateway.request("POST", "/v1/responses", {"model": "gpt-3.5-turbo", "input": "Hello"}).json["id"]
        request = {"model": "gpt-3.5-turbo", "input": "Go on", "previous_response_id": earlier}
        with gateway.connect(post(request, "/v1/responses")) as connection:
            assert begun.wait(10)
            finished = asyncio.run_coroutine_threadsafe(gateway.app.finish(), gateway.loop)
            gateway.call(lambda: None)
            may_go_on.set()
            finished.result(10)
            said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert len(upstream.requests) == 1


# --- what is asked ----------------------------------------------------------------------------------------------


def test_foreign_names_stand_for_models_and_one_may_stand_for_all(serve: Serve, upstream: Server) -> None:
    gateway = serve(model_names={"gpt-4o-mini": "google-gemini"}, any_model="gpt-3.5-turbo")

    answers = [gateway.chat(model=model) for model in ("gpt-4o-mini", "gpt-9", "gemini")]

    assert [answer.json["model"] for answer in answers] == ["google-gemini", "gpt-3.5-turbo", "google-gemini"]


def test_a_character_is_not_among_the_names_that_nobody_knows(serve: Serve) -> None:
    gateway = serve(any_model="gemini")

    models = [gateway.request("GET", f"/v1/models/{id_}").json for id_ in ("character:flowgpt-embedded-char", "gpt-9")]

    assert [model.get("alias_of") for model in models] == [None, "gemini"]


def test_a_character_is_a_model_in_every_dialect(gateway: Served, upstream: Server) -> None:
    model = "character:flowgpt-embedded-char"
    asked = [{"role": "user", "content": "Who?"}]
    answers = [
        gateway.chat(model=model),
        gateway.request("POST", "/v1/responses", {"model": model, "input": "Who?"}),
        gateway.request("POST", "/v1/messages", {"model": model, "messages": asked, "max_tokens": 500}),
    ]

    assert [(answer.status, answer.json["model"]) for answer in answers] == [(200, "gpt-3.5-turbo")] * 3
    assert {chunk["model"] for chunk in gateway.chat(model=model, stream=True).chunks} == {"gpt-3.5-turbo"}
    chats = [request.chat for request in upstream.requests if request.chat]
    assert {chat.prompt_id for chat in chats} == {"flowgpt-embedded-char"}
    assert {chat.prompt.history[0].content for chat in chats} == {"Hello User, I am The embedded guide."}
    assert gateway.request("GET", f"/v1/models/{model}").json["id"] == model


def test_a_character_that_there_is_not_is_404_and_the_services_address_is_not_told(gateway: Served) -> None:
    for said in (gateway.chat(model="character:nobody"), gateway.chat(model="character:nobody", stream=True)):
        assert (said.status, said.json["error"]["code"]) == (404, "character_not_found")
        assert "there is no character nobody" in said.json["error"]["message"]
        assert "127.0.0.1" not in said.json["error"]["message"]
    for name in ("character:..", "character:https://evil.invalid/chat/x"):
        assert gateway.chat(model=name).status == 404
        assert gateway.request("GET", f"/v1/models/{name}").status == 404


def test_an_unknown_model_is_404_with_the_nearest_names(gateway: Served, upstream: Server) -> None:
    answer = gateway.chat(model="gpt-3.5-turb")

    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert "gpt-3.5-turbo" in answer.json["error"]["message"]
    assert not upstream.requests


def test_several_answers_are_asked_for_side_by_side(gateway: Served, upstream: Server) -> None:
    whole, streamed = gateway.chat(n=3), gateway.chat(n=3, stream=True)

    assert [choice["index"] for choice in whole.json["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in whole.json["choices"]}) == 1
    assert {choice["index"] for chunk in streamed.chunks for choice in chunk["choices"]} == {0, 1, 2}
    assert len(upstream.requests) == 6
    assert whole.headers["x-flowgpt-emulated"] == "n"


def test_what_is_ignored_and_emulated_is_said(gateway: Served) -> None:
    answer = gateway.chat(stop=["question"], seed=1, whatever=2)

    assert answer.headers["x-flowgpt-emulated"] == "stop"
    assert answer.headers["x-flowgpt-ignored"] == "seed, whatever"
    assert "question" not in answer.json["choices"][0]["message"]["content"]


WRONG = {"type": "wrong"}
FUNCTION = {"name": "f", "parameters": WRONG, "strict": True}
UNUSABLE = [
    ("chat/completions", {"tools": [{"type": "function", "function": FUNCTION}]}, "tools[0].function.parameters"),
    (
        "chat/completions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": WRONG}}},
        "response_format.json_schema.schema",
    ),
    ("responses", {"tools": [{"type": "function"} | FUNCTION]}, "tools[0].parameters"),
    ("responses", {"text": {"format": {"type": "json_schema", "name": "n", "schema": WRONG}}}, "text.format.schema"),
    ("messages", {"tools": [{"name": "f", "input_schema": WRONG, "strict": True}]}, "tools[0].input_schema"),
    (
        "messages",
        {"output_config": {"format": {"type": "json_schema", "schema": WRONG}}},
        "output_config.format.schema",
    ),
]


@pytest.mark.parametrize(("path", "parameters", "param"), UNUSABLE)
def test_a_schema_that_cannot_be_used_is_named_before_anything_is_asked(
    gateway: Served, upstream: Server, path: str, parameters: dict[str, Any], param: str
) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    asked: dict[str, dict[str, Any]] = {
        "responses": {"input": "Hello"},
        "messages": {"messages": messages, "max_tokens": 5},
    }
    body: dict[str, Any] = {"model": "gpt-3.5-turbo"} | asked.get(path, {"messages": messages}) | parameters

    answer = gateway.request("POST", f"/v1/{path}", body)

    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert not upstream.requests


def test_m1_the_address_of_the_upstream_is_the_operators_alone(gateway: Served, upstream: Server) -> None:
    answer = gateway.chat(base_url="http://127.0.0.1:9", api_base="http://127.0.0.1:9", proxy="http://127.0.0.1:9")

    assert answer.status == 200
    assert answer.headers["x-flowgpt-ignored"] == "base_url, api_base, proxy"
    assert len(upstream.requests) == 1


def test_m4_an_upstream_that_points_elsewhere_is_not_followed(serve: Serve) -> None:
    """To a machine's own metadata, say: the guard around every test fails one that connects there."""
    redirect = answer(307, b"", "Location: http://169.254.169.254/latest/meta-data/")
    with Upstream([redirect]) as upstream:
        got = serve({"base_url": upstream.url}).chat()

        assert (got.status, got.json["error"]["code"]) == (502, "redirect_refused")
        assert len(upstream.requests) == 1


def test_k1_the_clients_key_is_never_handed_on(gateway: Served, upstream: Server) -> None:
    gateway.request("POST", "/v1/chat/completions", STREAM, {"authorization": "Bearer sk-of-the-client"})

    assert upstream.requests[-1].headers["authorization"] == "Bearer null"


class Broken(AsyncGeneratorProvider):
    """A stranger's provider with a fault of its own."""

    after: Sequence[str] = ()

    @classmethod
    async def create_async_generator(cls, *_: Any, **__: Any) -> AsyncGenerator[str]:
        for text in cls.after:
            yield text
        raise KeyError("the stranger's secret")


def test_a_strangers_fault_is_a_500_that_shows_nothing(serve: Serve) -> None:
    answer = serve({"provider": Broken}).chat(stream=True)

    assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body


def test_a_strangers_fault_after_the_first_text_is_an_error_frame(serve: Serve) -> None:
    broken = type("Broken", (Broken,), {"after": ["Hel", "lo"]})

    answer = serve({"provider": broken}).chat(stream=True)

    assert (answer.status, texts(answer)) == (200, "Hello")
    assert answer.chunks[-1]["error"]["code"] == "internal_error"
    assert b"secret" not in answer.body


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_request_that_is_over_is_freed_without_the_collector(stream: bool, upstream: Server, store: Store) -> None:
    """Which may be far away: a process of ours lets many objects come before it collects."""
    fields = {b"host": b"localhost", b"content-type": b"application/json"}
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}
    scope |= {"scheme": "http", "client": None, "headers": [*fields.items()]}
    bodies = [json.dumps(STREAM | {"stream": stream}).encode()]

    async def receive() -> dict[str, Any]:
        if not bodies:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": bodies.pop()}

    async def main() -> tuple[list[Any], object]:
        app = create_app(base_url=upstream.base_url, store=store)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        answering = asyncio.ensure_future(app(scope, receive, send))
        await answering
        mark = weakref.ref(answering)
        del answering
        for _ in range(5):
            await asyncio.sleep(0)
        return sent, mark()

    gc.disable()
    try:
        sent, held = asyncio.run(main())
    finally:
        gc.enable()
    assert sent[0]["status"] == 200
    assert held is None


def test_i22_a_name_that_stands_for_nothing_is_refused_at_the_start(upstream: Server) -> None:
    for settings in (Settings(any_model="nope"), Settings(model_names={"gpt-4o": "nope"})):
        with pytest.raises(ModelNotFoundError, match="nope"):
            create_app(base_url=upstream.base_url, settings=settings)


def test_i22_a_wrong_option_is_refused_at_the_start(upstream: Server) -> None:
    with pytest.raises(InvalidRequestError, match="base_url"):
        create_app(base_url="ftp://nobody", settings=Settings(any_model="gemini"))


def test_a_request_over_its_keys_rate_is_refused_before_its_body_is_waited_for(
    serve: Serve, keys: list[dict[str, str]]
) -> None:
    gateway = serve(requests_per_minute=1)
    assert ask(gateway, keys[0]).status == 200
    head = post(STREAM, headers={**keys[0], "content-length": "8000000"}).partition(b"\r\n\r\n")[0]
    with gateway.connect(head + b"\r\n\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_no_answer_shows_the_upstreams_address(serve: Serve, upstream: Server) -> None:
    upstream.fault("cut_at_line:1")

    answer = serve().chat(stream=True)

    assert "error" in answer.chunks[-1]
    assert upstream.base_url.encode() not in answer.body
