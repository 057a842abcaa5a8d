"""The store: turns a second that are safe on the disk, beside bare SQLite with the same settings, and beside fsync."""

from __future__ import annotations

import functools
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flowgpt.conversation import Turn
from flowgpt.store import Store

from .figures import Table

TURNS = 200
TEXT = "A turn of some length, as one says it. " * 10
OURS, FLOOR, DISK = "flowgpt", "floor: bare SQLite", "floor: fsync alone"


def run() -> list[Table]:
    """Raises: StoreError."""
    table = Table(f"Turns of {len(TEXT)} characters, each kept before the next")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:  # a real disk, where /tmp may be memory
        store = Store(Path(name, "flowgpt.db"))
        bare = sqlite3.connect(Path(name, "bare.db"), isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE turn (text TEXT)"):
            bare.execute(statement)
        file = os.open(Path(name, "file"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def ours() -> None:
            asked = Turn(role="user", text=TEXT, created_s=1.0)
            id_ = None
            for number in range(TURNS):
                id_ = store.conversations.add(id_, number, [asked])

        def floor() -> None:
            for _ in range(TURNS):
                bare.execute("INSERT INTO turn VALUES (?)", (TEXT,))

        def disk() -> None:
            for _ in range(TURNS):
                os.write(file, TEXT.encode())
                os.fsync(file)

        def sample(write: Callable[[], None]) -> dict[str, float]:
            began_s, before_s = time.monotonic(), time.process_time()
            write()
            cpu_s, lasted_s = time.process_time() - before_s, time.monotonic() - began_s
            return {"turns a second": TURNS / lasted_s, "CPU of a turn, µs": cpu_s / TURNS * 1e6}

        variants = {OURS: ours, FLOOR: floor, DISK: disk}
        table.measure({variant: functools.partial(sample, write) for variant, write in variants.items()})
        store.close()
        bare.close()
        os.close(file)
    table.ratio("turns a second", OURS, FLOOR)
    table.ratio("CPU of a turn, µs", OURS, FLOOR)
    return [table]
