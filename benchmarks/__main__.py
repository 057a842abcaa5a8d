"""All comparisons, one after the other: `python -m benchmarks`, or some of them by name.

Exit code 1 when a result is wrong; a missed target is printed, and is no failure: machines differ.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.metadata import version

from . import decoding, delivery, fleet, replies, startup, streams
from .figures import WrongResult

ROOMS = {
    "delivery": delivery,
    "decoding": decoding,
    "replies": replies,
    "streams": streams,
    "start": startup,
    "fleet": fleet,
}


def main(names: list[str]) -> int:
    """Run the comparisons of these names, or all. Returns the exit code."""
    for name in list(os.environ):
        if name.startswith("FLOWGPT_") or name.lower().endswith("_proxy"):
            del os.environ[name]  # the machine's own settings are not what is compared
    packages = ", ".join(f"{name} {version(name)}" for name in ("flowgpt", "aiohttp", "msgspec"))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    print(f"Python {platform.python_version()}, {packages}; {machine}")
    print("Medians (lowest to highest); a ratio is the median of the rounds' ratios")
    with tempfile.TemporaryDirectory() as home:
        os.environ["FLOWGPT_HOME"] = home
        for name in names or ROOMS:
            print()
            try:
                ROOMS[name].run()
            except WrongResult as wrong:
                print(f"WRONG: {wrong}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
