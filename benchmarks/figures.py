"""Samples taken in turn, and the lines that show them. Nothing is measured in here."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

ROUNDS = 9
"""How many samples each variant gives, if its room does not say otherwise."""


class WrongResult(Exception):
    """A variant did not give what was sent: its speed means nothing."""


def expect(found: object, expected: object, what: str) -> None:
    """Raises: WrongResult, naming `what`, unless the two are equal."""
    if found != expected:
        raise WrongResult(what)


def in_turn(variants: Mapping[str, Callable[[], float]], *, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Run the variants A B C, A B C …: what a busy machine does to one, it does to all.

    Returns each one's samples; those of the first round, which warms up, are left out.
    """
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            gc.collect()
            sample = run()
            if number:
                samples[name].append(sample)
    return samples


def show(name: str, samples: Sequence[float], unit: str) -> None:
    """One line: the median, and the spread."""
    middle, low, high = (_number(value) for value in (statistics.median(samples), min(samples), max(samples)))
    print(f"  {name:<26}{middle:>9} {unit}  ({low} to {high})")


def ratio(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    target: tuple[Literal["≤", "≥"], float] | None = None,
) -> None:
    """One line: the median of the ratios of each round, its spread, and how it stands to the target."""
    verdict(name, [one / other for one, other in zip(above, below, strict=True)], "×", target)


def verdict(name: str, samples: Sequence[float], unit: str, target: tuple[Literal["≤", "≥"], float] | None) -> None:
    """One line: the median, its spread, and whether it meets the target."""
    middle = statistics.median(samples)
    words = f"({_number(min(samples))} to {_number(max(samples))})" if any(a != b for a, b in pairwise(samples)) else ""
    if target is not None:
        sign, limit = target
        met = middle <= limit if sign == "≤" else middle >= limit
        words += f"  target {sign} {limit:g}: {'met' if met else 'MISSED'}"
    print(f"  {name:<26}{_number(middle):>9} {unit}  {words.strip()}")


def _number(value: float) -> str:
    """Three figures."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"
