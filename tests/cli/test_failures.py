"""The one table from error class to exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowgpt
from flowgpt.cli import failures
from flowgpt.errors import FlowGPTError
from tests.cli.conftest import PYTHON


def tree(kind: type[FlowGPTError] = FlowGPTError) -> Iterator[type[FlowGPTError]]:
    """Our classes, walked down; what tests derive is none of them."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == "flowgpt.errors":
            yield from tree(below)


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_class_has_an_entry_of_its_own_and_words_for_its_code(kind: type[FlowGPTError]) -> None:
    assert failures.EXIT_CODES[kind] in failures.WORDS


def test_each_kind_of_failure_has_a_code_that_no_other_kind_has() -> None:
    kinds = [
        flowgpt.InvalidRequestError,
        flowgpt.AuthenticationError,
        flowgpt.RateLimitError,
        flowgpt.APIConnectionError,
        flowgpt.APITimeoutError,
        flowgpt.StreamInterruptedError,
        flowgpt.ProtocolError,
        flowgpt.StoreError,
    ]

    assert [failures.exit_code(kind("words")) for kind in kinds] == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_stranger_s_error_has_the_code_of_the_nearest_class_above_it() -> None:
    class Slow(flowgpt.APITimeoutError):
        pass

    assert failures.exit_code(Slow("words")) == 6


def test_a_failure_is_one_line_and_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    failures.say("it failed\nat once", "try later")
    failures.say("again")

    assert capsys.readouterr() == ("", "flowgpt: it failed at once\nhint: try later\nflowgpt: again\n")


def test_an_error_is_told_with_the_next_step_and_how_long_to_wait(capsys: pytest.CaptureFixture[str]) -> None:
    failures.tell(flowgpt.RateLimitError("too many", hint="wait, and ask again", retry_after_s=30.0))
    failures.tell(FlowGPTError("it failed", retry_after_s=2.0))
    failures.tell(flowgpt.InvalidRequestError("temperature is wrong"))

    assert capsys.readouterr().err.splitlines() == [
        "flowgpt: too many",
        "hint: wait, and ask again (in 30 s)",
        "flowgpt: it failed",
        "hint: ask again (in 2 s)",
        "flowgpt: temperature is wrong",
    ]


@pytest.mark.parametrize("kind", list(tree()))
def test_no_hint_of_a_class_is_for_python_alone(kind: type[FlowGPTError]) -> None:
    assert not re.search(PYTHON, failures.hint(kind("words")) or "")


def test_the_terminal_s_words_go_before_the_library_s_and_are_for_codes_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text("utf-8")

    assert failures.hint(flowgpt.StreamInterruptedError("cut", hint="read partial_text")) == (
        "ask again; what came is on stdout"
    )
    assert failures.hint(flowgpt.StoreError("full", hint="check the disk")) == "check the disk"
    assert [code for code in failures.STEPS if f"| `{code}` |" not in page] == []
