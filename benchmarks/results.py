"""Tables as Markdown: on the terminal, and in RESULTS.md, where a run of some rooms replaces only theirs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .figures import Claim, Table, middle

ROOMS = ("library", "gateway", "instructions", "embedded", "decoding", "batch", "store", "start", "fleet")
PEERS = ("peers.clients", "peers.gateways")
"""In the order of RESULTS.md."""

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Results

Written by `make bench` and `make bench-peers`; [README.md](README.md) says what is measured and how. Each figure is a
median, with the lowest and the highest sample; a ratio is the median of the rounds' ratios. The machine is shared: what
was taken in one round is comparable, seconds of two rooms are not.
"""


def machine() -> str:
    """When, where, and of which versions, in one paragraph."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("flowgpt", "aiohttp", "uvicorn", "uvloop", "msgspec"))
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kind = found[1] if found else platform.machine()
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    compiler = subprocess.run(["cc", "-dumpfullversion"], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {platform.system()} {platform.release()}, {os.cpu_count()} × {kind}, "
        f"load {load}; Python {platform.python_version()}, {packages}, cc {compiler}."
    )


def render(table: Table) -> str:
    """A table, its claims, its notes."""
    lines = [f"### {table.title}", ""]
    if table.cells:
        lines += _grid(["", *table.columns], ([name, *_row(table, name)] for name in table.cells))
    if table.claims:
        lines += _grid(["claim", "median (spread)", "target", ""], map(_claim, table.claims))
    return "\n".join([*lines, *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def write(room: str, tables: Sequence[Table], *, machine: str, path: Path = RESULTS) -> None:
    """Put the tables in place of that room's. `machine`: where they were taken."""
    text = path.read_text() if path.exists() else HEAD
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    by_room = {section.partition("\n")[0].removeprefix("## "): section for section in sections}
    by_room[room] = "\n".join([f"## {room}\n", f"{machine}\n", *map(render, tables)]).rstrip() + "\n\n"
    in_order = sorted(by_room, key=(*ROOMS, *PEERS).index)
    path.write_text((head.rstrip() + "\n\n" + "".join(map(by_room.__getitem__, in_order))).rstrip() + "\n")


def missed(tables: Iterable[Table]) -> None:
    """Say on stderr which targets were missed."""
    for claim in (claim for table in tables for claim in table.claims if claim.met is False):
        print(f"MISSED: {claim.name}: {_claim(claim)[1]}, {_claim(claim)[2]}", file=sys.stderr)


def _row(table: Table, name: str) -> list[str]:
    row = table.cells[name]
    return [middle(row[column]) if column in row else "–" for column in table.columns]


def _claim(claim: Claim) -> list[str]:
    target = f"{claim.target[0]} {claim.target[1]:g} {claim.unit}" if claim.target else "–"
    verdict = {True: "met", False: "**MISSED**", None: ""}[claim.met]
    return [claim.name, f"{middle(claim.samples)} {claim.unit}", target, verdict]


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return [*("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)), ""]
