"""What `from flowgpt import FlowGpt` costs a fresh interpreter, and what it loads."""

from __future__ import annotations

import resource
import subprocess
import sys

from .figures import expect, in_turn, ratio, show

LOADED = """
import sys
before = set(sys.modules)
import msgspec
of_msgspec = set(sys.modules) - before
from flowgpt import FlowGpt
new = set(sys.modules) - before
foreign = {name.partition(".")[0] for name in new - of_msgspec} - sys.stdlib_module_names - {"flowgpt"}
print(len(new), *sorted(foreign))
"""


def run() -> None:
    """Print the comparison. Raises: WrongResult, when another third-party module than msgspec is loaded."""
    print("Start: `from flowgpt import FlowGpt` in a fresh interpreter")

    def sample(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1e3

    found = subprocess.run([sys.executable, "-c", LOADED], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    expect(found[1:], [], f"start: it loads {', '.join(found[1:])}, besides msgspec and what msgspec imports")
    samples = in_turn(
        {
            "bare": lambda: sample("pass"),
            "asyncio": lambda: sample("import asyncio"),
            "flowgpt": lambda: sample("from flowgpt import FlowGpt"),
            "aiohttp": lambda: sample("import aiohttp"),
        }
    )
    print(f"  {'modules loaded':<26}{found[0]:>9} of third parties only msgspec, and what it imports")
    show("bare interpreter", samples["bare"], "ms of CPU")
    show("import asyncio", samples["asyncio"], "ms of CPU")
    show("import FlowGpt", samples["flowgpt"], "ms of CPU")
    show("import aiohttp", samples["aiohttp"], "ms of CPU")
    ratio("flowgpt ÷ bare", samples["flowgpt"], samples["bare"])
    ratio("flowgpt ÷ aiohttp", samples["flowgpt"], samples["aiohttp"])
