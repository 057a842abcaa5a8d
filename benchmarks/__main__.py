"""`python -m benchmarks`, or some rooms by name: prints their tables, writes them into RESULTS.md, draws plots.

Exit code 1 when a result is wrong; a missed target is told, and is no failure: machines differ.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time

from . import plots, results
from .figures import WrongResult


def main(names: list[str]) -> int:
    """Run the rooms of these names, or all. Returns the exit code."""
    for name in list(os.environ):
        if name.startswith("FLOWGPT_") or name.lower().endswith("_proxy"):
            del os.environ[name]  # the machine's own settings are not what is compared
    with tempfile.TemporaryDirectory() as home:
        os.environ["FLOWGPT_HOME"] = home
        for name in names or results.ROOMS:
            machine, began_s = results.machine(), time.monotonic()
            try:
                tables = importlib.import_module(f".{name}", __package__).run()
            except WrongResult as wrong:
                print(f"WRONG: {wrong}", file=sys.stderr)
                return 1
            results.write(name, tables, machine=machine)
            plots.draw(name, tables)
            print(
                f"## {name} ({time.monotonic() - began_s:.0f} s)\n", *map(results.render, tables), sep="\n", flush=True
            )
            results.missed(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
