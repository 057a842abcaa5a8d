"""The gateway's floor: raw ASGI on uvicorn, aiohttp to the upstream, msgspec, one SSE write for each read.

`python -m benchmarks.floors.relay PORT ORIGIN [WORKERS]`. It answers every request as a streamed chat completion.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import aiohttp
import msgspec
import uvicorn

from .request import PATH, body, decode, headers


class Asked(msgspec.Struct):
    """What it reads of a request."""

    messages: list[dict[str, str]]


read_request = msgspec.json.Decoder(Asked).decode
encode = msgspec.json.encode
BEFORE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-3.5-turbo",'
    b'"choices":[{"index":0,"delta":{"content":'
)
AFTER = b'},"finish_reason":null}]}\n\n'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}
session: aiohttp.ClientSession | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The relay."""
    global session
    if session is None:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
    data, more = b"", True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    asked = encode(body(read_request(data).messages[-1]["content"]))
    await send(START)
    rest = b""
    async with session.post(os.environ["ORIGIN"] + PATH, data=asked, headers=headers()) as response:
        async for read in response.content.iter_any():
            *lines, rest = (rest + read).split(b"\n")
            events = [decode(line) for line in lines if line]
            written = b"".join([BEFORE + encode(event.data) + AFTER for event in events if event.event == "text"])
            if written:
                await send({"type": "http.response.body", "body": written, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


if __name__ == "__main__":
    port, os.environ["ORIGIN"], *workers = sys.argv[1:]
    uvicorn.run(
        "benchmarks.floors.relay:app",
        port=int(port),
        workers=int(workers[0]) if workers else 1,
        http="httptools",
        loop="uvloop",
        log_level="error",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
