"""The decisions together, by the simulation of benchmarks/fleet.py: the figures are always the same."""

from __future__ import annotations

import pytest

from benchmarks import fleet

SEEDS = range(2)


@pytest.mark.parametrize(("calls", "most"), [(100, 1.20), (1000, 1.11)])
def test_o1_f21_an_outage_is_not_met_with_a_multiple_of_the_calls(calls: int, most: float) -> None:
    assert 1 < max(fleet.amplification(calls, seed) for seed in SEEDS) <= most


def test_o1_with_the_breaker_next_to_nothing_is_sent_in_an_outage() -> None:
    assert 0 < fleet.sustained(0) <= 0.02


def test_at_ten_percent_failures_nearly_all_calls_are_served() -> None:
    assert 0.985 <= fleet.success(0) < 1


def test_o2_at_half_of_all_calls_failing_the_circuit_stays_closed() -> None:
    assert max(fleet.openings(0.5, 10, seed) for seed in SEEDS) == 0
    assert fleet.openings(0.95, 10, 0) > 0


def test_o2_of_a_flapping_service_at_most_a_quarter_of_what_could_be_served_is_refused() -> None:
    assert 0 < fleet.shed(0) <= 0.25


@pytest.mark.parametrize("rate", [10, 100])
def test_o1_it_is_back_within_five_seconds_of_the_services_recovery(rate: float) -> None:
    assert max(fleet.recovery_s(rate, seed) for seed in SEEDS) <= 5


@pytest.mark.parametrize(
    ("fate", "end_s"), [(fleet.outage(20, 60), 60.0), (fleet.limiting(20, 3), 23.0)], ids=["an outage", "a pause"]
)
def test_o3_a_thousand_clients_are_no_herd_afterwards(fate: fleet.Fate, end_s: float) -> None:
    assert 0.5 < max(fleet.peak(fate, end_s, 5, seed) for seed in SEEDS) <= 1.5
