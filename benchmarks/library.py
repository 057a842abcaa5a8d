"""The library in a process of its own, through its whole interface, beside the least code that could do its job."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

from .figures import Table
from .native import Client, Mode, Upstream

OURS, FLOOR, PROTOCOL, SOCKET = "flowgpt", "floor: aiohttp + msgspec", "floor: bare protocol", "floor: bare socket"
VARIANTS = {OURS: "flowgpt", FLOOR: "generator", PROTOCOL: "protocol", SOCKET: "socket"}
TEXTS = 20_000
"""Of a long reply."""
SHORT, SHORT_REPLIES = 20, 100
AT_CADENCE, CADENCE_TEXTS = 100, 50
"""So many streams at once, of so many texts, one each 20 ms."""
RATE = 5_000
"""Texts a second of all streams together, however many they are."""
STREAMS = (1, 100, 1_000, 5_000)
LENGTHS = (2, 100, 1_000, 10_000, 100_000, 1_000_000)

Sample = Callable[[Client], dict[str, float]]


@contextmanager
def clients(names: Iterable[str], origin: str) -> Iterator[dict[str, Client]]:
    """A process for each variant, which has asked once."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            command = [sys.executable, "-m", "benchmarks.clients", VARIANTS[name], origin]
            found[name] = stack.enter_context(Client(command))
        yield found


def compare(table: Table, names: Iterable[str], sample: Sample, mode: Mode, count: int, *, crowd: int = 1) -> None:
    """Sample the variants in turn, against an upstream of this kind."""
    interval_ms = 1000 * crowd / RATE
    with (
        Upstream(mode, count, crowd=crowd, interval_ms=interval_ms) as upstream,
        clients(names, upstream.origin) as running,
    ):
        for client in running.values():
            client.ask(count, question="warm up")
        table.measure({name: functools.partial(sample, client) for name, client in running.items()})
    table.notes.append(f"upstream, {mode}, {count:,} texts, {crowd:,} at once: {upstream.busy:.0%} of a core")


def run() -> list[Table]:
    """Raises: WrongResult."""
    return [costs(), streams(), lengths(), memory()]


def costs() -> Table:
    """CPU per text, time to first text, short replies."""
    table = Table("CPU per text, and short replies of 20 texts")
    compare(table, VARIANTS, functools.partial(long, "many in a read"), "burst", TEXTS)
    compare(table, VARIANTS, functools.partial(long, "a write each"), "each", TEXTS)
    compare(table, VARIANTS, functools.partial(cadence, AT_CADENCE), "cadence", CADENCE_TEXTS, crowd=AT_CADENCE)
    compare(table, [OURS, FLOOR, PROTOCOL], functools.partial(short, SHORT_REPLIES), "burst", SHORT)
    for column in table.columns:
        table.ratio(column, OURS, FLOOR)
    table.ratio("at 20 ms, µs a text", OURS, SOCKET, ("≤", 2.5))
    table.notes.append("Targets near 1 are judged by instructions: the room `instructions`.")
    return table


def long(how: str, client: Client) -> dict[str, float]:
    """A long reply."""
    return {f"{how}, µs a text": client.ask(TEXTS).cpu_s / TEXTS * 1e6}


def cadence(streams: int, client: Client) -> dict[str, float]:
    """So many streams at once."""
    told = client.ask(CADENCE_TEXTS, streams=streams, together=True)
    return {"at 20 ms, µs a text": told.flow_cpu_s / (told.texts - streams) * 1e6}


def short(replies: int, client: Client) -> dict[str, float]:
    """Short replies, one after the other."""
    told = client.ask(SHORT, streams=replies)
    return {"short replies, a CPU second": replies / told.cpu_s, "first text, µs": told.first_us}


def streams() -> Table:
    """Whether a text costs the same in a crowd."""
    table = Table(f"CPU per text, µs, while so many streams are open: {RATE:,} texts a second of all together")
    with ExitStack() as stack:
        ladder = {}
        for crowd in STREAMS:
            count = max(RATE // 4 // crowd, 4) + 1  # the first is not counted
            kind = Upstream("cadence", count, crowd=crowd, interval_ms=1000 * crowd / RATE)
            ladder[crowd] = (count, stack.enter_context(clients([OURS, FLOOR], stack.enter_context(kind).origin)))

        def sample(name: str) -> dict[str, float]:
            costs = {}
            for crowd, (count, running) in ladder.items():
                told = running[name].ask(count, streams=crowd, together=True)
                costs[f"{crowd:,}"] = told.flow_cpu_s / (told.texts - crowd) * 1e6
            return costs

        table.measure({name: functools.partial(sample, name) for name in (OURS, FLOOR)}, rounds=3)
    for name in (OURS, FLOOR):
        table.growth(name, f"{STREAMS[-1]:,}", f"{STREAMS[0]:,}")
    return table


def lengths() -> Table:
    """Whether a text costs the same in a long reply: what each more text costs, between replies of two lengths."""
    table = Table("CPU of each more text, µs, between replies of so many texts")
    with ExitStack() as stack:
        origins = {count: stack.enter_context(Upstream("burst", count)).origin for count in LENGTHS}
        ladder = {count: stack.enter_context(clients([OURS, FLOOR], origin)) for count, origin in origins.items()}

        def sample(name: str) -> dict[str, float]:
            spent_s = {}
            for count, running in ladder.items():
                replies = max(10_000 // (count + 100), 1)
                spent_s[count] = running[name].ask(count, streams=replies).cpu_s / replies
            return {
                f"{few:,} to {many:,}": (spent_s[many] - spent_s[few]) / (many - few) * 1e6
                for few, many in pairwise(LENGTHS)
            }

        table.measure({name: functools.partial(sample, name) for name in (OURS, FLOOR)}, rounds=3)
    for name in (OURS, FLOOR):
        table.growth(name, table.columns[-1], table.columns[1])
    return table


def memory() -> Table:
    """What an open stream takes."""
    table = Table("Resident memory of an open stream after its first text, KiB")
    with Upstream("hold", 20) as upstream:
        for many in (1_000, 5_000):

            def sample(name: str, many: int = many) -> dict[str, float]:
                with clients([name], upstream.origin) as running:
                    client = running[name]
                    client.ask(20, question="warm up")
                    before = client.rss_bytes()
                    with client.holding(many):
                        return {f"{many:,} streams": (client.rss_bytes() - before) / many / 1024}

            table.measure({name: functools.partial(sample, name) for name in (OURS, FLOOR, PROTOCOL)}, rounds=1)
            table.claim(f"{many:,} streams", OURS, "KiB", ("≤", 20))
    table.notes.append(f"upstream: {upstream.busy:.0%} of a core")
    return table
