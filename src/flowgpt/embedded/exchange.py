"""One answer on its way to its client: ASGI messages, and the raw connection below for what ASGI cannot say.

The ordinary reply and every scripted fault are written in these few verbs. Nothing here knows HTTP routes or faults.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from ..messages import Event
from ..protocol import events

CONTENT_TYPE = "application/x-ndjson; charset=utf-8"
"""Ours: the service's own is unknown."""

YIELD_EVERY = 32
"""How many writes may go out in a row before other connections get their turn, when the client reads as fast."""

Headers = Iterable[tuple[str, str]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Exchange:
    """What an answer is made with. `pace_s`: the pause between two texts."""

    def __init__(
        self, send: Send, transport: asyncio.Transport, texts: AsyncGenerator[str, None], *, pace_s: float = 0.0
    ) -> None:
        self.pace_s = pace_s
        self.started = self.ended = False
        self._send = send
        self._transport = transport
        self._texts = texts
        self._taken = self._written = 0

    async def line(self) -> bytes | None:
        """The responder's next text, as the service would send it; None after the last."""
        if self._taken and self.pace_s:
            await asyncio.sleep(self.pace_s)
        text = await anext(self._texts, None)
        self._taken += 1
        return None if text is None else events.encode(Event("text", text))

    async def start(self, status: int = 200, headers: Headers = (), *, content_type: str = CONTENT_TYPE) -> None:
        """Send the head. The body is chunked unless a Content-Length is among the headers."""
        self.started = True
        fields = [("content-type", content_type), *headers]
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body: one write, and one HTTP chunk. Waits for a client that reads slowly."""
        if self._transport.is_closing():
            await self.hang()  # the client has left; whoever plays this is about to be told
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._written += 1
        if self._written % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def end(self) -> None:
        """End the body properly."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def respond(self, status: int, body: bytes, *, content_type: str, headers: Headers = ()) -> None:
        """Send a whole answer that is no stream."""
        await self.start(status, [("content-length", str(len(body))), *headers], content_type=content_type)
        await self.write(body)
        await self.end()

    async def stream(self, count: int | None = None, change: Callable[[bytes], bytes] = bytes) -> None:
        """Send the next `count` texts, or all that are left, each as one write of what `change` makes of its line."""
        while count is None or count > 0:
            line = await self.line()
            if line is None:
                return
            await self.write(change(line))
            count = None if count is None else count - 1

    async def reply(self, headers: Headers = ()) -> None:
        """Answer as the service does. The head leaves with the first text, so a failure before it is a status."""
        line = await self.line()
        await self.start(headers=headers)
        while line is not None:
            await self.write(line)
            line = await self.line()
        await self.end()

    def raw(self, data: bytes) -> None:
        """Write bytes as they are, past HTTP's framing."""
        self._transport.write(data)

    def cut(self) -> None:
        """Close the connection (FIN) after what was written; the body has no proper end."""
        self._transport.close()

    async def reset(self) -> None:
        """Break the connection (RST) after what was written."""
        while self._transport.get_write_buffer_size() and not self._transport.is_closing():  # noqa: ASYNC110  # a transport has no event for this
            await asyncio.sleep(0.001)
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def hang(self) -> None:
        """Send nothing more, until the client leaves."""
        await asyncio.Event().wait()
