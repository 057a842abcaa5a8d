"""What is known of an endpoint: whose it is, what is told of it, and that each process has its own."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowgpt.config import Options
from flowgpt.errors import AuthenticationError, FlowGPTError, RateLimitError, ServiceUnavailableError
from flowgpt.limits.breaker import LEAST_CALLS, LIMIT_OPEN_S
from flowgpt.transport import health
from flowgpt.transport.health import LIMIT_ENDPOINTS, Endpoint, endpoint

ORIGIN = "http://127.0.0.1:9"


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(health, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(random, "random", lambda: 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def known(url: str = ORIGIN, **options: object) -> Endpoint:
    return endpoint(Options.resolve(base_url=url, **options))


def fail(there: Endpoint, times: int = LEAST_CALLS) -> None:
    for _ in range(times):
        if not there.health().working:
            break
        there.note(ServiceUnavailableError("down", code="service_unavailable"), there.admit(again=False))


def refused(there: Endpoint) -> ServiceUnavailableError:
    with pytest.raises(ServiceUnavailableError) as caught:
        there.admit(again=False)
    return caught.value


def test_o1_an_open_circuit_says_since_when_and_why_and_when_it_is_tried_next(clock: Clock) -> None:
    there = known()
    fail(there)
    clock.now_s += 0.25
    error = refused(there)
    assert (error.code, error.retry_after_s, error.retriable) == ("circuit_open", 0.75, True)
    pattern = r"http://127.0.0.1:9 fails since \d\d:\d\d:\d\d \(service_unavailable\); next try in 0.8 s"
    assert re.fullmatch(pattern, error.message)


def test_o1_a_probe_that_is_forgotten_lets_another_go(clock: Clock) -> None:
    there = known()
    fail(there)
    clock.now_s += LIMIT_OPEN_S
    probe = there.admit(again=False)
    assert refused(there).code == "circuit_open"
    there.forget(probe)
    there.note(None, there.admit(again=False))
    assert there.health().working


@pytest.mark.parametrize(
    "other", [{"api_key": "another"}, {"proxy": "http://127.0.0.1:8"}, {"url": "http://127.0.0.1:10"}], ids=str
)
def test_o6_another_key_proxy_or_origin_is_not_affected(other: dict[str, str], clock: Clock) -> None:
    there = known()
    fail(there)
    there.note(RateLimitError("slowly", retry_after_s=30.0))
    there.note(AuthenticationError("no", code="clock_skew", offset_s=540.0))
    while there.spend():
        pass
    assert known() is there
    elsewhere = known(**other)
    assert elsewhere.health().working
    assert (elsewhere.pause(), elsewhere.offset_s, elsewhere.spend()) == (None, 0.0, True)
    assert there.pause() is not None


def test_g1_the_offset_is_kept_for_the_next_call() -> None:
    known().note(AuthenticationError("no", code="clock_skew", offset_s=540.0))
    known().note(AuthenticationError("no", offset_s=99.0))  # any status tells it; only a rejected signature counts
    assert known().offset_s == 540.0


def test_f14_the_pause_is_of_all_calls_and_tells_what_is_left(clock: Clock) -> None:
    known().note(RateLimitError("slowly", retry_after_s=30.0))
    clock.now_s += 10
    pause = known().pause()
    assert pause is not None
    failure, turn_s = pause
    assert (failure.message, failure.retry_after_s, turn_s) == ("slowly", 20.0, 20.0)
    clock.now_s += 20
    assert known().pause() is None


def test_g2_the_wall_clock_may_jump(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    there = known()
    there.note(RateLimitError("slowly", retry_after_s=30.0))  # an answer: it would close the circuit
    fail(there)
    for jump_s in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda now_s=jump_s: now_s)
        pause = there.pause()
        assert pause is not None
        assert pause[0].retry_after_s == 30.0
        assert there.health().again_s == 1.0


def test_calls_that_are_refused_bring_no_budget_and_neither_do_retries(clock: Clock) -> None:
    there = known()
    while there.spend():
        pass
    for _ in range(100):
        there.note(None, there.admit(again=True))
    assert not there.spend()
    fail(there, 1000)
    while there.spend():
        pass
    for _ in range(100):
        refused(there)
    assert not there.spend()


def test_over_the_limit_the_one_that_was_asked_first_is_forgotten() -> None:
    first, second = known(api_key="first"), known(api_key="second")
    for number in range(LIMIT_ENDPOINTS - 1):
        known(api_key=f"key-{number}")
    assert len(health._endpoints) == LIMIT_ENDPOINTS
    assert known(api_key="second") is second
    assert known(api_key="first") is not first


def test_threads_share_one_endpoint_and_lose_no_count() -> None:
    began = threading.Barrier(8)

    def work(_number: int) -> Endpoint:
        began.wait()
        there = known()
        for _ in range(500):
            there.note(None, there.admit(again=False))
            if there.spend():
                there.give_back()
        return there

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(work, range(8)))
    assert len(found) == 1
    [there] = found
    assert sum(there.spend() for _ in range(100)) == 10


def test_o7_a_forks_child_begins_with_a_closed_circuit_even_when_a_lock_was_held(clock: Clock) -> None:
    there = known()
    fail(there)
    with there._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if known().health().working and known() is not there else 2
            except FlowGPTError:
                code = 3
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not there.health().working
