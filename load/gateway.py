"""A real `flowgpt serve` process, and what the system says of a process: memory, descriptors."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def running(origin: str) -> Iterator[tuple[int, str]]:
    """The gateway over the upstream at `origin`, while the block lasts: its process's number, and its base URL.

    Raises: AssertionError when it does not end properly.
    """
    command = [sys.executable, "-m", "flowgpt", "serve", "--port", "0", "--base-url", origin]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, "the gateway did not end properly"


def memory_bytes(process: int | None, word: str = "VmRSS") -> int:
    """The resident memory of a process, or its peak (VmHWM); None is this one. Linux only."""
    status = Path(f"/proc/{process or os.getpid()}/status").read_text()
    return int(status.partition(f"{word}:")[2].split()[0]) * 1024


def descriptors(process: int | None) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{process or os.getpid()}/fd"))
