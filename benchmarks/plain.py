"""What the library is compared with: the code that one writes who needs an answer and nothing else. No checks in it."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

import aiohttp

READ_BYTES = 256 * 1024
"""As much as asyncio asks a socket for."""


def headers() -> dict[str, str]:
    """The signed headers of one request. Source: docs/protocol.md#request-headers."""
    timestamp, nonce, bearer = str(int(time.time())), secrets.token_hex(16), "Bearer null"
    return {
        "Authorization": bearer,
        "x-timestamp": timestamp,
        "x-nonce": nonce,
        "x-signature": hashlib.md5(f"{timestamp}-{nonce}-{bearer}".encode(), usedforsecurity=False).hexdigest(),
        "x-flow-device-id": "f-0123456789abcdefghi",
    }


def body(question: str) -> dict[str, Any]:
    """The body of a question. Source: docs/protocol.md#request-body."""
    return {
        "model": "gpt-3.5-turbo",
        "nsfw": False,
        "question": question,
        "history": [],
        "system": "",
        "temperature": 0.7,
        "promptId": "model-gpt-3.5-turbo",
        "documentIds": [],
        "chatFileDocumentIds": [],
        "generateImage": False,
        "generateAudio": False,
    }


async def ask(session: aiohttp.ClientSession, origin: str, question: str) -> list[str]:
    """The texts of a reply, by aiohttp's lines and json."""
    texts: list[str] = []
    url = f"{origin}/v3/chat-anonymous"
    async with session.post(url, json=body(question), headers=headers()) as response:
        async for line in response.content:
            if line.strip():
                event = json.loads(line)
                if event["event"] == "text":
                    texts.append(event["data"])
    return texts


def split_lines(origin: str) -> Iterator[list[bytes]]:
    """The lines of a whole HTTP answer, head and chunk sizes too, those of each read together: nothing is decoded."""
    host, _, port = origin.removeprefix("http://").partition(":")
    asked = json.dumps(body("?")).encode()
    head = (
        f"POST /v3/chat-anonymous HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(asked)}\r\n\r\n"
    )
    tail = b""
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + asked)
        while data := connection.recv(READ_BYTES):
            lines = (tail + data).split(b"\n")
            tail = lines.pop()
            yield lines
