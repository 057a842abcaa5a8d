"""A batch tells its events in wire order."""

from __future__ import annotations

import dataclasses

import pytest

from flowgpt.messages import Batch, Event

A, B, X, Y = Event("text", "a"), Event("text", "b"), Event("x"), Event("y", 1)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], [A, B]),
        ([(0, X)], [X, A, B]),
        ([(1, X)], [A, X, B]),
        ([(2, X)], [A, B, X]),
        ([(0, X), (0, Y)], [X, Y, A, B]),
        ([(1, Y), (1, X)], [A, Y, X, B]),
        ([(0, X), (1, Y), (2, X)], [X, A, Y, B, X]),
    ],
)
def test_the_other_events_stand_where_they_came(others: list[tuple[int, Event]], expected: list[Event]) -> None:
    assert Batch(["a", "b"], others).events() == expected


def test_a_batch_of_nothing_has_no_events() -> None:
    assert Batch().events() == []
    assert Batch([], [(0, X)]).events() == [X]


def test_telling_the_events_changes_nothing() -> None:
    batch = Batch(["a", "b"], [(1, X)])

    assert batch.events() == batch.events()
    assert batch == Batch(["a", "b"], [(1, X)])


def test_two_batches_share_nothing() -> None:
    Batch().texts.append("a")

    assert Batch().texts == []


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        A.name = "x"  # type: ignore[misc]  # that it is refused is the point

    assert Event("x") == Event("x", None) != Event("x", 0)
