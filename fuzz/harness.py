"""`python -m fuzz.harness NAME [libFuzzer's options and folders]`: one harness, in a process that libFuzzer ends."""

from __future__ import annotations

import sys

import atheris

from .guard import check

if __name__ == "__main__":
    with atheris.instrument_imports(include=["flowgpt", "email", "ipaddress"]):
        run = check(sys.argv.pop(1))
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
