"""Under aiohttp: asyncio's protocol and msgspec, a generator of one text at a time, a connection for each reply.

It knows one form of answer, chunks that hold whole lines, and takes every line that begins as JSON for an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from .request import decode, http


class Reading(asyncio.Protocol):
    """The texts that came and are not fetched, the last one None."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []
        self.came = asyncio.Event()
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.texts += [decode(line).data for line in lines if line[:1] == b"{"]
        if lines[-2:] == [b"0\r", b"\r"]:
            self.texts.append(None)
        self.came.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self.texts.append(None)
        self.came.set()


def asking(origin: str) -> Callable[[str], AsyncGenerator[str, None]]:
    """Asks there."""
    host, _, port = origin.removeprefix("http://").partition(":")

    async def ask(question: str) -> AsyncGenerator[str, None]:
        transport, reading = await asyncio.get_running_loop().create_connection(Reading, host, int(port))
        transport.write(http(origin, question))
        try:
            while True:
                await reading.came.wait()
                reading.came.clear()
                texts, reading.texts = reading.texts, []
                for text in texts:
                    if text is None:
                        return
                    yield text
        finally:
            transport.close()

    return ask
