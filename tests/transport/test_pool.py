"""The connections of a loop: shared, bounded, reused, and gone with their loop."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import subprocess
import sys
import weakref
from asyncio import AbstractEventLoop as Loop
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

import flowgpt
from flowgpt import FlowGpt
from flowgpt.errors import APITimeoutError, InvalidRequestError
from flowgpt.messages import Message
from flowgpt.transport import pool as pools
from flowgpt.transport.pool import PHASES, current_pool
from tests.transport.calls import Outcome, ask, limits, read
from tests.upstream import CHUNKED, HUNG_UP, LAST, Gate, Peer, Upstream, chunk, event, reply

GOOD = [reply("good")]


async def good(upstream: Upstream, count: int = 1, **options: Any) -> None:
    """So many good calls in a row."""
    for _ in range(count):
        assert (await read(ask(upstream.url, **({"timeout": limits()} | options)))).texts == ["good"]


def test_a_connection_is_used_again_after_each_reply_that_was_read_to_its_end() -> None:
    with Upstream(GOOD) as upstream:
        asyncio.run(good(upstream, 20))
        assert (upstream.connections, len(upstream.requests)) == (1, 20)


def test_h11_calls_of_one_loop_share_a_pool_and_each_loop_has_its_own() -> None:
    """A second asyncio.run gets fresh connections; those of the first are closed with its loop."""

    async def pool(upstream: Upstream) -> pools.Pool:
        await good(upstream, 2)
        assert await current_pool(10_000) is await current_pool(5)
        return await current_pool(10_000)

    with Upstream(GOOD) as upstream:
        first, second = (asyncio.run(pool(upstream)) for _ in range(2))
        upstream.wait_for(lambda: len(upstream.closed) == 2)
    assert first is not second
    assert not {first, second} & set(pools._pools.values())


def test_closed_loops_are_forgotten() -> None:
    """A loop that was closed without its asynchronous generators: its pool goes when the next one comes."""
    lost = asyncio.new_event_loop()
    lost.run_until_complete(current_pool(1))
    lost.close()
    assert lost in pools._pools
    assert lost not in asyncio.run(_loops_with_a_pool())
    gc.collect()


async def _loops_with_a_pool() -> list[asyncio.AbstractEventLoop]:
    await current_pool(1)
    return list(pools._pools)


def test_h12_two_loops_at_once_do_not_meet() -> None:
    """In two threads, each with a reply under way when the other begins."""
    gate = Gate()

    async def main(upstream: Upstream) -> list[str]:
        return (await read(ask(upstream.url, timeout=limits()))).texts

    async def both(upstream: Upstream) -> list[list[str]]:
        threads = [asyncio.create_task(asyncio.to_thread(asyncio.run, main(upstream))) for _ in range(2)]
        await upstream.until(lambda: len(upstream.requests) == 2)
        gate.open()
        return await asyncio.gather(*threads)

    with Upstream([CHUNKED, gate, chunk(event("good")), LAST]) as upstream:
        assert asyncio.run(both(upstream)) == [["good"], ["good"]]


def test_a18_a_pool_that_stays_full_is_a_pool_timeout_and_nothing_was_sent() -> None:
    async def main(upstream: Upstream) -> Outcome:
        options: dict[str, Any] = {"max_connections": 1}
        first = ask(upstream.url, timeout=limits(), **options)
        await first.next()
        second = await read(ask(upstream.url, timeout=limits(pool_s=0.05), **options))
        first.close()
        return second

    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        outcome = asyncio.run(main(upstream))
        assert len(upstream.requests) == 1
    assert outcome.fault == (APITimeoutError, "pool_timeout", "pool")
    assert outcome.failure is not None
    assert outcome.failure.retry_class == "safe"


class Told:
    """A request on its way, and what it is told."""

    def __init__(self) -> None:
        self.reused = True
        self.phases: list[str] = []

    def enter(self, phase: str) -> None:
        self.phases.append(phase)


def test_a_request_is_told_each_phase_it_enters_and_whether_its_connection_is_new() -> None:
    """By overrides of the HTTP client's inner parts: that they are still called shows here."""

    async def send(upstream: Upstream) -> Told:
        told = Told()
        PHASES.set(told)
        session = (await current_pool(1)).session(None)
        async with session.post(upstream.url) as response:
            await response.read()
        return told

    async def main(upstream: Upstream) -> list[tuple[list[str], bool]]:
        first = asyncio.create_task(send(upstream))
        await upstream.until(lambda: len(upstream.requests) == 1)
        second = asyncio.create_task(send(upstream))
        for _ in range(20):  # nothing tells that it waits
            await asyncio.sleep(0)
        gate.open()
        return [(told.phases, told.reused) for told in (await first, await second, await send(upstream))]

    gate = Gate()
    with Upstream([gate, reply("good")]) as upstream:
        assert asyncio.run(main(upstream)) == [
            (["connect", "head"], False),
            (["pool", "head"], True),
            (["head"], True),
        ]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_task_that_has_asked_is_freed_without_the_collector(new_loop: Callable[[], Loop]) -> None:
    """Nor does the connection that it made hold it, which keeps the context that it was made in."""

    async def main(upstream: Upstream) -> object:
        asking = asyncio.create_task(read(ask(upstream.url)))
        await asking
        mark = weakref.ref(asking)
        del asking
        for _ in range(5):
            await asyncio.sleep(0)
        return mark()

    with Upstream([reply("x")]) as upstream, asyncio.Runner(loop_factory=new_loop) as runner:
        gc.disable()
        try:
            assert runner.run(main(upstream)) is None
        finally:
            gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["head", "body"])
def test_a19_after_a_storm_of_cancels_no_connection_is_lost(phase: str) -> None:
    """5,000 calls over 10 connections, each cancelled at its own time; then twenty good ones, and no slot is taken.

    Both phases together make 10,000. A waiting call costs httpx its pool here (measured: after some 6,700 of them).
    """
    stormy = True

    async def script(peer: Peer) -> None:
        if not stormy:
            await peer.send(reply("good"))
            return
        if phase == "body":
            await peer.send(CHUNKED + chunk(event("a")))
        await HUNG_UP(peer)

    async def main(upstream: Upstream) -> str:
        nonlocal stormy

        def ask() -> asyncio.Task[str]:
            asked: list[Message] = [{"role": "user", "content": "?"}]
            options: dict[str, Any] = {"timeout": limits(), "max_connections": 10, "base_url": upstream.url}
            return asyncio.create_task(FlowGpt.create_async("", asked, **options))

        calls = [ask() for _ in range(5000)]
        while calls:
            for call in calls[::7]:
                call.cancel()
            left = await asyncio.gather(*calls[::7], return_exceptions=True)
            assert {type(end) for end in left} == {asyncio.CancelledError}
            del calls[::7]
        stormy = False
        async with asyncio.timeout(10):
            assert await asyncio.gather(*(ask() for _ in range(20))) == ["good"] * 20
        assert len(asyncio.all_tasks()) == 1
        return repr(await current_pool(10))

    with Upstream([script]) as upstream:
        assert asyncio.run(main(upstream)) == "<Pool 0 busy, limit=10>"
        upstream.wait_for(lambda: upstream.open == 0)


@pytest.mark.slow
def test_h18_a_thousand_streams_at_once_lose_duplicate_and_reorder_nothing() -> None:
    """All of them are open, with their first text read, before any goes on."""
    count, gate = 1000, Gate()

    async def script(peer: Peer) -> None:
        name = f"{peer.number}"
        await peer.send(CHUNKED + chunk(event(name)))
        await gate(peer)
        await peer.send(b"".join(chunk(event(f" {name}.{place}")) for place in range(5)) + LAST)

    async def main(upstream: Upstream) -> list[str]:
        replies = [ask(upstream.url, timeout=limits()) for _ in range(count)]
        await asyncio.gather(*(reply.next() for reply in replies))
        assert upstream.open == count
        gate.open()
        return await asyncio.gather(*(reply.read() for reply in replies))

    with Upstream([script]) as upstream:
        texts = asyncio.run(main(upstream))
    expected = ["".join([f"{number}", *(f" {number}.{place}" for place in range(5))]) for number in range(count)]
    assert sorted(texts) == sorted(expected)


def test_h13_a_forked_child_that_goes_on_with_its_parents_loop_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process id is what tells; the real fork is in tests/test_lifecycle.py."""

    async def main() -> None:
        await current_pool(1)
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        with pytest.raises(InvalidRequestError) as caught:
            await current_pool(1)
        monkeypatch.undo()
        assert caught.value.code == "forked_process"

    asyncio.run(main())


FAULTS = """
import asyncio, resource
from flowgpt import FlowGpt

async def main():
    is_read = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"}")  # of the request's body
        writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
        for _ in range(200):
            writer.write(b"20\\r\\n" b'{"event":"text","data":"word "}\\n\\r\\n')
            await is_read.wait()
            is_read.clear()
        writer.write(b"0\\r\\n\\r\\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        faults = []
        async for text in FlowGpt.stream(messages=[{"role": "user", "content": "?"}], base_url=url):
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
            is_read.set()
    print(faults[-1] - faults[-101])

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator keeps its memory by its own rules")
def test_a_read_takes_no_fresh_memory_from_the_system(tmp_path: Path) -> None:
    """A hundred texts, each a read of its own. In a process of its own, where nothing else has freed a large block."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(Path(flowgpt.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", FAULTS], env=env, capture_output=True, text=True, timeout=60)
    assert int(ended.stdout) < 50, ended.stderr
