"""`python -m fuzz SECONDS [NAME ...]`: the harnesses one after the other, SECONDS in all. Exit code 1: a finding.

What libFuzzer learns is kept in .fuzz/NAME, and used the next time; a finding's input is saved in .fuzz/findings.
Then all that is kept is run once more as it is, for its time: a fuzzer's instrumented code is some ten times slower.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from .guard import HARNESSES
from .replay import CORPUS, inputs

KEPT = Path(".fuzz")
FINDINGS = KEPT / "findings"
OPTIONS = ["-max_len=1024", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]


def main(seconds: int, names: list[str]) -> int:
    """Run the harnesses and print their figures. Returns how many of them found something."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    print(f"{'harness':12} {'executions':>12} {'each second':>12} {'slowest, 64 KiB':>16}  finding")
    return sum(found(name, max(1, seconds // len(names))) for name in names)


def found(name: str, seconds: int) -> bool:
    """Run one harness, print its figures, and say whether it found something."""
    kept = KEPT / name
    kept.mkdir(exist_ok=True)
    options = [*OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-"]
    begun = time.monotonic()
    code, told = ran("fuzz.harness", name, *options, str(kept), str(CORPUS / name))
    rate = executions(told) / (time.monotonic() - begun)
    saved = re.findall(r"Test unit written to (\S+)", told)
    slowest = "-"
    if not code:
        code, told_again = ran("fuzz.replay", name, *map(str, [*inputs(CORPUS / name), *inputs(kept)]))
        slowest = "".join(re.findall(r"at most (\S+ ms)", told_again))
        saved, told = re.findall(r"the input: (\S+)", told_again), told + told_again
    finding = (saved[-1] if saved else "it failed") if code else "none"
    print(f"{name:12} {executions(told):12,} {rate:12,.0f} {slowest:>16}  {finding}", flush=True)
    if code:
        lines = [line for line in told.splitlines() if not re.match(r"#\d|INFO|NEW_FUNC|WARNING", line)]
        print("\n".join(lines[-40:]), file=sys.stderr)
    return bool(code)


def ran(module: str, *arguments: str) -> tuple[int, str]:
    """Run a module of this package. Returns its exit code, and what it wrote."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    return done.returncode, done.stdout


def executions(told: str) -> int:
    """How many inputs libFuzzer has run, by what it wrote."""
    counts = re.findall(r"^(?:#|stat::number_of_executed_units: )(\d+)", told, re.MULTILINE)
    return max(map(int, counts), default=0)


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]), sys.argv[2:] or [*HARNESSES]) else 0)
