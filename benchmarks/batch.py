"""`flowgpt batch`: rows a minute and a CPU second, beside the bare loop that asks and writes a line for each."""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from pathlib import Path

from . import native
from .figures import Table, expect
from .native import Upstream, environment

ROWS, FEW, TEXTS, CONCURRENCY = 3_000, 100, 20, "8"
FLOOR = """
import asyncio, os, sys
import msgspec
from benchmarks.floors import generator

async def main(origin, source, target, concurrency):
    ask, rows = generator.asking(origin), iter(open(source, "rb"))
    with open(target, "wb") as file:
        async def work():
            for row in rows:
                texts = [text async for text in ask(msgspec.json.decode(row)["prompt"])]
                file.write(msgspec.json.encode({"answer": "".join(texts)}) + b"\\n")
        await asyncio.gather(*(work() for _ in range(int(concurrency))))

    os._exit(0)  # it closes nothing, and aiohttp would say so

asyncio.run(main(*sys.argv[1:]))
"""


def run() -> list[Table]:
    """Raises: WrongResult."""
    table = Table(f"Rows of {TEXTS} texts, {CONCURRENCY} at a time: what comes after the first {FEW}")
    with Upstream("burst", TEXTS) as upstream, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows in (FEW, ROWS):
            lines = (json.dumps({"prompt": f"What is {number}?"}) + "\n" for number in range(rows))
            (folder / f"{rows}").write_text("".join(lines))

        def spent(variant: str, rows: int) -> tuple[float, float]:
            source, target = str(folder / f"{rows}"), folder / "answers"
            target.unlink(missing_ok=True)
            ours = ["-m", "flowgpt", "batch", source, "-o", str(target), "--base-url", upstream.origin, "--quiet"]
            ours += ["--concurrency", CONCURRENCY]
            floor = ["-c", FLOOR, upstream.origin, source, str(target), CONCURRENCY]
            words = ours if variant == "flowgpt batch" else floor
            env = environment(folder) | {"FLOWGPT_HOME": str(folder / "home")}
            lasted_s, cpu_s, _ = native.spent([sys.executable, *words], env)
            expect(sum(line.count(b"~19") for line in target.open("rb")), rows, f"{variant}: whole answers")
            return lasted_s, cpu_s

        def sample(variant: str) -> dict[str, float]:
            (few_s, few_cpu_s), (many_s, many_cpu_s) = spent(variant, FEW), spent(variant, ROWS)
            rows = ROWS - FEW
            return {"a minute": rows / (many_s - few_s) * 60, "a CPU second": rows / (many_cpu_s - few_cpu_s)}

        variants = ("flowgpt batch", "floor: a bare loop")
        table.measure({variant: functools.partial(sample, variant) for variant in variants}, rounds=3)
    for column in table.columns:
        table.ratio(column, "flowgpt batch", "floor: a bare loop")
    table.notes.append(f"upstream: {upstream.busy:.0%} of a core")
    return [table]
