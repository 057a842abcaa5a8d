"""The embedded server's floor: raw ASGI on uvicorn, which says the question back, a word a line, a write for each line.

`python -m benchmarks.floors.lines PORT`. It checks neither signature nor body.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import uvicorn

from .request import Event

encode = msgspec.json.encode


class Asked(msgspec.Struct):
    """What it reads of a request."""

    question: str


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The echo."""
    data, more = b"", True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]})
    for word in msgspec.json.decode(data, type=Asked).question.split():
        line = encode(Event("text", f"{word} ")) + b"\n\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="error", access_log=False, lifespan="off"
    )
