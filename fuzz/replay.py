"""`python -m fuzz.replay [NAME FILE ...]`: run inputs again without a fuzzer, and repeated up to 64 KiB; without
arguments the committed ones.

This is how a finding is looked at: the traceback is the harness's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .guard import HARNESSES, check, stretched_ms

CORPUS = Path(__file__).parent / "corpus"


def main(arguments: list[str]) -> None:
    """Run the inputs of a harness, or of all. Raises: what a finding raises, with the input's path as a note."""
    for name in arguments[:1] or HARNESSES:
        run, slowest_ms = check(name), 0.0
        paths = [Path(argument) for argument in arguments[1:]] or inputs(CORPUS / name)
        for path in paths:
            try:
                data = path.read_bytes()
                run(data)
                slowest_ms = max(slowest_ms, stretched_ms(name, data))
            except Exception as finding:
                finding.add_note(f"the input: {path}")
                raise
        print(f"{name}: {len(paths)} inputs, at most {slowest_ms:.1f} ms for 64 KiB")


def inputs(folder: Path) -> list[Path]:
    """The inputs in a folder."""
    return sorted(path for path in folder.iterdir() if path.is_file())


if __name__ == "__main__":
    main(sys.argv[1:])
