"""Samples taken in turn, and the table that holds them: what a room measures, `results` renders and `plots` draws.

Nothing is measured in here, and nothing is written.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

ROUNDS = 5
"""How many samples each variant gives, if its room does not say otherwise."""

Target = tuple[Literal["≤", "≥"], float]


class WrongResult(Exception):
    """A variant did not give what was sent: its speed means nothing."""


def expect(found: object, expected: object, what: str) -> None:
    """Raises: WrongResult, naming `what`, unless the two are equal."""
    if found != expected:
        raise WrongResult(f"{what}: {found!r} instead of {expected!r}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure that has a target, or a ratio: a sample for each round."""

    name: str
    samples: Sequence[float]
    unit: str = "×"
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None when there is none."""
        if self.target is None:
            return None
        sign, limit = self.target
        middle = statistics.median(self.samples)
        return middle <= limit if sign == "≤" else middle >= limit


@dataclass(slots=True)
class Table:
    """What a room found. A row is a variant, a column a measure with its unit, a cell the samples, one a round.

    A cell may be missing. `notes` say what a reader must know, the load of the measuring programs first.
    """

    title: str
    cells: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The measures, in the order in which they first came."""
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))

    def measure(self, variants: Mapping[str, Callable[[], Mapping[str, float]]], *, rounds: int = ROUNDS) -> None:
        """Run the variants A B C, A B C …, and add what they return: what a busy machine does to one, it does to all.

        The figures of the first round, which warms up, are left out, when there are several.
        """
        for number in range(rounds + 1) if rounds > 1 else (1,):
            for name, run in variants.items():
                gc.collect()
                for column, sample in run().items():
                    samples = self.cells.setdefault(name, {}).setdefault(column, [])
                    if number:
                        samples.append(sample)

    def ratio(self, column: str, above: str, below: str, target: Target | None = None) -> None:
        """Add the claim of `above ÷ below` in that column: the ratio of each round, taken close together."""
        pairs = zip(self.cells[above][column], self.cells[below][column], strict=True)
        measure = column.partition(", ")[0]
        self.claims.append(Claim(f"{measure}: {above} ÷ {below}", [one / other for one, other in pairs], "×", target))

    def difference(self, column: str, above: str, below: str, unit: str, target: Target | None = None) -> None:
        """Add the claim of `above - below` in that column, round by round."""
        pairs = zip(self.cells[above][column], self.cells[below][column], strict=True)
        self.claims.append(
            Claim(f"{column}: {above} above {below}", [one - other for one, other in pairs], unit, target)
        )

    def growth(self, row: str, above: str, below: str, target: Target | None = None) -> None:
        """Add the claim of one column ÷ another, in the same row."""
        pairs = zip(self.cells[row][above], self.cells[row][below], strict=True)
        self.claims.append(Claim(f"{row}: {above} ÷ {below}", [one / other for one, other in pairs], "×", target))

    def claim(self, column: str, row: str, unit: str, target: Target | None) -> None:
        """Add the claim of a cell itself."""
        self.claims.append(
            Claim(f"{column.rpartition(', ')[0] or column}: {row}", self.cells[row][column], unit, target)
        )


def middle(samples: Sequence[float]) -> str:
    """The median, and the spread when there is one: `3.50 (3.40 to 3.61)`."""
    low, high = min(samples), max(samples)
    spread = f" ({number(low)} to {number(high)})" if low != high else ""
    return number(statistics.median(samples)) + spread


def number(value: float) -> str:
    """Three figures."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"
