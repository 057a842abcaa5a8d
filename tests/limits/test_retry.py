"""The decision after a failure, and the header that asks for a wait: pure tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowgpt.errors import RETRY_CLASSES, FlowGPTError, ProtocolError
from flowgpt.limits.retry import (
    BUDGET_BURST,
    FIRST_WAIT_S,
    FREE,
    LIMIT_RETRY_AFTER_S,
    LIMIT_WAIT_S,
    Budget,
    GiveUp,
    Policy,
    Wait,
    retry_after_s,
)

EXAMPLES = settings(max_examples=100)


def failure(code: str, **facts: object) -> FlowGPTError:
    return FlowGPTError("it failed", code=code, **facts)


def decide(
    error: FlowGPTError, *, attempt: int = 1, retries: int = 2, left_s: float | None = None, jitter: float = 0.5
) -> Wait | GiveUp:
    return Policy(retries).after(error, attempt=attempt, time_left_s=left_s, jitter=jitter)


@pytest.mark.parametrize(
    ("code", "retries", "sends"),
    [
        ("connect_error", 2, 3),
        ("connect_error", 0, 1),
        ("connect_error", 5, 6),
        ("server_error", 2, 2),
        ("server_error", 1, 2),
        ("server_error", 0, 1),
        ("server_error", 9, 2),
        ("bad_request", 9, 1),
        ("anything else", 9, 1),
    ],
)
def test_safe_failures_are_sent_again_as_often_as_allowed_ambiguous_ones_once(
    code: str, retries: int, sends: int
) -> None:
    decisions = [decide(failure(code), attempt=attempt, retries=retries) for attempt in range(1, 12)]
    assert [type(decision) for decision in decisions] == [Wait] * (sends - 1) + [GiveUp] * (12 - sends)


@pytest.mark.parametrize(
    ("code", "asked_s", "sends"),
    [
        ("connect_error", None, 3),
        ("service_unavailable", None, 3),
        ("service_unavailable", 1.0, 1),
        ("rate_limited", None, 1),
        ("rate_limited", 1.0, 1),
        ("server_error", None, 1),
        ("stream_truncated", None, 1),
        ("bad_request", None, 1),
    ],
)
def test_with_safe_retries_only_nothing_is_asked_twice_and_no_wish_of_the_service_is_waited_for(
    code: str, asked_s: float | None, sends: int
) -> None:
    error = failure(code, retry_after_s=asked_s)
    policy = Policy(2, safe_only=True)
    decisions = [policy.after(error, attempt=attempt, time_left_s=None, jitter=0.5) for attempt in range(1, 4)]
    assert [type(decision) for decision in decisions] == [Wait] * (sends - 1) + [GiveUp] * (4 - sends)


def test_what_failed_says_itself_what_may_be_sent_again() -> None:
    """A fault's own row goes before the table of codes (F24: 521 is safe, 524 never, both `server_error`)."""
    assert isinstance(decide(failure("server_error", retry_class="safe"), attempt=2), Wait)
    assert isinstance(decide(failure("server_error", retry_class="never")), GiveUp)
    assert set(RETRY_CLASSES.values()) == {"safe", "ambiguous"}


@pytest.mark.parametrize(("attempt", "most_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (50, 8.0)])
def test_f15_the_wait_doubles_up_to_its_limit_and_is_random_from_zero(attempt: int, most_s: float) -> None:
    error = failure("connect_error")
    assert decide(error, attempt=attempt, retries=99, jitter=0.0) == Wait(0.0)
    assert decide(error, attempt=attempt, retries=99, jitter=0.5) == Wait(most_s / 2)
    assert most_s <= LIMIT_WAIT_S
    assert FIRST_WAIT_S * 2 == 1.0


def test_b2_a_closed_idle_connection_is_replaced_without_a_wait() -> None:
    assert decide(failure("connection_closed_idle"), jitter=0.9) == Wait(0.0)


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 3.0), (0.5, 3.15), (1.0, 3.3)])
def test_f14_the_services_wish_is_kept_and_at_most_a_tenth_more(jitter: float, seconds: float) -> None:
    decision = decide(failure("rate_limited", retry_after_s=3.0), jitter=jitter)
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("asked_s", "left_s", "waits"),
    [
        (LIMIT_RETRY_AFTER_S, None, True),
        (LIMIT_RETRY_AFTER_S + 1, None, False),
        (3600.0, None, False),
        (4e9, None, False),
        (3.0, 3.1, False),  # with its jitter it would be late
        (3.0, 4.0, True),
        (None, 0.0, False),
        (None, -1.0, False),
        (None, 9.0, True),
    ],
)
def test_f18_what_cannot_be_waited_for_is_given_up_at_once(
    asked_s: float | None, left_s: float | None, waits: bool
) -> None:
    decision = decide(failure("rate_limited", retry_after_s=asked_s), left_s=left_s, jitter=0.99)
    assert isinstance(decision, Wait) is waits
    assert waits or (isinstance(decision, GiveUp) and decision.reason)


@EXAMPLES
@given(
    code=st.sampled_from([*RETRY_CLASSES, "bad_event"]),
    attempt=st.integers(1, 2000),
    retries=st.integers(0, 2000),
    asked_s=st.none() | st.floats(0, allow_nan=False, exclude_min=True, allow_infinity=False),
    left_s=st.none() | st.floats(-10, 1e6),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_long_never_late_and_never_shorter_than_asked(
    code: str, attempt: int, retries: int, asked_s: float | None, left_s: float | None, jitter: float
) -> None:
    error = failure(code, retry_after_s=asked_s)
    decision = decide(error, attempt=attempt, retries=retries, left_s=left_s, jitter=jitter)
    if isinstance(decision, Wait) and code not in FREE:
        assert 0 <= decision.seconds <= LIMIT_RETRY_AFTER_S * 1.1
        assert asked_s is None or asked_s <= decision.seconds
        assert left_s is None or decision.seconds < left_s
        assert attempt <= retries
        assert error.retry_class != "never"


def test_a_protocol_error_is_not_sent_again() -> None:
    assert decide(ProtocolError("no")) == GiveUp("bad_event is not retried")


# --- Retry-After ----------------------------------------------------------------------------------------------------

NOW = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("120", 120.0),
        ("3600", 3600.0),
        ("4000000000", 4e9),
        ("007", 7.0),
        ("0", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("1_000", None),
        ("0x10", None),
        ("1, 2", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),
        ("\x1e120", None),  # str.strip takes it away, and float does not: once a crash, found by fuzzing
        ("\xa0120", None),
        ("\t120 ", 120.0),
        ("9" * 40, 1e40),
        ("9" * 64, 1e64),
        ("9" * 65, None),
        ("9" * 40_000, None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),  # the three forms of RFC 9110
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2015", 30.0),
        ("Mon, 21 Oct 2015 07:28:30 GMT", 30.0),  # the weekday is wrong, and says nothing
        ("21 Oct 2015 07:28:30", 30.0),  # no zone: GMT, as all HTTP dates
        ("Wed, 21 Oct 2015 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),  # now
        ("Wed, 21 Oct 2015 07:27:59 GMT", None),  # past
        ("Wed, 21 Oct 1015 07:28:30 GMT", None),
        ("Wed, 32 Oct 2015 07:28:30 GMT", None),
        ("Wed, 21 Oct 99999 07:28:30 GMT", None),
        ("Wed, 21 Oct 2015", None),
    ],
)
def test_f16_f17_a_retry_after_is_seconds_or_a_date_and_anything_else_is_nothing(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after_s(value, date=NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("date", [None, "", "yesterday", "9" * 500])
def test_f16_a_date_means_nothing_without_the_replys_own_date(date: str | None) -> None:
    """Never the local clock: it may be wrong by hours."""
    assert retry_after_s("Wed, 21 Oct 2115 07:28:30 GMT", date=date) is None
    assert retry_after_s("3", date=date) == 3.0


@settings(EXAMPLES, max_examples=100)  # fuzz/headers.py tries millions
@given(value=st.text() | st.from_regex(r"[A-Z][a-z]{2},? [0-9 :A-Za-z+-]*"), date=st.none() | st.just(NOW) | st.text())
@example(value="Wed, 21 Oct 2015 07:28:30 +9999", date=NOW)
@example(value="Wed, 21 Oct 2015 07:28:30 -99999999", date=NOW)
def test_f17_no_header_crashes_and_what_is_given_is_a_wait(value: str, date: str | None) -> None:
    seconds = retry_after_s(value, date=date)
    assert seconds is None or 0 < seconds < math.inf


# --- the budget and the pause ---------------------------------------------------------------------------------------


def test_o1_the_budget_is_a_burst_of_ten_and_a_tenth_of_all_calls() -> None:
    budget = Budget()
    assert [budget.spend() for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == BUDGET_BURST


@EXAMPLES
@given(steps=st.lists(st.sampled_from(["earn", "spend", "spend and leave"]), max_size=300))
def test_f21_no_more_is_sent_again_than_the_burst_and_a_tenth(steps: list[str]) -> None:
    budget, earned, spent = Budget(), 0, 0
    for step in steps:
        if step == "earn":
            budget.earn()
            earned += 1
        elif budget.spend():
            if step == "spend":
                spent += 1
            else:
                budget.give_back()
    assert spent <= BUDGET_BURST + earned / 10 + 0.05


def test_h1_what_is_given_back_can_be_spent_again_and_is_no_gain() -> None:
    budget = Budget()
    budget.give_back()
    assert sum(budget.spend() for _ in range(20)) == 10
    budget.give_back()
    assert [budget.spend(), budget.spend()] == [True, False]


@pytest.mark.parametrize("code", sorted(FREE))
def test_what_is_free_was_surely_not_processed_and_goes_at_once(code: str) -> None:
    assert decide(failure(code, retry_after_s=9.0), jitter=0.9) == Wait(0.0)
    assert decide(failure(code), attempt=3) == GiveUp("sent 3 times")


@pytest.mark.parametrize(
    ("turn_s", "left_s", "waits"),
    [(3.0, None, True), (LIMIT_RETRY_AFTER_S, None, True), (121.0, None, False), (3.0, 3.0, False), (3.0, 3.1, True)],
)
def test_f18_a_pause_is_waited_for_unless_it_is_long_or_would_end_too_late(
    turn_s: float, left_s: float | None, waits: bool
) -> None:
    decision = Policy().during(turn_s, time_left_s=left_s)
    assert decision == Wait(turn_s) if waits else isinstance(decision, GiveUp)


def test_with_safe_retries_only_a_pause_is_the_callers_affair() -> None:
    assert Policy(safe_only=True).during(1.0, time_left_s=None) == GiveUp("the wait is the caller's affair")
