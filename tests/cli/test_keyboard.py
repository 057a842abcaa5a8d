"""Keys while an answer comes: not shown, whatever ends it; Ctrl-Z is shown in test_chat.py."""

from __future__ import annotations

import io
import os
import pty
import signal
import sys
import termios
from collections.abc import Iterator
from typing import NoReturn

import pytest

from flowgpt.cli.keyboard import unechoed


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    ours, theirs = pty.openpty()
    with open(theirs, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield theirs
    os.close(ours)


def _seen(terminal: int) -> NoReturn:
    assert not termios.tcgetattr(terminal)[3] & termios.ECHO
    raise KeyboardInterrupt


def test_keys_are_not_shown_and_the_terminal_is_as_it_was(terminal: int) -> None:
    before, stopped = termios.tcgetattr(terminal), signal.getsignal(signal.SIGTSTP)
    assert before[3] & termios.ECHO
    with pytest.raises(KeyboardInterrupt), unechoed():
        _seen(terminal)

    assert termios.tcgetattr(terminal) == before
    assert signal.getsignal(signal.SIGTSTP) == stopped


@pytest.mark.parametrize("stdin", [None, io.StringIO()])
def test_where_nobody_types_nothing_happens(monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    stopped = signal.getsignal(signal.SIGTSTP)
    with unechoed():
        assert signal.getsignal(signal.SIGTSTP) == stopped
