"""A text onto the clipboard: by a program of this machine, and by the terminal, which may be on another one."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys

from . import streams

LIMIT_OSC52_BYTES = 74_994
"""What terminals take for the clipboard, in bytes of base64: xterm's limit, which others have taken over."""

PROGRAMS = (["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard"], ["clip.exe"])

LIMIT_S = 3.0
"""How long a program may take."""


def put(text: str, *, to_terminal: bool) -> list[str]:
    """The ways that the text went, as people are told them. `to_terminal`: the one of stdout may be asked, too."""
    ways = next(([line[0]] for line in PROGRAMS if shutil.which(line[0]) and _given(line, text)), [])
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
    if to_terminal and sys.stdout.isatty() and len(encoded) <= LIMIT_OSC52_BYTES:
        streams.write(f"\x1b]52;c;{encoded}\x07")  # the one command to the terminal that is ours
        ways.append("the terminal (OSC 52, if it allows that)")
    return ways


def _given(line: list[str], text: str) -> bool:
    """Whether a program has taken the text for the clipboard."""
    try:
        done = subprocess.run(  # noqa: S603  # a line of PROGRAMS
            line,
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
