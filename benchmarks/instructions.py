"""Instructions instead of seconds, where a ratio near 1 is claimed: a busy machine does not change them.

Programs run under valgrind's callgrind, which begins to count when they have warmed up. What a text takes is the
difference of a long and a short reply, by the number of texts between them. What the kernel does is not in it.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from . import gateway, library, servers
from .figures import Table
from .native import Client, Upstream
from .servers import Asking

FEW, MANY = 20, 2_020
"""Texts of a short and of a long reply."""
REPLIES = {FEW: 10, MANY: 2}
"""How many of each are counted at a time."""
ROUNDS = 2

Ask = Callable[[int, int], object]
"""Asks for replies of so many texts, so many times."""
Start = Callable[[str, tuple[str, ...]], AbstractContextManager[tuple[int, dict[str, Ask]]]]
"""A program, given an upstream and what to run under: its process, and the ways of asking it."""


def run() -> list[Table]:
    """Raises: WrongResult."""
    if not shutil.which("callgrind_control"):
        return [Table("Instructions", notes=["Not taken: valgrind is not installed."])]
    of_library = Table("Thousands of instructions: the library, to the last text")
    measure(of_library, [functools.partial(client, name) for name in (library.OURS, library.FLOOR, library.PROTOCOL)])
    of_library.ratio("a text", library.OURS, library.FLOOR, ("≤", 1.3))
    of_library.ratio("a reply of 20 texts", library.OURS, library.FLOOR)
    of_gateway = Table("Thousands of instructions: the gateway, one worker")
    measure(of_gateway, [ours, relay])
    of_gateway.ratio("a text", gateway.OURS, gateway.RELAY, ("≤", 1.3))
    of_gateway.ratio("a reply of 20 texts", gateway.OURS, gateway.RELAY, ("≤", 1.25))
    return [of_library, of_gateway]


def measure(table: Table, programs: list[Start]) -> None:
    """Each program twice: one for short replies, one for long ones."""
    counts: dict[str, dict[int, Callable[[], int]]] = {}
    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        for texts, replies in REPLIES.items():
            origin = stack.enter_context(Upstream("burst", texts)).origin

            def warm(start: Start, origin: str = origin, texts: int = texts) -> tuple[int, Path, dict[str, Ask]]:
                out = Path(stack.enter_context(tempfile.TemporaryDirectory()), "counts")
                under = ("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}")
                pid, asks = stack.enter_context(start(origin, under))
                for ask in asks.values():
                    ask(texts, 2)
                control(pid, "--instr=on")
                return pid, out, asks

            for pid, out, asks in pool.map(warm, programs):  # starting is slow under valgrind
                for name, ask in asks.items():
                    work = functools.partial(ask, texts, replies)
                    counts.setdefault(name, {})[texts] = functools.partial(count, pid, out, work)

        def sample(name: str) -> dict[str, float]:
            few, many = (counts[name][texts]() / REPLIES[texts] / 1e3 for texts in (FEW, MANY))
            return {"a text": (many - few) / (MANY - FEW), "a reply of 20 texts": few}

        table.measure({name: functools.partial(sample, name) for name in counts}, rounds=ROUNDS)


def count(pid: int, out: Path, work: Callable[[], object]) -> int:
    """The instructions of that work; what was counted before it is put aside."""
    control(pid, "--dump")
    work()
    control(pid, "--dump")
    last = max(out.parent.glob("counts.*"), key=lambda path: int(path.suffix[1:]))
    found = re.search(r"^totals: (\d+)$", last.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def control(pid: int, word: str) -> None:
    """Tell a running callgrind."""
    subprocess.run(
        ["callgrind_control", word, str(pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextmanager
def client(name: str, origin: str, under: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Ask]]]:
    """A variant of clients.py."""
    command = [*under, sys.executable, "-m", "benchmarks.clients", library.VARIANTS[name], origin]
    with Client(command, env={"PYTHONHASHSEED": "0"}) as one:
        yield one.process.pid, {name: lambda texts, replies: one.ask(texts, streams=replies)}


@contextmanager
def relay(origin: str, under: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Ask]]]:
    """The relay of thirty lines."""
    with servers.relay(origin, under=under) as served:
        yield served.process.pid, {gateway.RELAY: asking(Asking(served))}


@contextmanager
def ours(origin: str, under: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Ask]]]:
    """Our gateway, in each dialect."""
    with servers.flowgpt(origin, under=under) as served:
        yield served.process.pid, {name: asking(one) for name, one in servers.dialects(served).items()}


def asking(one: Asking) -> Ask:
    """One stream after the other."""
    return lambda texts, replies: one.ask(texts, streams=replies, connections=1)
