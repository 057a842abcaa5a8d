"""The library's floor: aiohttp and msgspec, a generator of one text at a time, one session."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import aiohttp
import msgspec

from .request import PATH, body, decode, headers


def asking(origin: str) -> Callable[[str], AsyncGenerator[str, None]]:
    """Asks there."""
    session: aiohttp.ClientSession | None = None

    async def ask(question: str) -> AsyncGenerator[str, None]:
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
            )
        data = msgspec.json.encode(body(question))
        async with session.post(origin + PATH, data=data, headers=headers()) as response:
            rest = b""
            async for read in response.content.iter_any():
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    if line:
                        event = decode(line)
                        if event.event == "text":
                            yield event.data

    return ask
