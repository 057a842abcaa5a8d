"""The circuit breaker: when it opens, whom it lets probe, and what closes it. Time and chance are arguments."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flowgpt.errors import RETRY_CLASSES
from flowgpt.limits.breaker import FAILURES, FIRST_OPEN_S, LEAST_CALLS, LIMIT_OPEN_S, NEUTRAL, WINDOW_S, Breaker, Health

DOWN = "service_unavailable"


def note(breaker: Breaker, code: str | None, now_s: float, times: int = 1, jitter: float = 0.0) -> None:
    """Attempts that are let in and end at once."""
    for _ in range(times):
        ticket = breaker.admit(now_s)
        assert ticket is not None
        breaker.note(ticket, code, now_s, jitter)


def opened(now_s: float = 100.0) -> Breaker:
    breaker = Breaker()
    note(breaker, DOWN, now_s, LEAST_CALLS)
    return breaker


def test_o1_it_opens_at_twenty_failures_and_says_since_when_and_why() -> None:
    breaker = Breaker()
    note(breaker, DOWN, 100.0, LEAST_CALLS - 1)
    assert breaker.health(100.0) == Health()
    note(breaker, DOWN, 100.0)
    assert breaker.health(100.25) == Health(False, 100.0, DOWN, 0.75)
    assert breaker.admit(100.99) is None
    assert (breaker.health(100.5).asked, breaker.health(101.0).asked) == (False, True)


@pytest.mark.parametrize(
    ("good", "failures", "working"), [(4, 16, False), (5, 15, True), (20, 79, True), (20, 80, False)]
)
def test_o2_it_opens_at_four_failures_of_five_and_not_before(good: int, failures: int, working: bool) -> None:
    breaker = Breaker()
    note(breaker, None, 100.0, good)
    note(breaker, DOWN, 100.0, failures)
    assert breaker.health(100.0).working is working


def test_o2_half_of_all_calls_may_fail_for_ever() -> None:
    breaker = Breaker()
    for second in range(600):
        note(breaker, DOWN, float(second), 10)
        note(breaker, None, float(second), 10)
    assert breaker.health(600.0).working


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker = Breaker()
    note(breaker, DOWN, 100.0, LEAST_CALLS - 1)
    note(breaker, DOWN, 100.0 + WINDOW_S)
    assert breaker.health(110.0).working


def test_o1_one_probe_goes_and_its_reply_closes_the_circuit() -> None:
    breaker = opened()
    probe = breaker.admit(101.0)
    assert probe is not None
    assert [breaker.admit(101.0), breaker.admit(105.9)] == [None, None]
    breaker.note(probe, None, 105.9, 0.0)
    assert breaker.health(105.9) == Health()


def test_o1_each_probe_that_fails_doubles_the_wait_from_one_to_five_seconds() -> None:
    breaker, now_s = opened(), 100.0
    for open_s in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert breaker.health(now_s).again_s == open_s
        now_s += open_s
        note(breaker, DOWN, now_s)
    assert (FIRST_OPEN_S, LIMIT_OPEN_S) == (1.0, 5.0)
    assert breaker.health(now_s).since_s == 100.0


@pytest.mark.parametrize(("jitter", "again_s"), [(0.0, 1.0), (0.5, 0.75), (0.999, 0.5005)])
def test_o3_the_wait_is_random_down_to_its_half(jitter: float, again_s: float) -> None:
    breaker = Breaker()
    note(breaker, DOWN, 100.0, LEAST_CALLS, jitter)
    assert breaker.health(100.0).again_s == pytest.approx(again_s)


def test_a_probe_that_hangs_lets_another_go_and_may_still_close_the_circuit() -> None:
    breaker = opened()
    hanging = breaker.admit(101.0)
    assert hanging is not None
    assert breaker.admit(101.0 + LIMIT_OPEN_S) is not None
    breaker.note(hanging, None, 107.0, 0.0)
    assert breaker.health(107.0).working


def test_h1_a_probe_that_is_given_up_lets_another_go_at_once() -> None:
    breaker = opened()
    probe = breaker.admit(101.0)
    assert probe is not None
    breaker.forget(probe, 101.5)
    assert breaker.admit(101.5) is not None
    assert breaker.admit(101.5) is None


def test_what_was_sent_before_the_circuit_opened_is_no_probe() -> None:
    """Neither its end nor its failure makes way for another; nor is it a sign of life of now."""
    breaker = Breaker()
    old = [breaker.admit(99.0) for _ in range(3)]
    note(breaker, DOWN, 100.0, LEAST_CALLS)
    assert breaker.admit(101.0) is not None
    for ticket, code in zip(old, (DOWN, None, "client_closed"), strict=True):
        assert ticket is not None
        breaker.note(ticket, code, 101.0, 0.0)
        breaker.forget(ticket, 101.0)
    assert breaker.health(101.0) == Health(False, 100.0, DOWN, 5.0)


def test_failures_of_what_was_sent_before_the_circuit_closed_do_not_open_it_again() -> None:
    """A thousand calls that time out after the outage."""
    breaker = Breaker()
    old = [breaker.admit(99.0) for _ in range(1000)]
    note(breaker, DOWN, 100.0, LEAST_CALLS)
    note(breaker, None, 101.0)
    for ticket in old:
        assert ticket is not None
        breaker.note(ticket, "header_timeout", 102.0, 0.0)
    assert breaker.health(102.0).working


ANSWERS = [
    *("bad_request", "authentication_failed", "clock_skew", "permission_denied", "challenge", "not_found"),
    *("rate_limited", "quota_exceeded", "request_timeout", "too_early", "empty_reply", "not_a_stream"),
]


@pytest.mark.parametrize("code", [*ANSWERS, *sorted(NEUTRAL)])
def test_o5_no_refusal_and_no_fault_of_ours_opens_the_circuit(code: str) -> None:
    breaker = Breaker()
    note(breaker, code, 100.0, 1000)
    assert breaker.health(100.0).working


@pytest.mark.parametrize("code", ANSWERS)
def test_o5_a_refusal_is_an_answer_and_closes_the_circuit(code: str) -> None:
    breaker = opened()
    note(breaker, code, 101.0)
    assert breaker.health(101.0).working


@pytest.mark.parametrize("code", sorted(NEUTRAL))
def test_what_says_nothing_of_the_service_leaves_the_circuit_open(code: str) -> None:
    breaker = opened()
    note(breaker, code, 101.0)
    assert breaker.health(101.0) == Health(False, 100.0, DOWN, 0.0)


def test_no_code_is_of_two_kinds() -> None:
    assert not FAILURES & NEUTRAL
    assert set(RETRY_CLASSES) >= {"service_unavailable", "connect_error"}


class Model(RuleBasedStateMachine):
    """The breaker against its rules in plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.breaker = Breaker()
        self.going: list[tuple[int, int]] = []  # (ticket, the age in which it was given)
        self.age = 0
        self.ends: list[tuple[int, bool]] = []  # of this age: second, failed
        self.open_s: float | None = None
        self.probe_s = 0.0

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(times=st.integers(1, 30))
    def admit(self, times: int) -> None:
        for _ in range(times):
            ticket = self.breaker.admit(self.now_s)
            expected = self.open_s is None or self.now_s >= self.probe_s
            assert (ticket is not None) is expected
            if ticket is not None:
                self.going.append((ticket, self.age))
                self.probe_s = self.now_s + LIMIT_OPEN_S

    @rule(times=st.integers(1, 30), which=st.integers(0), code=st.sampled_from([None, DOWN, DOWN, "bad_request", None]))
    def note(self, times: int, which: int, code: str | None) -> None:
        for _ in range(min(times, len(self.going))):
            ticket, age = self.going.pop(which % len(self.going))
            self.breaker.note(ticket, code, self.now_s, 0.0)
            if age == self.age:
                self._tell(code == DOWN)

    def _tell(self, failed: bool) -> None:
        if self.open_s is None:
            self.ends.append((int(self.now_s), failed))
            recent = [failed for second, failed in self.ends if second > self.now_s - WINDOW_S]
            if failed and len(recent) >= 20 and sum(recent) >= 0.8 * len(recent):
                self.open_s, self.age, self.probe_s = 1.0, self.age + 1, self.now_s + 1.0
        elif failed:
            self.open_s = min(2 * self.open_s, 5.0)
            self.probe_s = self.now_s + self.open_s
        else:
            self.open_s, self.age, self.ends = None, self.age + 1, []

    @rule(which=st.integers(0), neutral=st.booleans())
    def forget(self, which: int, neutral: bool) -> None:
        if self.going:
            ticket, age = self.going.pop(which % len(self.going))
            if neutral:
                self.breaker.note(ticket, "client_closed", self.now_s, 0.0)
            else:
                self.breaker.forget(ticket, self.now_s)
            if age == self.age:
                self.probe_s = self.now_s

    @invariant()
    def the_state_is_the_models(self) -> None:
        health = self.breaker.health(self.now_s)
        assert health.working is (self.open_s is None)
        assert health.working or health.again_s == max(0.0, self.probe_s - self.now_s)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestModel = Model.TestCase
