"""One execution: a harness's checks, and the time that its parser takes. Too long is a finding as well."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .cuts import cuts

HARNESSES = ("events", "sse", "chat_reply", "bodies", "headers")

SIZE = 64 * 1024
LIMIT_MS = 50.0
"""For each SIZE bytes of input, begun ones counted; of processor time, not of waiting."""


class TooSlow(Exception):
    """It took longer than LIMIT_MS, each of several times."""


def check(name: str) -> Callable[[bytes], None]:
    """A harness's checks of one input, all of them together within the limit, even of a fuzzer's slow code."""
    harness: Any = import_module(f"{__package__}.{name}")

    def run(data: bytes) -> None:
        spent_ms(lambda: harness.check(data, cuts(data)), LIMIT_MS)

    return run


def stretched_ms(name: str, data: bytes) -> float:
    """How long the parser takes for SIZE bytes made by repeating an input: not linear shows. Raises: TooSlow."""
    harness: Any = import_module(f"{__package__}.{name}")
    stretch = getattr(harness, "stretch", lambda data, size: data * (size // len(data)))
    long = stretch(data, SIZE) if data else data
    parts = max(1.0, len(long) / SIZE)
    return spent_ms(lambda: harness.parse(long), LIMIT_MS * parts) / parts


def spent_ms(work: Callable[[], object], limit_ms: float) -> float:
    """The time of some work; when over the limit, of several tries, since a busy machine slows a thread as well."""
    for _ in range(20):
        begun = time.thread_time()
        work()
        spent = (time.thread_time() - begun) * 1000
        if spent <= limit_ms:
            return spent
    raise TooSlow(f"{spent:.0f} ms, and the limit is {limit_ms:.0f}")
