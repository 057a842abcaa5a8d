"""The terminal: `flowgpt "question"`, and a file for each other command. Answers go to stdout, all else to stderr.

Faces ask through `Client`; nothing here parses, retries, times or knows FlowGPT's wire.
"""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The program `flowgpt`; ends the process with an exit code of failures.py."""
    from .program import program  # late: importing flowgpt.cli for one of its rooms does not need the others

    program.main()
