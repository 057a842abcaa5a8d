"""What a beginning costs: the import, the command, the gateway up to its first answer; and what is loaded."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from . import native, servers
from .figures import Table, expect
from .native import Upstream, environment
from .servers import Asking

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
COMMANDS = {
    "floor: bare interpreter": ["-c", "pass"],
    "import asyncio": ["-c", "import asyncio"],
    "import flowgpt": ["-c", "import flowgpt"],
    "from flowgpt import FlowGpt": ["-c", "from flowgpt import FlowGpt"],
    "import aiohttp": ["-c", "import aiohttp"],
    "flowgpt --version": ["-m", "flowgpt", "--version"],
}
FLOOR = "floor: bare interpreter"


def run() -> list[Table]:
    """Raises: WrongResult, when `FlowGpt` loads a third party's module besides msgspec."""
    return [commands(), gateway()]


def commands() -> Table:
    """Of fresh interpreters."""
    table = Table("A fresh interpreter, ms")
    with TemporaryDirectory() as name:
        env = environment(Path(name))
        _, _, said = native.spent([sys.executable, "-c", LOADED], env)
        count, *foreign = said.split()
        expect(foreign, [], "third parties' modules that `FlowGpt` loads, besides msgspec and what that imports")

        def sample(words: list[str]) -> dict[str, float]:
            lasted_s, cpu_s, _ = native.spent([sys.executable, *words], env)
            return {"until it ends": lasted_s * 1e3, "CPU": cpu_s * 1e3}

        table.measure({row: functools.partial(sample, words) for row, words in COMMANDS.items()}, rounds=11)
    table.difference("CPU", "import flowgpt", FLOOR, "ms", ("≤", 60))
    table.claim("CPU", "flowgpt --version", "ms", ("≤", 150))
    table.ratio("CPU", "from flowgpt import FlowGpt", "import aiohttp")
    table.notes.append("Judged by CPU: an idle machine with the files in its cache takes no longer.")
    table.notes.append(f"`FlowGpt` loads {count} modules; of third parties only msgspec, and what that imports.")
    return table


def gateway() -> Table:
    """Of servers, up to the first answer."""
    table = Table("A server, from its start")
    with Upstream("burst", 20) as upstream:

        def sample(name: str) -> dict[str, float]:
            began_s = time.monotonic()
            served = servers.flowgpt(upstream.origin) if name == "flowgpt serve" else servers.relay(upstream.origin)
            with served:
                asking = servers.dialects(served)["flowgpt, chat"] if name == "flowgpt serve" else Asking(served)
                asking.ask(20, streams=1)
                answered_ms = (time.monotonic() - began_s) * 1e3
                return {
                    "accepts, ms": served.ready_s * 1e3,
                    "first answer, ms": answered_ms,
                    "CPU until then, ms": served.cpu_s() * 1e3,
                    "memory then, MB": served.rss_bytes() / 1e6,
                }

        table.measure({name: functools.partial(sample, name) for name in ("flowgpt serve", "floor: ASGI relay")})
    return table
