"""The inner parts of the HTTP client that we lean on: each of them, and what would go wrong without."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp_socks import ProxyConnector

from flowgpt.transport.connection import LIMIT_INTERIM_HEADS, Connection
from flowgpt.transport.pool import _Connector, _SocksConnector
from tests.transport.calls import Outcome, ask, limits, read
from tests.upstream import CHUNKED, HUNG_UP, LAST, Gate, Upstream, chunk, event, head, reply


def test_the_client_still_has_what_we_lean_on() -> None:
    """A new version of aiohttp that lacks one of these fails here, by name."""

    async def inner() -> tuple[Any, Any, Any]:
        connector = aiohttp.TCPConnector()
        connection: Any = ResponseHandler(asyncio.get_running_loop())
        content = aiohttp.StreamReader(connection, 2**16)
        parts = connector._factory, len(connector._acquired), len(content._buffer), content.total_bytes
        states = connection._payload, connection._reading_paused, connection._buffer_paused, connection.exception()
        await connector.close()
        return parts[0], parts[1:], states

    factory, counts, states = asyncio.run(inner())
    assert factory.func is ResponseHandler
    assert counts == (0, 0, 0)
    assert states == (None, False, False, None)
    assert "self._exception is not None" in inspect.getsource(aiohttp.StreamReader.readany), "read, then raised"


CALLED: dict[Any, str] = {
    ResponseHandler.close: "self",
    ResponseHandler.connection_lost: "self, exc",
    ResponseHandler.connection_made: "self, transport",
    ResponseHandler.data_received: "self, data",
    ResponseHandler.exception: "self",
    ResponseHandler.feed_data: "self, data, size",
    ResponseHandler.resume_reading: "self, resume_parser",
    ResponseHandler.set_exception: "self, exc, exc_cause",
    aiohttp.StreamReader.set_exception: "self, exc, exc_cause",
    aiohttp.TCPConnector._create_connection: "self, req, traces, timeout",
    aiohttp.TCPConnector._start_tls_connection: "self, underlying_transport, req, timeout, client_error",
    aiohttp.TCPConnector._wait_for_available_connection: "self, key, traces",
    aiohttp.TCPConnector._wrap_create_connection: "self, args, addr_infos, req, timeout, client_error, kwargs",
    aiohttp.TCPConnector.connect: "self, req, traces, timeout",
    ProxyConnector._wrap_create_connection: "self, args, addr_infos, req, timeout, client_error, kwargs",
}
"""The methods of the client and of the SOCKS library that we override or call, with the parameters that we count on."""


@pytest.mark.parametrize("method", CALLED, ids=lambda method: str(method.__qualname__))
def test_a_method_that_we_override_or_call_takes_what_it_took(method: Any) -> None:
    assert ", ".join(inspect.signature(method).parameters) == CALLED[method]


def test_the_parameters_of_an_answer_come_by_name() -> None:
    """What `Connection.set_response_params` hands on."""
    _, *named = inspect.signature(ResponseHandler.set_response_params).parameters.values()
    assert {parameter.kind for parameter in named} == {inspect.Parameter.KEYWORD_ONLY}


def overrides(ours: type) -> dict[str, Any]:
    """The methods of a class of ours that stand in for one of the client's."""
    return {
        name: found
        for name, found in vars(ours).items()
        if inspect.isfunction(found) and any(name in vars(base) for base in ours.__mro__[1:])
    }


def test_every_override_stands_in_the_tables_above() -> None:
    """And stands for something: one whose name the client gave up would never be called, and no one would tell."""
    names = {method.__name__ for method in CALLED} | {"set_response_params"}
    expected = {
        Connection: {"set_response_params", "feed_data", "data_received", "resume_reading", "connection_made"}
        | {"connection_lost", "set_exception", "abort"},
        _Connector: {"connect", "_wait_for_available_connection", "_create_connection"},
        _SocksConnector: {"_wrap_create_connection"},
    }
    for ours, methods in expected.items():
        assert overrides(ours).keys() == methods
        assert methods - {"abort"} <= names


@pytest.mark.parametrize("length", [1, 2**18], ids=["short", "longer than the buffer"])
def test_a_body_that_is_read_wakes_the_connection_only_when_it_sleeps(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client asks for it at each HTTP chunk, through our override; a reader that is late finds it asleep."""
    asked: list[bool] = []
    woken: list[bool] = []
    ours, theirs, fall_asleep = Connection.resume_reading, ResponseHandler.resume_reading, ResponseHandler.pause_reading
    asleep = asyncio.Event()

    def ask_ours(self: Connection, resume_parser: bool = True) -> None:
        asked.append(self._reading_paused)
        ours(self, resume_parser)

    def wake(self: ResponseHandler, resume_parser: bool = True) -> None:
        woken.append(self._reading_paused)
        theirs(self, resume_parser)

    def sleep(self: ResponseHandler) -> None:
        fall_asleep(self)
        asleep.set()

    async def main(upstream: Upstream) -> Outcome:
        asked_for = ask(upstream.url, timeout=limits())
        assert (await asked_for.next()) is not None
        gate.open()
        async with asyncio.timeout(10):
            await (asleep.wait() if length > 1 else asyncio.sleep(0))
            return await read(asked_for)

    monkeypatch.setattr(Connection, "resume_reading", ask_ours)
    monkeypatch.setattr(ResponseHandler, "resume_reading", wake)
    monkeypatch.setattr(ResponseHandler, "pause_reading", sleep)
    gate, texts = Gate(), ["b" * length] * 8
    with Upstream([CHUNKED, chunk(event("a")), gate, *(chunk(event(text)) for text in texts), LAST]) as upstream:
        outcome = asyncio.run(main(upstream))
    assert outcome.texts == texts
    assert set(asked) == {False, length > 1}
    assert set(woken) == ({True} if length > 1 else set())


@pytest.mark.parametrize("unasked", [reply("stale"), b"garbage", b"\r\n", head(408, "Content-Length: 0")])
def test_c16_what_comes_unasked_on_an_idle_connection_is_no_answer(unasked: bytes) -> None:
    """aiohttp alone gives the stale reply to the next call: one user's answer to another's question."""
    gate, sent = Gate(), Gate()

    async def main(upstream: Upstream) -> list[Outcome]:
        first = await read(ask(upstream.url, timeout=limits()))
        gate.open()
        await sent.reached()
        for _ in range(20):
            await asyncio.sleep(0)
        return [first, await read(ask(upstream.url, timeout=limits()))]

    with Upstream([reply("first"), gate, unasked, sent], [reply("second")]) as upstream:
        first, second = asyncio.run(main(upstream))
        assert [request.connection for request in upstream.requests] == [0, 1]
        sent.open()
    assert (first.texts, second.texts, second.reply.attempts) == (["first"], ["second"], 1)


@pytest.mark.parametrize("unasked", [reply("stale"), b"garbage"])
def test_c16_what_comes_behind_a_reply_in_one_piece_is_no_answer(unasked: bytes) -> None:
    async def main(upstream: Upstream) -> list[Outcome]:
        return [await read(ask(upstream.url, timeout=limits())) for _ in range(2)]

    with Upstream([reply("first") + unasked], [reply("second")]) as upstream:
        first, second = asyncio.run(main(upstream))
    assert (first.texts, second.texts) == (["first"], ["second"])


def test_c6_a_bad_chunk_in_the_middle_is_told_at_once() -> None:
    """aiohttp alone tells nobody: the reader waits until a limit passes. There is none here."""
    gate = Gate()

    async def main(upstream: Upstream) -> Outcome:
        broken = ask(upstream.url, timeout=limits())
        assert (await broken.next()) is not None
        gate.open()
        async with asyncio.timeout(5):
            return await read(broken)

    with Upstream([CHUNKED, chunk(event("a")), gate, chunk(event("b")) + b"zz\r\n", HUNG_UP]) as upstream:
        outcome = asyncio.run(main(upstream))
    assert (outcome.texts, outcome.code) == (["b"], "bad_http")


@pytest.mark.parametrize(("count", "code"), [(LIMIT_INTERIM_HEADS, None), (LIMIT_INTERIM_HEADS + 1, "bad_http")])
def test_b9_interim_heads_are_counted(count: int, code: str | None) -> None:
    async def main(upstream: Upstream) -> list[Outcome]:
        return [await read(ask(upstream.url, timeout=limits())) for _ in range(2)]

    with Upstream([head("103 Early Hints") * count + reply("a")]) as upstream:
        outcomes = asyncio.run(main(upstream))
    assert [outcome.code for outcome in outcomes] == [code, code], "each request has its own count"
