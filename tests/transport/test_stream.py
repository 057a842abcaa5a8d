"""The retry loop (`transport/__init__.py`): what is sent again, how often, after how long, and never after a text."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from email.utils import formatdate
from typing import Any

import pytest

from flowgpt import transport
from flowgpt.config import Options
from flowgpt.errors import AuthenticationError, InvalidRequestError, RateLimitError
from flowgpt.limits.breaker import LEAST_CALLS, LIMIT_OPEN_S
from flowgpt.limits.retry import LIMIT_RETRY_AFTER_S
from flowgpt.transport import health
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
    monkeypatch.setattr(health, "monotonic", loop.time)
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


# --- the endpoint's health ------------------------------------------------------------------------------------------


def in_turn(upstream: Upstream, clockwork: Clockwork, times: int, **options: Any) -> list[Outcome]:
    """Calls one after the other."""

    async def main() -> list[Outcome]:
        asked = {"timeout": limits(), "max_retries": 0} | options
        return [await read(ask(upstream.url, **asked)) for _ in range(times)]

    with asyncio.Runner(loop_factory=lambda: clockwork) as runner:
        return runner.run(main())


def known(upstream: Upstream, **options: Any) -> health.Endpoint:
    return health.endpoint(Options.resolve(base_url=upstream.url, **options))


def test_o1_after_twenty_failures_nothing_is_sent_and_the_circuit_says_why(clockwork: Clockwork) -> None:
    with Upstream([answer(503)]) as upstream:
        outcomes = in_turn(upstream, clockwork, 25)
        assert len(upstream.requests) == LEAST_CALLS
    assert [outcome.code for outcome in outcomes] == ["service_unavailable"] * 20 + ["circuit_open"] * 5
    last = outcomes[-1].failure
    assert last is not None
    assert re.search(r"fails since \S+ \(service_unavailable\); next try in \d\.\d s", last.message)
    assert (last.attempts, last.retry_after_s is not None) == (0, True)
    assert clockwork.slept == []


def test_o1_a_good_probe_closes_the_circuit(clockwork: Clockwork) -> None:
    with Upstream(*[[answer(503)]] * LEAST_CALLS, GOOD) as upstream:
        there = known(upstream)
        in_turn_codes = [outcome.code for outcome in in_turn(upstream, clockwork, LEAST_CALLS + 1)]
        assert in_turn_codes[-1] == "circuit_open"
        assert not there.health().working
        clockwork.pass_over(LIMIT_OPEN_S)
        again = Clockwork()
        again.pass_over(clockwork.time() - again.time())
        assert [outcome.texts for outcome in in_turn(upstream, again, 3)] == [["good"]] * 3
        assert there.health().working


@pytest.mark.parametrize("other", [{"api_key": "canary-key-7c1e55d0"}], ids=["another key"])
def test_o6_another_key_is_asked_though_the_circuit_of_the_first_is_open(
    other: dict[str, str], clockwork: Clockwork
) -> None:
    async def main(url: str) -> list[Outcome]:
        for _ in range(LEAST_CALLS):
            await read(ask(url, timeout=limits()))
        return [await read(ask(url, timeout=limits(), **options)) for options in ({}, other)]

    with (
        Upstream(*[[answer(503)]] * LEAST_CALLS, GOOD) as upstream,
        asyncio.Runner(loop_factory=lambda: clockwork) as runner,
    ):
        first, second = runner.run(main(upstream.url))
    assert (first.code, second.texts) == ("circuit_open", ["good"])


def test_f21_a_429_for_ever_is_met_with_the_burst_and_a_tenth(clockwork: Clockwork) -> None:
    with Upstream([answer(429)]) as upstream:
        outcomes = in_turn(upstream, clockwork, 100, max_retries=2)
        assert {outcome.code for outcome in outcomes} == {"rate_limited"}
        assert 110 <= len(upstream.requests) <= 120
        assert known(upstream).health().working


def test_o4_each_failure_tells_how_often_it_was_sent(clockwork: Clockwork) -> None:
    with Upstream([answer(429)]) as upstream:
        outcomes = in_turn(upstream, clockwork, 30, max_retries=2)
        assert sum(outcome.reply.attempts for outcome in outcomes) == len(upstream.requests)
    attempts = [outcome.failure.attempts for outcome in outcomes if outcome.failure]
    assert (attempts[:5], attempts[-1]) == ([3] * 5, 1)


def test_f28_an_x_should_retry_of_true_pays_from_the_budget(clockwork: Clockwork) -> None:
    with Upstream([answer(429, b"", "x-should-retry: true")]) as upstream:
        there = known(upstream)
        while there.spend():
            pass
        assert run(upstream, clockwork).code == "rate_limited"
        assert len(upstream.requests) == 1


def test_f14_all_calls_of_the_endpoint_wait_for_the_end_of_the_pause(clockwork: Clockwork) -> None:
    with Upstream([answer(429, b"", "Retry-After: 30")], GOOD) as upstream:
        first, second, third = in_turn(upstream, clockwork, 3)
        assert len(upstream.requests) == 3
    assert (first.code, second.texts, third.texts) == ("rate_limited", ["good"], ["good"])
    [slept] = clockwork.slept
    assert 29 < slept <= 33


@pytest.mark.parametrize(
    "options", [{"safe_retries_only": True}, {"timeout": limits(total_s=20)}], ids=["safe", "late"]
)
def test_f14_f18_who_cannot_wait_for_the_pause_gets_the_services_429(
    options: dict[str, Any], clockwork: Clockwork
) -> None:
    with Upstream([answer(429, b"", "Retry-After: 30")], GOOD) as upstream:
        _, second = in_turn(upstream, clockwork, 2, **options)
        assert len(upstream.requests) == 1
    assert second.failure is not None
    assert (second.code, second.failure.attempts) == ("rate_limited", 0)
    assert 29 < (second.failure.retry_after_s or 0) <= 30
    assert clockwork.slept == []


def test_b2_a_closed_idle_connection_is_replaced_though_the_budget_is_spent(clockwork: Clockwork) -> None:
    with Upstream(GOOD, [FIN], [reply("again")]) as upstream:
        there = known(upstream)
        while there.spend():
            pass
        outcomes = in_turn(upstream, clockwork, 2, max_retries=1)
    assert [outcome.texts for outcome in outcomes] == [["good"], ["again"]]


# --- the clock ------------------------------------------------------------------------------------------------------

NOW_S = 1_700_000_000


def dated(status: int, ahead_s: float) -> bytes:
    return answer(status, b"", f"Date: {formatdate(NOW_S + ahead_s, usegmt=True)}")


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: float(NOW_S))


def stamps(upstream: Upstream) -> list[int]:
    return [int(request.headers["x-timestamp"]) - NOW_S for request in upstream.requests]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("ahead_s", [540, -540])
def test_g1_a_signature_by_a_wrong_clock_is_sent_again_by_the_services_and_so_is_the_next(
    status: int, ahead_s: int, wall: None, clockwork: Clockwork
) -> None:
    with Upstream([dated(status, ahead_s)], GOOD) as upstream:
        outcomes = in_turn(upstream, clockwork, 2, max_retries=1)
        assert stamps(upstream) == [0, ahead_s, ahead_s]
    assert [outcome.texts for outcome in outcomes] == [["good"], ["good"]]
    assert clockwork.slept == []


@pytest.mark.parametrize(("ahead_s", "words"), [(540, "9 min slow"), (-540, "9 min fast")])
def test_g1_a_second_refusal_names_the_skew(ahead_s: int, words: str, wall: None, clockwork: Clockwork) -> None:
    with Upstream([dated(401, ahead_s)]) as upstream:
        outcome = run(upstream, clockwork)
        assert len(upstream.requests) == 2
    assert isinstance(outcome.failure, AuthenticationError)
    assert outcome.code == "clock_skew"
    assert words in outcome.failure.message
    assert not outcome.failure.retriable


@pytest.mark.parametrize(
    "refusal",
    [
        dated(401, 60),
        dated(401, 0),
        dated(401, 86_400),
        dated(401, -90_000),
        answer(401),
        answer(401, b"", "Date: soon"),
    ],
    ids=["a minute", "agree", "a day", "more than a day", "no Date", "junk"],
)
def test_g1_without_a_skew_that_can_be_made_good_a_refusal_is_a_refusal(
    refusal: bytes, wall: None, clockwork: Clockwork
) -> None:
    with Upstream([refusal], GOOD) as upstream:
        assert run(upstream, clockwork).code == "authentication_failed"
        assert stamps(upstream) == [0]


def test_g1_a_clock_that_was_set_right_since_is_believed_again(wall: None, clockwork: Clockwork) -> None:
    with Upstream([dated(401, 540)], GOOD, [dated(401, 0)], GOOD) as upstream:
        outcomes = in_turn(upstream, clockwork, 2, max_retries=1)
        assert stamps(upstream) == [0, 540, 540, 0]
    assert [outcome.texts for outcome in outcomes] == [["good"], ["good"]]


# --- each attempt is told of once -----------------------------------------------------------------------------------


class Told:
    """What an endpoint was told: tickets given, and those that came back."""

    def __init__(self, there: health.Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = self.noted = self.forgotten = 0
        admit, note, forget = there.admit, there.note, there.forget

        def admitted(*, again: bool) -> int:
            ticket = admit(again=again)
            self.given += 1
            return ticket

        def noted(*facts: Any) -> None:
            self.noted += 1
            note(*facts)

        def forgotten(ticket: int) -> None:
            self.forgotten += 1
            forget(ticket)

        for name, told in (("admit", admitted), ("note", noted), ("forget", forgotten)):
            monkeypatch.setattr(there, name, told)


@pytest.mark.parametrize("how", ["cancel", "close", "both"])
def test_h1_each_attempt_is_noted_or_forgotten_once_and_no_budget_is_lost_wherever_its_caller_leaves(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step of a call that is sent twice."""

    async def main(url: str, steps: int) -> None:
        asked = ask(url, timeout=limits(), max_retries=1)
        reading = asyncio.create_task(read(asked))
        for _ in range(steps):
            await asyncio.sleep(0)
        if how != "cancel":
            asked.close()
        if how != "close":
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    ends = set()
    for steps in range(1, 70, 2):
        health._endpoints.clear()  # a port may come again
        with Upstream([answer(429)], GOOD) as upstream:
            there = known(upstream)
            told = Told(there, monkeypatch)
            with asyncio.Runner() as runner:
                monkeypatch.setattr(random, "random", lambda: 0.0)
                runner.run(main(upstream.url, steps))
            assert told.given == told.noted + told.forgotten, steps
            left = sum(there.spend() for _ in range(20))
            assert left == (9 if told.given == 2 else 10), steps
            ends.add((told.noted, told.forgotten))
    assert (0, 1) in ends


def test_h1_a_probe_that_is_cancelled_lets_another_go(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(health, "monotonic", lambda: now_s[0])
    gate = Gate()

    async def main(url: str) -> list[str | None]:
        codes = [(await read(ask(url, timeout=limits()))).code for _ in range(LEAST_CALLS + 1)]
        now_s[0] += LIMIT_OPEN_S
        probe = asyncio.create_task(read(ask(url, timeout=limits())))
        await asyncio.to_thread(upstream.wait_for, lambda: len(upstream.requests) > LEAST_CALLS)
        codes.append((await read(ask(url, timeout=limits()))).code)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        return [*codes[-2:], (await read(ask(url, timeout=limits()))).code]

    with Upstream(*[[answer(503)]] * LEAST_CALLS, [gate, FIN], GOOD) as upstream:
        assert asyncio.run(main(upstream.url)) == ["circuit_open", "circuit_open", None]
        gate.open()


def test_h1_who_leaves_in_the_pause_leaves_at_once() -> None:
    async def main(url: str, there: health.Endpoint) -> object:
        there.note(RateLimitError("slowly", retry_after_s=100.0))
        waiting = asyncio.create_task(read(ask(url, timeout=limits())))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        async with asyncio.timeout(5):
            [result] = await asyncio.gather(waiting, return_exceptions=True)
        return result

    with Upstream(GOOD) as upstream:
        assert isinstance(asyncio.run(main(upstream.url, known(upstream))), asyncio.CancelledError)
        assert upstream.connections == 0
