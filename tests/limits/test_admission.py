"""Admission: a clock of numbers, and a model that counts the slow way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.errors import FlowGPTError, InvalidRequestError, RateLimitError, ServiceUnavailableError
from flowgpt.limits import admission
from flowgpt.limits.admission import Admission

EXAMPLES = settings(max_examples=100)


def told(refused: FlowGPTError | None) -> tuple[type[FlowGPTError], str, float | None] | None:
    return None if refused is None else (type(refused), refused.code, refused.retry_after_s)


ALL = (ServiceUnavailableError, "overloaded", 1.0)
KEY = (RateLimitError, "rate_limited", 1.0)


def test_i9_i11_more_answers_than_there_may_be_are_refused_at_once_until_one_ends() -> None:
    limits = Admission(3, 3, 1000)
    assert [told(limits.enter(key, 0.0)) for key in "abcd"] == [None, None, None, ALL]
    limits.leave("b")
    assert told(limits.enter("d", 0.0)) is None
    assert told(limits.enter("b", 0.0)) == ALL


def test_i10_a_greedy_key_is_refused_and_the_others_are_not() -> None:
    limits = Admission(10, 2, 1000)
    assert [told(limits.enter("greedy", 0.0)) for _ in range(4)] == [None, None, KEY, KEY]
    assert [told(limits.enter("modest", 0.0)) for _ in range(2)] == [None, None]
    limits.leave("greedy")
    assert [told(limits.enter("greedy", 0.0)) for _ in range(2)] == [None, KEY]


def test_i10_where_both_limits_are_reached_the_greedy_key_hears_of_its_own() -> None:
    limits = Admission(2, 2, 1000)
    assert [told(limits.enter("greedy", 0.0)) for _ in range(3)] == [None, None, KEY]
    assert told(limits.enter("modest", 0.0)) == ALL


def test_a_refusal_is_a_429_or_a_503_that_may_be_tried_again() -> None:
    limits = Admission(1, 1, 1000)
    limits.enter("a", 0.0)
    refused = limits.enter("a", 0.0)
    assert isinstance(refused, RateLimitError)
    assert (refused.status_code, refused.retriable, refused.attempts) == (429, True, 0)
    everybody = limits.enter("b", 0.0)
    assert everybody is not None
    assert everybody.retriable


def test_several_answers_of_one_request_count_each_and_all_or_none_come_in() -> None:
    limits = Admission(5, 4, 1000)
    assert told(limits.enter("a", 0.0, 3)) is None
    assert told(limits.enter("a", 0.0, 2)) == KEY
    assert told(limits.enter("b", 0.0, 3)) == ALL
    assert told(limits.enter("b", 0.0, 2)) is None
    limits.leave("a", 3)
    assert told(limits.enter("a", 0.0, 3)) is None


@pytest.mark.parametrize(("most", "most_per_key"), [(2, 9), (9, 2)])
def test_what_can_never_be_is_no_matter_of_waiting(most: int, most_per_key: int) -> None:
    refused = Admission(most, most_per_key, 1000).enter("a", 0.0, 3)
    assert isinstance(refused, InvalidRequestError)
    assert (refused.param, refused.retry_after_s, refused.retriable) == ("n", None, False)


# --- the rate -------------------------------------------------------------------------------------------------------


def ask(limits: Admission, key: str, now_s: float) -> float | None:
    """A request that is over at once; how long to wait when it is refused."""
    refused = limits.enter(key, now_s)
    if refused is None:
        limits.leave(key)
        return None
    assert isinstance(refused, RateLimitError)
    return refused.retry_after_s


@pytest.mark.parametrize("per_minute", [1, 7, 60, 6000])
@pytest.mark.parametrize("now_s", [0.0, 1e6 / 3, 1e9 / 7])
def test_a_minutes_worth_may_come_at_once_and_then_one_an_interval(per_minute: int, now_s: float) -> None:
    limits = Admission(10, 10, per_minute)
    assert [ask(limits, "a", now_s) for _ in range(per_minute)] == [None] * per_minute
    wait_s = ask(limits, "a", now_s) or 0.0
    assert wait_s == pytest.approx(60 / per_minute, abs=1e-3)
    assert ask(limits, "b", now_s) is None, "another key"
    for _ in range(3):
        now_s += wait_s
        assert ask(limits, "a", now_s) is None, "the wait was honest"
        assert ask(limits, "a", now_s) is not None


def test_what_is_refused_does_not_count() -> None:
    limits = Admission(10, 10, 2)
    assert [ask(limits, "a", 0.0) for _ in range(9)] == [None, None] + [pytest.approx(30.0)] * 7
    assert [ask(limits, "a", 30.0) for _ in range(2)] == [None, pytest.approx(30.0)]
    limits = Admission(1, 1, 2)
    limits.enter("a", 0.0)
    assert [told(limits.enter("a", 0.0)) for _ in range(5)] == [KEY] * 5
    limits.leave("a")
    assert ask(limits, "a", 0.0) is None


@EXAMPLES
@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.booleans()), max_size=80),
    per_minute=st.integers(1, 20),
)
def test_no_limit_is_ever_exceeded_and_each_wait_that_is_kept_is_enough(
    steps: list[tuple[str, float, bool]], per_minute: int
) -> None:
    limits, now_s = Admission(4, 3, per_minute), 0.0
    inside: list[str] = []
    entered: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for key, pause_s, leaves in steps:
        now_s += pause_s
        if leaves and inside:
            limits.leave(inside.pop(0))
        refused = limits.enter(key, now_s)
        if refused is None:
            inside.append(key)
            entered[key].append(now_s)
        elif isinstance(refused, ServiceUnavailableError):
            assert len(inside) == 4
        elif inside.count(key) < 3:
            assert refused.retry_after_s is not None
            assert refused.retry_after_s > 0
        assert len(inside) <= 4
        assert inside.count(key) <= 3
    for times in entered.values():
        for first, start_s in enumerate(times):
            for last, end_s in enumerate(times[first:], 1):
                assert last <= per_minute + (end_s - start_s) * per_minute / 60 + 0.6


def test_any_number_of_names_takes_bounded_memory_and_forgets_who_used_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LIMIT_KEYS", 100)
    limits = Admission(10, 10, 2)
    assert [ask(limits, "greedy", 0.0) for _ in range(3)] == [None, None, pytest.approx(30.0)]
    for number in range(1000):
        assert ask(limits, f"name {number}", 0.0) is None
        assert len(limits._full_s) <= 100
        assert len(limits._streams) == 0
    assert ask(limits, "greedy", 0.0) == pytest.approx(30.0)


def test_nobodys_requests_count_among_all_alone() -> None:
    admission = Admission(max_streams=3, max_streams_per_key=1, requests_per_minute=1)

    assert [admission.enter("", 0.0) for _ in range(3)] == [None, None, None]
    assert isinstance(admission.enter("", 0.0), ServiceUnavailableError)
    admission.leave("")
    assert admission.enter("", 0.0, streams=1) is None
    admission.leave("", streams=3)
    assert admission.enter("", 0.0, streams=3) is None
