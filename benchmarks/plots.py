"""Tables as SVG plots in docs/performance/: `draw` after a room has run. Logarithmic scales; medians with their spread.

Written here and by no library: two forms of plot take fewer lines than an environment for matplotlib and the passing of
tables into it would; the files are small, change only where figures do, and follow the reader's light or dark page by a
style sheet, which matplotlib's cannot.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .figures import Table, number

FOLDER = Path(__file__).parents[1] / "docs" / "performance"
WIDTH, LEFT, RIGHT, TOP, ROW, HEIGHT = 680, 190, 70, 52, 26, 260
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.tick { font-size: 11px; fill: #6e7781 }
.grid { stroke: #d0d7de }
.spread { stroke: #24292f }
.ours { fill: #0969da; stroke: #0969da }
.floor { fill: #bf8700; stroke: #bf8700 }
.other { fill: #8c959f; stroke: #8c959f }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.tick { fill: #9198a1 }
.grid { stroke: #3d444d }
.spread { stroke: #e6edf3 }
.ours { fill: #4493f8; stroke: #4493f8 }
.floor { fill: #d29922; stroke: #d29922 }
}
</style>"""


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars of one column, a bar for each row; without a column, a line for each row over columns that are numbers."""

    file: str
    title: str
    room: str
    table: str
    """How the table's title begins."""
    column: str = ""


PLOTS = (
    Plot(
        "clients-text",
        "Clients: CPU per text, many in a read, µs (less is better)",
        "peers.clients",
        "Clients: CPU",
        "many in a read, µs a text",
    ),
    Plot(
        "clients-memory",
        "Clients: KiB per open stream (less is better)",
        "peers.clients",
        "Clients: resident",
        "1,000 streams",
    ),
    Plot(
        "clients-import",
        "Import, ms of CPU (less is better)",
        "peers.clients",
        "Clients: the import",
        "import, ms of CPU",
    ),
    Plot(
        "gateways-streams",
        "Gateways: short streams a second (more is better)",
        "peers.gateways",
        "Gateways: short",
        "a second",
    ),
    Plot(
        "gateways-text",
        "Gateways: CPU per text, many in a read, µs (less is better)",
        "peers.gateways",
        "Gateways: CPU",
        "many in a read",
    ),
    Plot(
        "gateways-memory",
        "Gateways: KiB per open stream (less is better)",
        "peers.gateways",
        "Gateways: resident",
        "a stream of 1,000, KiB",
    ),
    Plot("library-crowd", "Library: CPU per text, µs, by open streams", "library", "CPU per text, µs, while"),
    Plot(
        "library-length",
        "Library: CPU of each more text, µs, by texts of the reply",
        "library",
        "CPU of each more text",
    ),
    Plot("gateway-crowd", "Gateway: CPU per text, µs, by open streams", "gateway", "CPU per text, µs, while"),
)


def draw(room: str, tables: Sequence[Table], folder: Path = FOLDER) -> None:
    """Write the plots that show these tables. Raises: KeyError, when a table has no such column."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot in PLOTS:
        for table in tables:
            if plot.room == room and table.title.startswith(plot.table):
                svg = bars(plot.title, table, plot.column) if plot.column else lines(plot.title, table)
                (folder / f"{plot.file}.svg").write_text(svg)


def bars(title: str, table: Table, column: str) -> str:
    """A bar for each row that has the column."""
    rows = {name: row[column] for name, row in table.cells.items() if column in row}
    across = Scale([sample for samples in rows.values() for sample in samples], LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    parts = [across.grid(TOP - 6, bottom)]
    for place, (name, samples) in enumerate(rows.items()):
        y, x, low, high = TOP + ROW * place, *map(across, (statistics.median(samples), min(samples), max(samples)))
        kind = _kind(name)
        parts += [
            _text(LEFT - 8, y + 14, name, 'text-anchor="end"'),
            f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{x - LEFT:.1f}" height="{ROW - 10}"/>',
            f'<path class="spread" d="M{low:.1f} {y + 10}H{high:.1f}"/>',
            _text(max(x, high) + 6, y + 14, number(statistics.median(samples))),
        ]
    return _svg(title, bottom + 24, parts)


def lines(title: str, table: Table) -> str:
    """A line for each row, over columns such as `1,000`, or `100 to 1,000`, which stands for the latter."""
    at = {column: int(column.rpartition(" ")[2].replace(",", "")) for column in table.columns}
    across = Scale(list(at.values()), 60, WIDTH - RIGHT)
    all_samples = [sample for row in table.cells.values() for samples in row.values() for sample in samples]
    up = Scale(all_samples, HEIGHT, TOP + 20)
    parts = [across.grid(TOP + 20, HEIGHT), up.grid(60, WIDTH - RIGHT, sideways=True)]
    for place, (name, row) in enumerate(table.cells.items()):
        points = [(across(at[column]), up(statistics.median(samples))) for column, samples in row.items()]
        path, kind, key = "L".join(f"{x:.1f} {y:.1f}" for x, y in points), _kind(name), 60 + 220 * place
        parts += [
            f'<path class="{kind}" style="fill: none; stroke-width: 2" d="M{path}"/>',
            *(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points),
            f'<rect class="{kind}" x="{key}" y="{TOP - 10}" width="12" height="10"/>',
            _text(key + 18, TOP, name),
        ]
    return _svg(title, HEIGHT + 24, parts)


class Scale:
    """A place for each value, from a power of ten to another, both beyond all values."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        positive = [value for value in values if value > 0]
        self.low = math.floor(math.log10(min(positive)))
        self.high = max(math.ceil(math.log10(max(positive))), self.low + 1)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        """The place, in pixels; that of the lowest power for what has no logarithm."""
        share = (math.log10(value) - self.low) / (self.high - self.low) if value > 0 else 0
        return self._start + (self._end - self._start) * share

    def grid(self, start: float, end: float, *, sideways: bool = False) -> str:
        """A line and a label at each power of ten."""
        drawn = []
        for power in range(self.low, self.high + 1):
            place, label = self(10.0**power), f"{10.0**power:,.{max(0, -power)}f}"
            if sideways:
                drawn += [
                    f'<path class="grid" d="M{start} {place:.1f}H{end}"/>',
                    _tick(start - 6, place + 4, label, "end"),
                ]
            else:
                drawn += [
                    f'<path class="grid" d="M{place:.1f} {start}V{end}"/>',
                    _tick(place, end + 15, label, "middle"),
                ]
        return "\n".join(drawn)


def _kind(row: str) -> str:
    return "ours" if row.startswith("flowgpt") else "floor" if row.startswith("floor") else "other"


def _tick(x: float, y: float, label: str, anchor: str) -> str:
    return _text(x, y, label, f'class="tick" text-anchor="{anchor}"')


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img"'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {box}>', f"<title>{escape(title)}</title>", STYLE]
    return "\n".join([*head, _text(16, 24, title, 'class="title"'), *parts, "</svg>\n"])
