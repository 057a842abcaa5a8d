"""The keys of a terminal while an answer comes: not shown, and the next prompt has them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


@contextlib.contextmanager
def unechoed() -> Iterator[None]:
    """Keys that are pressed while an answer comes do not appear in the middle of it; the next prompt has them.

    Ctrl-Z gives the terminal back as it was, cursor and echo, to the shell.
    """
    try:
        import termios  # not on Windows
    except ImportError:
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError, TypeError):  # TypeError: standard input is closed
        yield
        return
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]

    def stop(number: int, _frame: FrameType | None) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        os.write(1, SHOW_CURSOR)  # not through sys.stdout, which this may have interrupted
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # the process stands here, until it goes on
        signal.signal(number, stop)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
        os.write(1, HIDE_CURSOR)

    stopped = signal.signal(signal.SIGTSTP, stop)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, stopped)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
