"""The retry loop (`transport/__init__.py`): what is sent again, how often, after how long, and never after a text."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from flowgpt import transport
from flowgpt.errors import InvalidRequestError
from flowgpt.limits.retry import LIMIT_RETRY_AFTER_S
from tests.transport.calls import Outcome, ask, limits, read
from tests.upstream import (
    CHUNKED,
    FIN,
    RST,
    Gate,
    Script,
    Upstream,
    answer,
    chunk,
    event,
    head,
    reply,
)

A = event("a")


class Clockwork(asyncio.SelectorEventLoop):
    """A loop whose clock jumps over every long wait at once: what is slept is noted in `slept`, not waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead_s = 0.0
        self.slept: list[float] = []

    def time(self) -> float:
        return super().time() + self._ahead_s

    def pass_over(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._ahead_s += seconds


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    """The loop to run in; `asyncio.sleep` moves its clock."""
    loop = Clockwork()
    genuine = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        if seconds > 0 and asyncio.get_running_loop() is loop:
            loop.pass_over(seconds)
        return await genuine(0, result)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return loop


def run(upstream: Upstream, clockwork: Clockwork, **options: Any) -> Outcome:
    async def main() -> Outcome:
        return await read(ask(upstream.url, **({"timeout": limits(), "max_retries": 2} | options)))

    with asyncio.Runner(loop_factory=lambda: clockwork) as runner:
        return runner.run(main())


GOOD: Script = [reply("good")]
FAULTS: dict[str, tuple[Script, int]] = {
    "B1 closed": ([FIN], 2),
    "B3 reset": ([RST], 2),
    "B6 half a head": ([b"HTTP/1.1 200", FIN], 2),
    "B7 garbage": ([b"hello\r\n\r\n", FIN], 1),
    "B10 an empty reply": ([answer(200)], 2),
    "B11 no stream": ([answer(200, b"<html>")], 1),
    "C3 reset before the first event": ([CHUNKED, RST], 2),
    "C5 ended before the first event": ([CHUNKED, FIN], 2),
    "C12 compressed": ([head(200, "Content-Encoding: gzip"), FIN], 1),
    "C17 redirect": ([answer(307, b"", "Location: /x")], 1),
    "F1 400": ([answer(400)], 1),
    "F2 401": ([answer(401)], 1),
    "F3 402": ([answer(402)], 1),
    "F9 408": ([answer(408)], 2),
    "F10 409": ([answer(409)], 1),
    "F13 425": ([answer(425)], 3),
    "F14 429": ([answer(429, b"", "Retry-After: 3")], 3),
    "F15 429 without a word": ([answer(429)], 3),
    "F20 429 for credit": ([answer(429, b"no credit")], 1),
    "F22 500": ([answer(500)], 2),
    "F22 502": ([answer(502)], 2),
    "F23 503": ([answer(503)], 3),
    "F24 521": ([answer(521)], 3),
    "F24 524": ([answer(524)], 1),
    "F25 529": ([answer(529)], 3),
    "F28 503, and not again": ([answer(503, b"", "x-should-retry: false")], 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_safe_faults_are_sent_again_twice_ambiguous_ones_once_and_others_never(name: str, clockwork: Clockwork) -> None:
    script, sends = FAULTS[name]
    with Upstream(script) as upstream:
        outcome = run(upstream, clockwork)
        assert len(upstream.requests) == sends
    assert outcome.failure is not None
    assert outcome.failure.attempts == outcome.reply.attempts == sends
    assert outcome.failure.partial_text == ""


@pytest.mark.parametrize("name", [name for name, (_, sends) in FAULTS.items() if sends > 1])
def test_a_fault_that_passes_is_not_seen(name: str, clockwork: Clockwork) -> None:
    with Upstream(FAULTS[name][0], GOOD) as upstream:
        outcome = run(upstream, clockwork)
    assert (outcome.texts, outcome.code, outcome.reply.attempts) == (["good"], None, 2)


@pytest.mark.parametrize("name", FAULTS)
def test_without_retries_everything_is_sent_once(name: str, clockwork: Clockwork) -> None:
    with Upstream(FAULTS[name][0]) as upstream:
        assert run(upstream, clockwork, max_retries=0).code is not None
        assert len(upstream.requests) == 1


SAFE = {"F13 425", "F23 503", "F24 521", "F25 529"}


@pytest.mark.parametrize("name", FAULTS)
def test_with_safe_retries_only_what_may_have_been_processed_and_every_429_is_handed_on_at_once(
    name: str, clockwork: Clockwork
) -> None:
    with Upstream(FAULTS[name][0]) as upstream:
        assert run(upstream, clockwork, safe_retries_only=True).code is not None
        assert len(upstream.requests) == (3 if name in SAFE else 1)
    assert name in SAFE or clockwork.slept == []


@pytest.mark.parametrize("first", [A, event("", "title")], ids=["a text", "another event"])
@pytest.mark.parametrize("cut", [FIN, RST], ids=["FIN", "RST"])
def test_nothing_is_sent_again_after_the_first_event_has_left(first: bytes, cut: Any, clockwork: Clockwork) -> None:
    """The commit point: whoever has seen something must not see it twice."""
    with Upstream([CHUNKED, chunk(first), cut], GOOD) as upstream:
        outcome = run(upstream, clockwork)
        assert len(upstream.requests) == 1
    assert outcome.failure is not None
    assert outcome.failure.attempts == 1
    assert "good" not in outcome.texts


def test_g3_each_send_is_signed_anew(clockwork: Clockwork) -> None:
    """Fresh nonce and signature, the same body, and the same device."""
    with Upstream([answer(503)], [answer(503)], GOOD) as upstream:
        assert run(upstream, clockwork).texts == ["good"]
        sends = [request.headers for request in upstream.requests]
        assert len({request.body for request in upstream.requests}) == 1
    for name in ("x-nonce", "x-signature"):
        assert len({headers[name] for headers in sends}) == 3
    assert len({headers["x-flow-device-id"] for headers in sends}) == 1
    assert all(headers["x-timestamp"].isdigit() for headers in sends)


def test_f14_the_wait_is_what_the_service_asked_for_and_at_most_a_tenth_more(clockwork: Clockwork) -> None:
    with Upstream([answer(429, b"", "Retry-After: 30")], [answer(503, b"", "Retry-After: 7")], GOOD) as upstream:
        assert run(upstream, clockwork).texts == ["good"]
    first, second = clockwork.slept
    assert 30 <= first <= 33
    assert 7 <= second <= 7.7


def test_f15_without_a_word_the_waits_are_random_and_short(clockwork: Clockwork) -> None:
    with Upstream([answer(429)], [answer(503)], GOOD) as upstream:
        assert run(upstream, clockwork).texts == ["good"]
    first, second = clockwork.slept
    assert 0 < first <= 1
    assert 0 < second <= 2


def test_f18_an_absurd_wait_is_told_and_not_slept(clockwork: Clockwork) -> None:
    with Upstream([answer(429, b"", f"Retry-After: {int(LIMIT_RETRY_AFTER_S) + 1}")]) as upstream:
        outcome = run(upstream, clockwork)
        assert len(upstream.requests) == 1
    assert outcome.failure is not None
    assert (outcome.code, outcome.failure.retry_after_s) == ("rate_limited", LIMIT_RETRY_AFTER_S + 1)
    assert clockwork.slept == []


def test_f18_a_wait_past_the_deadline_is_told_and_not_slept(clockwork: Clockwork) -> None:
    with Upstream([answer(429, b"", "Retry-After: 60")]) as upstream:
        outcome = run(upstream, clockwork, timeout=limits(total_s=30))
    assert outcome.code == "rate_limited"
    assert clockwork.slept == []


def test_the_deadline_is_of_all_sends_together(clockwork: Clockwork) -> None:
    """40 of 60 seconds are slept; the second answer wants 25 more."""
    with Upstream([answer(429, b"", "Retry-After: 40")], [answer(429, b"", "Retry-After: 25")], GOOD) as upstream:
        outcome = run(upstream, clockwork, timeout=limits(total_s=60))
        assert len(upstream.requests) == 2
    assert outcome.code == "rate_limited"
    assert len(clockwork.slept) == 1


def test_b2_a_reused_connection_that_was_closed_is_replaced_in_silence(clockwork: Clockwork) -> None:
    """The service closes it while the second request is on its way."""

    async def main(url: str) -> list[Outcome]:
        return [await read(ask(url, timeout=limits(), max_retries=1)) for _ in range(2)]

    with (
        Upstream(GOOD, [FIN], [reply("again")]) as upstream,
        asyncio.Runner(loop_factory=lambda: clockwork) as runner,
    ):
        first, second = runner.run(main(upstream.url))
        assert [request.connection for request in upstream.requests] == [0, 0, 1]
    assert (first.texts, second.texts, second.reply.attempts) == (["good"], ["again"], 2)
    assert clockwork.slept == []


def test_b2_a_connection_closed_while_idle_is_not_even_tried() -> None:
    gate = Gate()

    async def main(url: str, upstream: Upstream) -> list[Outcome]:
        first = await read(ask(url, timeout=limits()))
        gate.open()
        await upstream.hung_up()
        for _ in range(20):  # the FIN is on loopback: let the loop see it
            await asyncio.sleep(0)
        return [first, await read(ask(url, timeout=limits()))]

    with Upstream([reply("good"), gate, FIN], GOOD) as upstream:
        outcomes = asyncio.run(main(upstream.url, upstream))
    assert [outcome.texts for outcome in outcomes] == [["good"], ["good"]]
    assert all(outcome.reply.attempts == 1 for outcome in outcomes)


# --- leaving while it waits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_h1_who_leaves_during_a_backoff_leaves_at_once(how: str) -> None:
    async def main(url: str, upstream: Upstream) -> BaseException | None:
        waiting = ask(url, timeout=limits(), max_retries=2)
        reading = asyncio.create_task(waiting.next())
        await upstream.hung_up()
        for _ in range(20):
            await asyncio.sleep(0)
        reading.cancel() if how == "cancel" else waiting.close()
        async with asyncio.timeout(5):
            [result] = await asyncio.gather(reading, return_exceptions=True)
        return result if isinstance(result, BaseException) else None

    with Upstream([answer(429, b"", "Retry-After: 100"), FIN]) as upstream:
        result = asyncio.run(main(upstream.url, upstream))
        assert len(upstream.requests) == 1
    assert isinstance(result, asyncio.CancelledError if how == "cancel" else InvalidRequestError)


def test_h6_a_reply_that_is_never_read_sends_nothing() -> None:
    async def main(url: str) -> None:
        unread = ask(url)
        unread.close()
        await asyncio.sleep(0)

    with Upstream(GOOD) as upstream:
        asyncio.run(main(upstream.url))
        assert upstream.connections == 0


@pytest.mark.parametrize("steps", range(1, 60))
def test_h1_cancelled_at_any_step_of_the_loop_nothing_is_left_open(steps: int) -> None:
    """The k-th step after the start, k = 1 … 59: a reply takes about thirty."""

    async def main(url: str, upstream: Upstream) -> None:
        asked = ask(url, timeout=limits())
        reading = asyncio.create_task(read(asked))
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        [result] = await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(result, (asyncio.CancelledError, Outcome))
        if isinstance(result, Outcome):
            assert (result.texts, result.code) == (["good"], None)
        good = await read(ask(url, timeout=limits()))
        assert good.texts == ["good"]
        await upstream.hung_up(upstream.connections - 1)  # all but the one that waits for its next request

    with Upstream(GOOD) as upstream:
        asyncio.run(main(upstream.url, upstream))


# --- the late import ------------------------------------------------------------------------------------------------

IMPORT = """
import asyncio, importlib.abc, sys, threading

places = {}
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        places.setdefault(name.partition(".")[0], threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Finder())

from flowgpt import FlowGpt
assert "aiohttp" not in places
async def ask():
    return await FlowGpt.create_async("", [{"role": "user", "content": "?"}], base_url=sys.argv[1])
async def main():
    return await asyncio.gather(*(ask() for _ in range(5)))
print(asyncio.run(main()), places["aiohttp"], places["msgspec"])
"""


def test_the_http_client_is_imported_at_the_first_call_in_another_thread_than_the_loops() -> None:
    """Five first calls at once: none of them meets a module that is half imported."""
    with Upstream(GOOD) as upstream:
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, upstream.url], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.stderr == ""
    assert done.stdout == f"{['good'] * 5} False True\n"


def test_a_room_is_loaded_once() -> None:
    async def main() -> None:
        assert await transport.load("pool") is await transport.load("pool") is sys.modules["flowgpt.transport.pool"]

    asyncio.run(main())
