"""The gateway, beside a relay of thirty lines and a relay of bytes: each a process, with one worker if not said."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from . import servers
from .figures import ROUNDS, Table
from .native import Mode, Upstream
from .servers import Asking

OURS, RELAY, NGINX = "flowgpt, chat", "floor: ASGI relay", "floor: byte relay (nginx)"
SHORT, SHORT_STREAMS = 20, 500
TEXTS, LONG_STREAMS = 5_000, 12
WINDOW_S = 0.5
RATE = 2_500
"""Texts a second of all streams together at cadence, however many they are."""
STREAMS = (1, 100, 1_000, 5_000)

Running = Callable[[Upstream], AbstractContextManager[Mapping[str, Asking]]]
"""What is compared, running, given an upstream."""


@contextmanager
def all_running(upstream: Upstream) -> Iterator[dict[str, Asking]]:
    """All that are compared here."""
    with ExitStack() as stack:
        nginx = stack.enter_context(servers.nginx(upstream.origin))
        relay = stack.enter_context(servers.relay(upstream.origin))
        ours = stack.enter_context(servers.flowgpt(upstream.origin))
        yield {**({NGINX: nginx} if nginx else {}), RELAY: Asking(relay), **servers.dialects(ours)}


def run() -> list[Table]:
    """Raises: WrongResult."""
    return [short(), long(), streams(), workers(), memory()]


def short() -> Table:
    """How many short streams, and how long the first text of one takes when nothing else goes on."""
    title = "Streams of 20 texts: over 32 connections, and over one for the time to first text"
    table = of_short(title, all_running, lambda _: SHORT_STREAMS)
    table.ratio("a second", OURS, RELAY, ("≥", 0.8))
    table.ratio("a CPU second", OURS, RELAY, ("≥", 0.8))
    if NGINX in table.cells:
        for column, at_most in (("first text p50, µs", 500), ("first text p99, µs", 3000)):
            table.difference(column, OURS, NGINX, "µs", ("≤", at_most))
            table.difference(column, RELAY, NGINX, "µs")
    return table


def of_short(title: str, all_running: Running, streams: Callable[[str], int]) -> Table:
    """Short streams of all that are running, over 32 connections and over one; `streams`: how many of each, by name."""
    table = Table(title)
    with Upstream("burst", SHORT) as upstream, all_running(upstream) as running:

        def sample(asking: Asking, streams: int) -> dict[str, float]:
            (found, cpu_s), (alone, _) = (
                asking.ask(SHORT, streams=streams, connections=connections) for connections in (32, 1)
            )
            return {
                "a second": found.streams / found.seconds,
                "a CPU second": found.streams / cpu_s,
                "generator, of a core": found.busy,
                "first text p50, µs": alone.first_p50_us,
                "first text p99, µs": alone.first_p99_us,
            }

        table.measure({name: functools.partial(sample, one, streams(name)) for name, one in running.items()})
    table.notes.append(f"upstream: {upstream.busy:.0%} of a core")
    return table


def long() -> Table:
    """What a text costs."""
    table = of_long("CPU per text, µs", all_running, lambda _: LONG_STREAMS)
    for column in table.columns:
        table.ratio(column, OURS, RELAY)
    table.notes.append("Targets near 1 are judged by instructions: the room `instructions`.")
    return table


def of_long(title: str, all_running: Running, streams: Callable[[str], int]) -> Table:
    """CPU per text of all that are running; `streams`: how many of each, by name."""
    table = Table(title)
    modes: dict[Mode, str] = {"burst": "many in a read", "each": "a write each"}
    for mode, column in modes.items():
        with Upstream(mode, TEXTS) as upstream, all_running(upstream) as running:

            def sample(asking: Asking, streams: int, column: str = column) -> dict[str, float]:
                _, cpu_s = asking.ask(TEXTS, streams=streams, connections=4)
                return {column: cpu_s / streams / TEXTS * 1e6}

            table.measure({name: functools.partial(sample, one, streams(name)) for name, one in running.items()})
        table.notes.append(f"upstream, {mode}: {upstream.busy:.0%} of a core")
    return table


def _window_us(running: list[Asking]) -> list[float]:
    """CPU of each text in the next WINDOW_S, while RATE texts a second come through each."""
    before_s, began_s = [one.served.cpu_s() for one in running], time.monotonic()
    time.sleep(WINDOW_S)
    texts = RATE * (time.monotonic() - began_s)
    return [(one.served.cpu_s() - spent_s) / texts * 1e6 for one, spent_s in zip(running, before_s, strict=True)]


def streams() -> Table:
    """Whether a text costs the same in a crowd. Both are open and measured at once."""
    table = Table(f"CPU per text, µs, while so many streams are open: {RATE:,} texts a second of all together")
    for crowd in STREAMS:
        kind = Upstream("cadence", 100 + 60 * RATE // crowd, interval_ms=1000 * crowd / RATE)
        with kind as upstream, all_running(upstream) as running, running[RELAY].open(crowd), running[OURS].open(crowd):
            both = [running[RELAY], running[OURS]]
            _window_us(both)  # the first warms up
            for _ in range(ROUNDS):
                for name, cost in zip((RELAY, OURS), _window_us(both), strict=True):
                    table.cells.setdefault(name, {}).setdefault(f"{crowd:,}", []).append(cost)
        table.notes.append(f"upstream, {crowd:,} streams for each: {upstream.busy:.0%} of a core")
    for name in (RELAY, OURS):
        table.growth(name, f"{STREAMS[-1]:,}", f"{STREAMS[0]:,}")
    table.ratio("100", OURS, RELAY)
    return table


def workers() -> Table:
    """What a second process gives."""
    table = Table("Short streams of 20 texts a second, by one and by two workers, over 64 connections")
    with Upstream("burst", SHORT) as upstream, ExitStack() as stack:
        running: dict[tuple[str, int], Asking] = {}
        for count in (1, 2):
            running[RELAY, count] = Asking(stack.enter_context(servers.relay(upstream.origin, count)))
            ours = stack.enter_context(servers.flowgpt(upstream.origin, count))
            running[OURS, count] = servers.dialects(ours)[OURS]

        def sample(name: str) -> dict[str, float]:
            return {
                f"{count}": found.streams / found.seconds
                for count in (1, 2)
                for found, _ in [running[name, count].ask(SHORT, streams=2 * SHORT_STREAMS, connections=64)]
            }

        table.measure({name: functools.partial(sample, name) for name in (RELAY, OURS)})
    table.growth(RELAY, "2", "1")
    table.growth(OURS, "2", "1", ("≥", 1.7))
    table.notes.append(
        "The generator and the upstream take their share of the same cores: on two, two workers lack it."
    )
    return table


def memory() -> Table:
    """What the process takes, and what an open stream takes."""
    table = Table("Resident memory")
    with Upstream("hold", SHORT) as upstream:
        for many in (1_000, 5_000):
            with all_running(upstream) as running:

                def sample(asking: Asking, many: int = many) -> dict[str, float]:
                    rss = {"after start, MB": asking.served.rss_bytes() / 1e6} if many == 1_000 else {}
                    asking.warm_up(SHORT)
                    return {**rss, f"a stream of {many:,}, KiB": asking.kib_a_stream(many)}

                names = [name for name in (NGINX, RELAY, OURS) if name in running]
                table.measure({name: functools.partial(sample, running[name]) for name in names}, rounds=1)
    table.claim("after start, MB", OURS, "MB", ("≤", 60))
    for many in (1_000, 5_000):
        table.claim(f"a stream of {many:,}, KiB", OURS, "KiB", ("≤", 40))
    return table
