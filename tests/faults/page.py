"""docs/faults.md, made of the tests' own names: which faults are tested, over which surfaces, and by what.

A test names the faults that it proves at the start of its function's name (`test_a4_b1_…`) or of its case's id
("A4 B1 …"). Nothing else counts, so that the page claims no more than there is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests.faults.rows import GROUPS, ROWS, UNTESTED

CASE = re.compile(r"(?:[A-P]\d+ )+")
TESTS = Path(__file__).parents[1]

PLACES = {
    "cli": "terminal",
    "embedded": "embedded server",
    "gateway": "gateway",
    "serving": "gateway",
    "store": "store",
    "test_bridge.py": "sync",
    "test_client.py": "sync",
    "test_supply.py": "build",
}
"""What a test is about, by the first part of its path; anything else is about the library."""

ORDER = ("library", "sync", "terminal", "gateway", "embedded server", "store", "build")

HEAD = """# Faults

What can go wrong, and the tests that prove that it ends as it must, for {tested} of {all} faults. Made by
`python -m tests.faults > docs/faults.md` from the names of the tests, so it claims no more than is tested; a test holds
that it is up to date.

**Tested over**: *library* is async Python, *sync* the client without async, *terminal* `flowgpt`, *gateway*
`flowgpt serve`. **The matrix** is one table of cases (`tests/faults/table.py`), each played over these four, the
gateway's streamed and whole answers apart: what of the text arrives, which class and code the failure has, which exit
code, which HTTP status or error frame. **Other tests** are named without their ids, with the number of their cases.
"""


def ids(function: str, case: str) -> list[str]:
    """The faults that a test names."""
    named = re.match(r"test_((?:[a-p]\d+_)+)", function)
    cased = CASE.match(case)
    return [*(named[1].upper().strip("_").split("_") if named else ()), *(cased[0].split() if cased else ())]


def sentence(function: str) -> str:
    """A function's name, as it reads."""
    return re.sub(r"^test_(?:[a-p]\d+_)*", "", function).replace("_", " ")


class Proof:
    """What proves one fault. `matrix`: the names of its cases there; `others`: how many of each other function."""

    def __init__(self) -> None:
        self.surfaces: set[str] = set()
        self.matrix: dict[str, None] = {}
        self.others: Counter[str] = Counter()

    def row(self, *before: str) -> str:
        """The line of the page."""
        surfaces = sorted(self.surfaces, key=ORDER.index)
        others = [words if count == 1 else f"{words} ({count})" for words, count in self.others.items()]
        return _row(*before, " · ".join(surfaces), " · ".join(self.matrix), " · ".join(others))


def proofs(items: Iterable[pytest.Item]) -> dict[str, Proof]:
    """What proves the faults, by their ids."""
    found: dict[str, Proof] = {}
    for item in items:
        assert isinstance(item, pytest.Function)
        callspec = getattr(item, "callspec", None)
        place = item.path.relative_to(TESTS).parts[0]
        for id_ in ids(item.originalname, callspec.id if callspec else ""):
            proof = found.setdefault(id_, Proof())
            if callspec and place == "faults":
                proof.matrix[CASE.sub("", callspec.params["name"])] = None
                proof.surfaces.add(callspec.params["surface"].partition("-")[0])
            else:
                proof.others[sentence(item.originalname)] += 1
                proof.surfaces.add(PLACES.get(place, "library"))
    return found


def page(items: Iterable[pytest.Item]) -> str:
    """docs/faults.md. Raises: ValueError for a fault that has neither test nor reason, or both, or that is unknown."""
    found = proofs(items)
    wrong = {
        "no test, and no reason in UNTESTED": ROWS.keys() - found.keys() - UNTESTED.keys(),
        "a test, and a reason for having none": found.keys() & UNTESTED.keys(),
        "no such fault": (found.keys() | UNTESTED.keys()) - ROWS.keys(),
    }
    if any(wrong.values()):
        raise ValueError("; ".join(f"{words}: {' '.join(_sorted(those))}" for words, those in wrong.items() if those))
    parts = [HEAD.format(tested=len(found), all=len(ROWS))]
    for letter, words in GROUPS.items():
        rows = [found[id_].row(id_, ROWS[id_]) for id_ in ROWS if id_[0] == letter and id_ in found]
        parts += [f"## {letter}. {words}\n", _table(["", "fault", "tested over", "the matrix", "other tests"], rows)]
    untested = [_row(id_, ROWS[id_], UNTESTED[id_]) for id_ in ROWS if id_ in UNTESTED]
    return "\n".join([*parts, "## Without a test\n", _table(["", "fault", "why"], untested)])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([_row(*heads), "|---" * len(heads) + "|", *rows, ""])


def _sorted(faults: Iterable[str]) -> list[str]:
    return sorted(faults, key=lambda id_: (id_[0], int(id_[1:])))
