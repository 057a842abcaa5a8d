"""The inner parts of the HTTP client that we lean on: each of them, and what would go wrong without."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from flowgpt.transport.connection import LIMIT_INTERIM_HEADS
from tests.transport.calls import Outcome, ask, limits, read
from tests.upstream import CHUNKED, HUNG_UP, Gate, Upstream, chunk, event, head, reply


def test_the_client_still_has_what_we_lean_on() -> None:
    """A new version of aiohttp that lacks one of these fails here, by name."""
    assert {"set_response_params", "data_received", "connection_lost", "set_exception"} <= vars(ResponseHandler).keys()
    assert callable(ResponseHandler.feed_data)
    assert callable(ResponseHandler.exception)

    async def inner() -> tuple[Any, Any]:
        connector = aiohttp.TCPConnector()
        content = aiohttp.StreamReader(ResponseHandler(asyncio.get_running_loop()), 2**16)
        parts = connector._factory, connector._acquired, content._buffer, content.total_bytes
        await connector.close()
        return parts[0], parts[2]

    factory, buffer = asyncio.run(inner())
    assert factory.func is ResponseHandler
    assert len(buffer) == 0
    assert "self._exception is not None" in inspect.getsource(aiohttp.StreamReader.readany), "read, then raised"


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
