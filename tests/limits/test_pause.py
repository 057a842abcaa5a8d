"""The pause after a 429: whom it stops, for how long, and with which words."""

from __future__ import annotations

import pytest

from flowgpt.errors import FlowGPTError, InternalServerError, QuotaExceededError, RateLimitError
from flowgpt.limits.pause import LIMIT_PAUSE_S, Pause


def limited(seconds: float | None, message: str = "slow down", **facts: object) -> RateLimitError:
    return RateLimitError(message, status_code=429, retry_after_s=seconds, **facts)


def left(pause: Pause, now_s: float) -> float | None:
    failure = pause.left(now_s)
    return None if failure is None else failure.retry_after_s


def test_f14_all_calls_get_the_same_429_with_the_time_that_is_left() -> None:
    pause = Pause()
    pause.note(limited(30.0, hint="wait", request_id="r1", attempts=3, partial_text="Hel"), 1000.0)
    failure = pause.left(1010.5)
    assert type(failure) is RateLimitError
    assert (failure.message, failure.code, failure.status_code, failure.hint, failure.request_id) == (
        "slow down",
        "rate_limited",
        429,
        "wait",
        "r1",
    )
    assert failure.retry_after_s == 19.5
    assert (failure.attempts, failure.partial_text, failure.retriable) == (0, "", True)
    assert left(pause, 1029.9) == pytest.approx(0.1)
    assert (left(pause, 1030.0), left(pause, 2000.0)) == (None, None)


def test_without_a_429_there_is_no_pause() -> None:
    assert Pause().left(0.0) is None
    assert Pause().left(1e9) is None


@pytest.mark.parametrize(
    "failure",
    [
        limited(None),
        QuotaExceededError("no credit", status_code=402, retry_after_s=30.0),
        InternalServerError("down", status_code=503, retry_after_s=30.0),
        FlowGPTError("other", retry_after_s=30.0),
        ValueError("none of ours"),
    ],
)
def test_only_a_429_that_says_how_long_begins_one(failure: Exception) -> None:
    pause = Pause()
    pause.note(failure, 0.0)
    assert pause.left(0.0) is None


def test_f18_a_wish_of_more_than_an_hour_is_believed_for_an_hour() -> None:
    pause = Pause()
    pause.note(limited(4e9), 5.0)
    assert left(pause, 5.0) == LIMIT_PAUSE_S == 3600
    assert left(pause, 5.0 + 3600) is None


def test_of_several_wishes_the_latest_end_counts() -> None:
    pause = Pause()
    pause.note(limited(30.0, "first"), 0.0)
    pause.note(limited(5.0, "short"), 10.0)
    assert left(pause, 20.0) == 10.0
    pause.note(limited(30.0, "longer"), 20.0)
    failure = pause.left(20.0)
    assert failure is not None
    assert (failure.message, failure.retry_after_s) == ("longer", 30.0)
    assert left(pause, 50.0) is None
    pause.note(limited(1.0, "again"), 60.0)
    assert left(pause, 60.5) == 0.5


def test_a_pause_that_is_handed_on_and_noted_again_does_not_last_longer() -> None:
    pause = Pause()
    pause.note(limited(30.0), 0.0)
    for now_s in (10.0, 20.0):
        failure = pause.left(now_s)
        assert failure is not None
        pause.note(failure, now_s)
    assert left(pause, 29.0) == 1.0
    assert left(pause, 30.0) is None


def test_it_holds_nothing_of_the_call_that_failed() -> None:
    pause = Pause()
    try:
        raise limited(30.0)
    except RateLimitError as failure:
        pause.note(failure, 0.0)
    told = pause.left(0.0)
    assert told is not None
    assert told.__traceback__ is None
    assert pause._failure is not None
    assert pause._failure.__traceback__ is None


def test_f14_o3_who_waits_goes_after_the_end_the_more_wait_the_more_spread() -> None:
    pause = Pause()
    pause.note(limited(30.0), 100.0)
    assert pause.turn(110.0, 0.0) == 20.0
    assert pause.turn(110.0, 0.5) == pytest.approx(20.0 + 0.5 * 0.3 * 2)
    turns = [pause.turn(110.0, 0.999) for _ in range(1000)]
    assert max(turns) == pytest.approx(20.0 + 0.999 * 90.0)
    assert turns == sorted(turns)


def test_the_next_pause_begins_with_nobody_waiting() -> None:
    pause = Pause()
    pause.note(limited(3.0), 100.0)
    for _ in range(1000):
        pause.turn(101.0, 0.5)
    pause.note(limited(3.0), 200.0)
    assert pause.turn(200.0, 0.5) == pytest.approx(3.15)
