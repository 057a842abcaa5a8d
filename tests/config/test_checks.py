"""What a value must be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from flowgpt.config import Options, Timeouts
from flowgpt.errors import InvalidRequestError


@pytest.mark.parametrize("part", [field.name for field in dataclasses.fields(Timeouts)])
def test_each_part_of_a_timeout_is_a_positive_number_or_none(part: str) -> None:
    assert getattr(Timeouts(**{part: 0.5}), part) == 0.5
    assert getattr(Timeouts(**{part: None}), part) is None
    for bad in (0, -1, float("nan"), float("inf"), "1", True, 10**400, [1]):
        with pytest.raises(InvalidRequestError, match=part):
            Timeouts(**{part: bad})  # type: ignore[arg-type]


def test_a_number_is_the_deadline_of_the_whole_reply_and_a_table_says_it_in_parts(file: Path) -> None:
    assert Options.resolve(timeout=5).timeout == Timeouts(total_s=5)
    assert Options.resolve(timeout=Timeouts(head_s=5)).timeout == Timeouts(head_s=5)
    file.write_text("[timeout]\nhead_s = 5\nidle_s = 1.5\n")
    assert Options.resolve().timeout == Timeouts(head_s=5, idle_s=1.5)


@pytest.mark.parametrize("text", ["soon", "nan", "-1", "1e999", "0"])
def test_i22_a_bad_variable_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_TIMEOUT", text)
    with pytest.raises(InvalidRequestError, match=r"^FLOWGPT_TIMEOUT: "):
        Options.resolve()
    assert Options.resolve(timeout=1).timeout.total_s == 1, "an argument makes it not matter"
