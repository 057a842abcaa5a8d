"""The lines of a batch's input, one after the other: from a file, or from a pipe that another thread reads.

What a line means is none of this file's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from array import array
from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from typing import BinaryIO

from ..formats.openai.batch import LIMIT_LINE_BYTES

Line = tuple[int, bytes]
"""A line's number, from 1, and its bytes without its end."""

BOM = b"\xef\xbb\xbf"

AHEAD = 16
"""How many lines of a pipe are read before they are wanted."""


def lines(stream: BinaryIO, limit: int = LIMIT_LINE_BYTES) -> Iterator[Line]:
    """The lines that are not blank. Of a longer one than `limit` come `limit` + 1 bytes. A BOM before all is left out.

    Raises: OSError.
    """
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            _skip(stream)
        elif number == 1:
            line = line.removeprefix(BOM)
        line = line.rstrip(b"\r\n")
        if line.strip():
            yield number, line


def _skip(stream: BinaryIO) -> None:
    """To the line's end."""
    while (rest := stream.readline(65536)) and not rest.endswith(b"\n"):
        pass


class Read(AsyncIterator[Line]):
    """Lines that are there, or come at once: of a file. Any number of tasks may read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = lines(stream)

    async def __anext__(self) -> Line:
        for line in self._lines:
            return line
        raise StopAsyncIteration


class Piped(AsyncIterator[Line]):
    """Lines that may be long in coming: a thread reads them, at most AHEAD before they are wanted.

    It is a daemon, for it cannot be interrupted: nobody else may use `stream`. Any number of tasks may read.
    Raises: OSError.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: asyncio.Queue[Line | OSError | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, name="flowgpt-batch", daemon=True).start()

    def _read(self) -> None:
        end: OSError | None = None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants them any more
            try:
                for line in lines(self._stream):
                    self._room.acquire()
                    self._put(line)
            except OSError as error:
                end = error
            self._put(end)

    def _put(self, item: Line | OSError | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def __anext__(self) -> Line:
        item = await self._queue.get()
        if isinstance(item, tuple):
            self._room.release()
            return item
        self._queue.put_nowait(item)  # the others are to know it too
        if item is None:
            raise StopAsyncIteration
        raise item


class Seen:
    """Which names have come: 8 bytes of hash each, in a table at most half full, so 16 to 32 MB for a million.

    That two of a million names have the same hash happens once in thirty million such files.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def add(self, name: str) -> bool:
        """Note the name. False: it has come before."""
        key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) or 1  # 0 is an empty slot
        slot = self._slot(key)
        if self._slots[slot] == key:
            return False
        self._slots[slot] = key
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def _slot(self, key: int) -> int:
        """Where the key is, or may be put."""
        slot = key % len(self._slots)
        while self._slots[slot] not in (0, key):
            slot = (slot + 1) % len(self._slots)
        return slot

    def _grow(self) -> None:
        before = self._slots
        self._slots = array("Q", bytes(16 * len(before)))
        for key in filter(None, before):
            self._slots[self._slot(key)] = key
