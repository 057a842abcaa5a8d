"""The terminal: `flowgpt "question"`, and a file for each other command. Answers go to stdout, all else to stderr.

Faces ask through `Client`; nothing here parses, retries, times or knows FlowGPT's wire.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The program `flowgpt`; ends the process with an exit code of failures.py."""
    try:
        from .program import program  # late: importing flowgpt.cli for one of its rooms does not need the others

        program.main()
    except KeyboardInterrupt:  # Ctrl-C before the program's own edge is there to tell it
        from . import failures, streams

        streams.note("interrupted")
        sys.exit(failures.INTERRUPTED)
