"""The library beside other clients: each a process, in turn."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .. import library, native
from ..figures import Table
from ..native import Client, Mode, Upstream
from .table import ALONE, CLIENTS, versions

OURS, FLOOR, SOCKET = library.OURS, library.FLOOR, library.SOCKET
SHORT, SHORT_REPLIES = library.SHORT, 20
TOGETHER = 20
"""Streams at once, each with a text every 20 ms."""
HELD = 1_000
IMPORT = "import flowgpt"


@contextmanager
def clients(names: Iterable[str], origin: str) -> Iterator[dict[str, Client]]:
    """A process for each, which has asked once."""
    with ExitStack() as stack:
        ours = stack.enter_context(library.clients([name for name in names if name in library.VARIANTS], origin))
        peers = {name: stack.enter_context(CLIENTS[name].running(origin)) for name in names if name in CLIENTS}
        yield ours | peers


def compare(
    table: Table,
    sample: Callable[[Client], dict[str, float]],
    mode: Mode,
    count: int,
    *,
    crowd: int = 1,
    floors: tuple[str, ...] = (FLOOR, SOCKET),
) -> None:
    """Sample all in turn, against an upstream of this kind."""
    names = [OURS, *floors, *CLIENTS]
    with Upstream(mode, count, crowd=crowd) as upstream, clients(names, upstream.origin) as running:
        for client in running.values():
            client.ask(count, question="warm up")
        table.measure({name: functools.partial(sample, client) for name, client in running.items()})
    table.notes.append(f"upstream, {mode}: {upstream.busy:.0%} of a core")


def run() -> list[Table]:
    """Raises: WrongResult."""
    tables = [costs(), start(), memory()]
    tables[0].notes.append(f"peers: {versions()}")
    return tables


def costs() -> Table:
    """CPU per text, short replies."""
    table = Table("Clients: CPU per text, and short replies of 20 texts")
    compare(table, functools.partial(library.long, "many in a read"), "burst", library.TEXTS)
    compare(table, functools.partial(library.cadence, TOGETHER), "cadence", library.CADENCE_TEXTS, crowd=TOGETHER)
    compare(table, functools.partial(library.short, SHORT_REPLIES), "burst", SHORT, floors=(FLOOR,))
    least = {"g4f, FlowGPT's lines": 2.5, "openai": 50, "litellm": 200}
    for peer in CLIENTS:
        target = least.get(peer)
        table.ratio("many in a read, µs a text", peer, OURS, ("≥", target) if target else None)
    for peer in CLIENTS:
        table.ratio("at 20 ms, µs a text", peer, OURS)
        table.ratio("short replies, a CPU second", OURS, peer)
    return table


def start() -> Table:
    """Imports, and a process until it has its first reply. The CPU is that of the whole process, the bare one's off."""
    table = Table("Clients: the import in a fresh interpreter, and a process until its first reply")
    imports = {OURS: (sys.executable, IMPORT)} | {
        name: (kind.python, kind.imports) for name, kind in CLIENTS.items() if kind.imports
    }
    with Upstream("burst", SHORT) as upstream:

        def sample(name: str) -> dict[str, float]:
            python, code = imports[name]
            bare_s, before = fresh(python, "pass")
            spent_s, modules = fresh(python, code)
            with clients([name], upstream.origin) as running:
                running[name].ask(SHORT)
                first_s, memory = native.cpu_s(running[name].process.pid), running[name].rss_bytes()
            return {
                "import, ms of CPU": (spent_s - bare_s) * 1e3,
                "modules": modules - before,
                "first reply, ms of CPU": first_s * 1e3,
                "then resident, MB": memory / 1e6,
            }

        table.measure({name: functools.partial(sample, name) for name in imports})
    for peer in imports:
        if peer != OURS:
            table.ratio("import, ms of CPU", peer, OURS, ("≥", 8) if peer == "openai" else None)
    table.notes.append("The bare interpreter is taken off the first two columns. Bytecode was compiled before.")
    table.notes.append("`import flowgpt` loads rooms as they are used: what is left out there is in the first reply.")
    return table


def fresh(python: str, code: str) -> tuple[float, int]:
    """The CPU seconds of an interpreter that runs this, and how many modules it then has."""
    command = [python, "-c", f"import sys\n{code}\nprint(len(sys.modules))"]
    _, cpu_s, said = native.spent(command, native.environment(Path("/nonexistent")) | ALONE)
    return cpu_s, int(said.split()[-1])


def memory() -> Table:
    """What an open stream takes."""
    table = Table("Clients: resident memory of an open stream after its first text, KiB")
    with Upstream("hold", SHORT) as upstream:

        def sample(name: str) -> dict[str, float]:
            with clients([name], upstream.origin) as running:
                running[name].ask(SHORT, question="warm up")
                before = running[name].rss_bytes()
                with running[name].holding(HELD):
                    return {f"{HELD:,} streams": (running[name].rss_bytes() - before) / HELD / 1024}

        names = [OURS, FLOOR, *(name for name, kind in CLIENTS.items() if kind.holds)]
        table.measure({name: functools.partial(sample, name) for name in names}, rounds=1)
    table.notes.append("g4f is not in it: it opens no more than 20 connections to one host.")
    table.claim(f"{HELD:,} streams", OURS, "KiB", ("≤", 20))
    return table
