"""How an input is cut into reads: by its own bytes, so that a finding is the same finding when it is run again."""

from __future__ import annotations

import zlib

LIMIT_SINGLE = 48
"""Up to how many bytes an input is cut into single bytes as well: that is slow, and short inputs show as much."""


def cuts(data: bytes) -> list[list[bytes]]:
    """Some ways to cut the bytes: in three at places that look like chance, and into single bytes."""
    drawn, count = zlib.crc32(data), len(data) + 1
    first, second = sorted((drawn % count, (drawn >> 16) % count))
    ways = [[data[:first], data[first:second], b"", data[second:]]]
    if len(data) <= LIMIT_SINGLE:
        ways.append([data[place : place + 1] for place in range(len(data))])
    return ways
