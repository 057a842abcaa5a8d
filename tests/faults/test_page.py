"""docs/faults.md is what the tests' names say, and the names are read as they are meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("function", "case", "expected"),
    [
        ("test_a4_a_refused_connection", "", ["A4"]),
        ("test_n11_m7_no_id_or_name", "1-x", ["N11", "M7"]),
        ("test_what_ends", "C7 a length too long, FIN-asyncio", ["C7"]),
        ("test_a1_what_ends", "A4 A5 silence", ["A1", "A4", "A5"]),
        ("test_a_fault_k1", "before C7", []),
        ("test_a4", "C7", []),
        ("test_q1_there_is_no_such_group", "Q1 none", []),
    ],
)
def test_ids_stand_at_the_start_of_a_functions_name_or_a_cases(function: str, case: str, expected: list[str]) -> None:
    assert page.ids(function, case) == expected


def test_every_fault_has_its_test_or_the_reason_for_having_none_and_the_page_says_which(
    request: pytest.FixtureRequest,
) -> None:
    """From what this run has collected, when that is everything; else all is collected for it."""
    collected = {item.path for item in request.session.items}
    files = {file for file in (ROOT / "tests").rglob("test_*.py") if "clients" not in file.parts}
    if collected == files and not request.config.option.keyword and not request.config.option.markexpr:
        made = page.page(request.session.items)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        made = done.stdout

    assert made == (ROOT / "docs" / "faults.md").read_text("utf-8"), "python -m tests.faults > docs/faults.md"
