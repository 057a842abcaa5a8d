"""The three standard streams: what may come in, and how words go out, whatever the terminal, locale or pipe.

A closed stdin or stderr is no failure; an output that cannot be written is an OSError, which the program's edge shows.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import TextIO

from ..errors import InvalidRequestError

LIMIT_STDIN_BYTES = 4 * 1024 * 1024
"""Half of what a request may have, since JSON makes texts longer."""

DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Unicode's embeddings, overrides and isolates: they show a text in another order than it is written in."""

CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *DIRECTIONS])
del CONTROLS[ord("\n")], CONTROLS[ord("\t")]


def prepare() -> None:
    """Let no locale be too small for an answer: what it has no bytes for is shown escaped.

    A closed stream's descriptor is taken, or a socket would get it; uvloop aborts the process then.
    """
    with contextlib.suppress(OSError):  # no /dev/null here
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def piped() -> bool:
    """Whether standard input is something to read, and no terminal."""
    return sys.stdin is not None and not sys.stdin.isatty()


def read() -> str:
    """All of standard input, without the newlines at its end.

    Raises: InvalidRequestError when it is over LIMIT_STDIN_BYTES, or not UTF-8.
    """
    data = sys.stdin.buffer.read(LIMIT_STDIN_BYTES + 1)
    if len(data) > LIMIT_STDIN_BYTES:
        raise InvalidRequestError(
            f"standard input is larger than {LIMIT_STDIN_BYTES:,} bytes", code="payload_too_large", hint="send less"
        )
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"standard input is not UTF-8, at byte {error.start}", hint="iconv -t utf-8 converts a text"
        ) from None


def plain(text: str) -> str:
    """The text without what commands a terminal: C0 and C1 controls except newline and tab, and directions (E14).

    Character by character, so it does not matter how the text was split.
    """
    return text.translate(CONTROLS)


def line(text: str) -> str:
    """Foreign text as one line that commands no terminal."""
    return " ".join(plain(text).split())


def columns() -> int | None:
    """Of the terminal of stdout; None: it is none, and nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def write(text: str) -> None:
    """A piece of the answer, at once. Raises: OSError."""
    if sys.stdout is None:  # as Python has it when it was closed before the start
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.write(text)
    sys.stdout.flush()


def note(words: str) -> None:
    """One line on stderr, broken between words in a narrow terminal; that nobody can read it is no failure."""
    if sys.stderr is not None:
        shown = line(words)
        with contextlib.suppress(OSError):
            if sys.stderr.isatty():
                width = shutil.get_terminal_size().columns
                shown = textwrap.fill(shown, width, break_long_words=False, break_on_hyphens=False)
            sys.stderr.write(shown + "\n")
            sys.stderr.flush()


def notes(*, quiet: bool) -> Callable[[str], None]:
    """`note`, or what takes notes that nobody wants."""
    return (lambda _words: None) if quiet else note


def abandon() -> None:
    """Give stdout up: what is left in its buffer must not fail again when the interpreter ends."""
    _abandon(sys.stdout)


def settle() -> None:
    """Give stderr up when nobody reads it: that is no failure when the interpreter ends either."""
    try:
        sys.stderr.flush()
    except (OSError, AttributeError):
        _abandon(sys.stderr)


def _abandon(stream: TextIO | None) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]  # none: nothing is left
