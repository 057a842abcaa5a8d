"""The gateway beside other gateways: each one process, in turn. Ours has authentication and limits on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .. import gateway
from ..figures import Table
from ..gateway import NGINX, OURS, RELAY, SHORT
from ..native import Upstream
from ..servers import Asking
from .table import GATEWAYS, versions

HELD = 1_000
FEW = 50
"""Streams of a peer in a round; ours and the floors, which are quicker, get ten times as many."""
FLOORS = (NGINX, RELAY)
AT_LEAST = {"LiteLLM's proxy": 60, "g4f's API": 10, "Portkey's gateway": 10}


@contextmanager
def all_running(upstream: Upstream) -> Iterator[dict[str, Asking]]:
    """All that are compared, running."""
    with ExitStack() as stack:
        near = stack.enter_context(gateway.all_running(upstream))
        ours = {name: near[name] for name in (*FLOORS, OURS) if name in near}
        yield ours | {name: stack.enter_context(peer.running(upstream.origin)) for name, peer in GATEWAYS.items()}


def run() -> list[Table]:
    """Raises: WrongResult."""
    tables = [short(), long(), memory()]
    tables[0].notes.append(f"peers: {versions()}")
    return tables


def short() -> Table:
    """Short streams, and the first text of one."""
    title = "Gateways: short streams of 20 texts, over 32 connections; and the first text, one stream at a time"
    table = gateway.of_short(title, all_running, lambda name: FEW if name in GATEWAYS else 10 * FEW)
    for peer in GATEWAYS:
        target = AT_LEAST.get(peer)
        table.ratio("a second", OURS, peer, ("≥", target) if target else None)
        table.ratio("a CPU second", OURS, peer)
    return table


def long() -> Table:
    """What a text costs."""
    table = gateway.of_long("Gateways: CPU per text, µs", all_running, lambda name: 1 if name in GATEWAYS else 10)
    for column in table.columns:
        for peer in GATEWAYS:
            table.ratio(column, peer, OURS)
    return table


def memory() -> Table:
    """What the process takes, and what an open stream takes."""
    table = Table("Gateways: resident memory")
    with Upstream("hold", SHORT) as upstream, all_running(upstream) as running:

        def sample(name: str, asking: Asking) -> dict[str, float]:
            found = {"after start, MB": asking.served.rss_bytes() / 1e6}
            if name not in GATEWAYS or GATEWAYS[name].holds:
                asking.warm_up(SHORT)
                found[f"a stream of {HELD:,}, KiB"] = asking.kib_a_stream(HELD)
            return found

        table.measure({name: functools.partial(sample, name, asking) for name, asking in running.items()}, rounds=1)
    table.notes.append("g4f has no more than 20 streams open to one host at a time.")
    table.claim("after start, MB", OURS, "MB", ("≤", 60))
    table.claim(f"a stream of {HELD:,}, KiB", OURS, "KiB", ("≤", 40))
    return table
