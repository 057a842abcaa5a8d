"""The gateway beside other gateways: each one process, in turn. Ours has authentication and limits on."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .. import gateway
from ..figures import Table
from ..gateway import NGINX, OURS, RELAY
from ..native import Mode, Upstream
from ..servers import Asking
from .table import GATEWAYS, versions

SHORT, TEXTS, HELD = 20, 5_000, 1_000
FEW = 50
"""Streams of a peer in a round; ours and the floors, which are quicker, get ten times as many."""
FLOORS = (NGINX, RELAY)
AT_LEAST = {"LiteLLM's proxy": 60, "g4f's API": 10, "Portkey's gateway": 10}


@contextmanager
def asked(upstream: Upstream) -> Iterator[dict[str, Asking]]:
    """All that are compared, running."""
    with ExitStack() as stack:
        near = stack.enter_context(gateway.asked(upstream))
        ours = {name: near[name] for name in (*FLOORS, OURS) if name in near}
        yield ours | {name: stack.enter_context(peer.running(upstream.origin)) for name, peer in GATEWAYS.items()}


def run() -> list[Table]:
    """Raises: WrongResult."""
    tables = [short(), long(), memory()]
    tables[0].notes.append(f"peers: {versions()}")
    return tables


def short() -> Table:
    """Short streams, and the first text of one."""
    table = Table("Gateways: short streams of 20 texts, over 32 connections; and the first text, one stream at a time")
    with Upstream("burst", SHORT) as upstream, asked(upstream) as running:

        def sample(name: str, asking: Asking) -> dict[str, float]:
            streams = FEW if name in GATEWAYS else 10 * FEW
            found, cpu_s = asking.ask(SHORT, streams=streams)
            alone, _ = asking.ask(SHORT, streams=streams, connections=1)
            return {
                "a second": found.streams / found.seconds,
                "a CPU second": found.streams / cpu_s,
                "first text p50, µs": alone.first_p50_us,
                "first text p99, µs": alone.first_p99_us,
                "generator, of a core": found.busy,
            }

        table.measure({name: functools.partial(sample, name, asking) for name, asking in running.items()})
    for peer in GATEWAYS:
        target = AT_LEAST.get(peer)
        table.ratio("a second", OURS, peer, ("≥", target) if target else None)
        table.ratio("a CPU second", OURS, peer)
    table.notes.append(f"upstream: {upstream.busy:.0%} of a core")
    return table


def long() -> Table:
    """What a text costs."""
    table = Table("Gateways: CPU per text, µs")
    modes: dict[Mode, str] = {"burst": "many in a read", "each": "a write each"}
    for mode, column in modes.items():
        with Upstream(mode, TEXTS) as upstream, asked(upstream) as running:

            def sample(name: str, asking: Asking, column: str = column) -> dict[str, float]:
                streams = 1 if name in GATEWAYS else 10
                _, cpu_s = asking.ask(TEXTS, streams=streams, connections=1)
                return {column: cpu_s / streams / TEXTS * 1e6}

            table.measure({name: functools.partial(sample, name, asking) for name, asking in running.items()})
        table.notes.append(f"upstream, {mode}: {upstream.busy:.0%} of a core")
        for peer in GATEWAYS:
            table.ratio(column, peer, OURS)
    return table


def memory() -> Table:
    """What the process takes, and what an open stream takes."""
    table = Table("Gateways: resident memory")
    with Upstream("hold", SHORT) as upstream, asked(upstream) as running:

        def sample(name: str, asking: Asking) -> dict[str, float]:
            found = {"after start, MB": asking.served.rss_bytes() / 1e6}
            if name not in GATEWAYS or GATEWAYS[name].holds:
                warm = json.loads(json.dumps(asking.body).replace('"?"', '"warm up"'))
                dataclasses.replace(asking, body=warm).ask(SHORT, streams=FEW)
                found[f"a stream of {HELD:,}, KiB"] = asking.kib_a_stream(HELD)
            return found

        table.measure({name: functools.partial(sample, name, asking) for name, asking in running.items()}, rounds=1)
    table.notes.append("g4f has no more than 20 streams open to one host at a time.")
    table.claim("after start, MB", OURS, "MB", ("≤", 60))
    table.claim(f"a stream of {HELD:,}, KiB", OURS, "KiB", ("≤", 40))
    return table
