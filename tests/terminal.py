"""A terminal for tests: a real pseudo-terminal, the program in it as its foreground, and what a person would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pyte

DEADLINE_S = 30.0
"""How long something may take to appear: no measure of speed, only the end of a test that fails."""

SETTLE_S = 0.02

LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""A process of its own session takes the terminal, and becomes the program."""


class _Screen(pyte.HistoryScreen):
    """Answers what a program asks its terminal, as the place of the cursor."""

    reply: Callable[[str], None]

    def write_process_input(self, data: str) -> None:
        self.reply(data)


class Terminal:
    """`python -m flowgpt` with `args` on a terminal of its own. `raw`: every byte that it was sent.

    A context manager: what still runs at the end is killed. `env`: besides this process's; None takes a name away.
    """

    def __init__(
        self, *args: str, columns: int = 80, lines: int = 24, env: dict[str, str | None] | None = None
    ) -> None:
        self.raw = bytearray()
        self._screen = _Screen(columns, lines, history=10_000, ratio=0.5)
        self._screen.reply = self.type
        self._stream = pyte.ByteStream(self._screen)
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | (env or {})
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            if name not in (env or {}):
                environment.pop(name, None)
        self._master, self.slave = os.openpty()
        self._size(columns, lines)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCH, sys.executable, "-W", "error", "-m", "flowgpt", *args],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.slave)

    @property
    def display(self) -> str:
        """The screen as it is now, without spaces at the ends of its rows."""
        return "\n".join(row.rstrip() for row in self._screen.display).rstrip("\n")

    @property
    def text(self) -> str:
        """All that can be seen by scrolling back."""
        above = [
            "".join(row[column].data for column in range(self._screen.columns)).rstrip()
            for row in self._screen.history.top
        ]
        return "\n".join([*above, self.display])

    @property
    def screen(self) -> pyte.Screen:
        """The screen with its colours."""
        return self._screen

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait(self, *expected: str, where: str = "display") -> str:
        """Until the screen (`where="text"`: or its scrollback) shows all of these; what it shows then."""
        return self.until(lambda: all(words in getattr(self, where) for words in expected), f"{expected}")

    def until(self, condition: Callable[[], bool], words: str = "it") -> str:
        """Read until `condition` holds. Raises: AssertionError, with the screen, when it does not in time."""
        limit_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < limit_s, f"waited in vain for {words}; the screen:\n{self.text}"
            self._read()
        return self.display

    def end(self) -> int:
        """Wait until the program has ended; its exit code, negative for a signal."""
        self.until(lambda: self.process.poll() is not None, "its end")
        while self._read():
            pass
        return self.process.returncode

    def resize(self, columns: int, lines: int) -> None:
        """As when somebody drags the window's corner."""
        self._screen.resize(lines, columns)
        self._size(columns, lines)

    def signal(self, number: int) -> None:
        """To the program alone; Ctrl-C is `type("\\x03")`."""
        self.process.send_signal(number)

    def as_before(self) -> bool:
        """Whether the terminal is as a shell wants it: it echoes, and reads by the line."""
        flags = termios.tcgetattr(self.slave)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if hasattr(self, "process"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGWINCH)

    def _read(self) -> bool:
        """Show what has come; False when nothing has within SETTLE_S."""
        if not select.select([self._master], [], [], SETTLE_S)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
