"""The fuzzer's harnesses, run over their committed inputs: what is true of those is true in every run of the suite."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from fuzz import guard
from fuzz.cuts import cuts
from fuzz.replay import CORPUS, inputs

INPUTS = [(name, path) for name in guard.HARNESSES for path in inputs(CORPUS / name)]


@pytest.mark.parametrize(("name", "path"), INPUTS, ids=[f"{name}: {path.stem}" for name, path in INPUTS])
def test_a_committed_input_breaks_nothing(name: str, path: Path) -> None:
    data = path.read_bytes()
    assert [b"".join(pieces) for pieces in cuts(data)] == [data] * len(cuts(data))
    import_module(f"fuzz.{name}").check(data, cuts(data))


def test_each_harness_has_inputs_and_nothing_else_is_there() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {*guard.HARNESSES}
    assert {name for name, _ in INPUTS} == {*guard.HARNESSES}
    assert max(path.stat().st_size for _, path in INPUTS) < 1024


def test_what_takes_too_long_is_a_finding() -> None:
    with pytest.raises(guard.TooSlow):
        guard.spent_ms(lambda: None, -1.0)
    assert guard.spent_ms(lambda: None, float("inf")) >= 0
