"""A client made of bytes: it asks the embedded server over a raw socket, and knows neither flowgpt nor an HTTP library.

Every byte of a request is written here from protocol.md; answers are cut up by hand. Nothing waits without a bound.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

BOUND_S = 10.0
ANONYMOUS = "/v3/chat-anonymous"
SIGNED_IN = "/v3/chat"

_numbers = itertools.count(1)


def body(*, signed_in: bool = False, **changes: Any) -> bytes:
    """A chat body with every field of protocol.md; a change to `...` leaves the field out."""
    fields: dict[str, Any] = {
        "model": "gpt-3.5-turbo",
        "nsfw": False,
        "question": "Hello",
        "history": [],
        "system": "",
        "temperature": 0.7,
        "promptId": "model-gpt-3.5-turbo",
        "documentIds": [],
        "generateImage": False,
        "generateAudio": False,
    }
    own: dict[str, Any] = {"userId": "", "conversationId": ""} if signed_in else {"chatFileDocumentIds": []}
    return json.dumps({name: value for name, value in (fields | own | changes).items() if value is not ...}).encode()


def signed(token: str = "null", *, at_s: float | None = None, nonce: str | None = None) -> dict[str, str]:
    """The protocol's headers, computed here and not by the package."""
    stamp = str(int(time.time() if at_s is None else at_s))
    nonce = f"{next(_numbers):032x}" if nonce is None else nonce
    return {
        "authorization": f"Bearer {token}",
        "x-timestamp": stamp,
        "x-nonce": nonce,
        "x-signature": hashlib.md5(f"{stamp}-{nonce}-Bearer {token}".encode()).hexdigest(),
        "x-flow-device-id": "f-" + "0" * 19,
        "content-type": "application/json",
    }


def request(
    path: str = ANONYMOUS,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    keep: bool = False,
) -> bytes:
    """A whole request; the connection closes after it, unless it is to be kept."""
    data = body() if data is None else data
    fields = {"host": "127.0.0.1", "content-length": str(len(data))} | (signed() if headers is None else headers)
    if not keep:
        fields["connection"] = "close"
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + data


def connect(base_url: str) -> socket.socket:
    host, _, port = base_url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=BOUND_S)


def read_until(connection: socket.socket, mark: bytes, start: bytes = b"") -> bytes:
    """Read until `mark` has come. Fails when the connection ends before."""
    data = start
    while mark not in data:
        piece = connection.recv(65536)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


@dataclass(frozen=True)
class Answer:
    """Everything that came until the connection ended. `ending`: FIN or RST."""

    raw: bytes
    ending: str

    @property
    def undated(self) -> bytes:
        """All bytes, but for the one header line that changes."""
        return b"\r\n".join(line for line in self.raw.split(b"\r\n") if not line.startswith(b"date: "))

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def head(self) -> list[str]:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        assert "content-type: application/json" in self.head
        return json.loads(self.body)


def ask(base_url: str, data: bytes | None = None) -> Answer:
    """Send these bytes (a good anonymous chat when none are given), and read until the connection ends."""
    with connect(base_url) as connection:
        connection.sendall(request() if data is None else data)
        return Answer(*read_to_end(connection))


def read_to_end(connection: socket.socket) -> tuple[bytes, str]:
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        return b"".join(pieces), "RST"
    return b"".join(pieces), "FIN"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: application/x-ndjson; charset=utf-8\r\n"
    b"connection: close\r\n"
    b"transfer-encoding: chunked\r\n"
    b"\r\n"
)
LAST = b"0\r\n\r\n"

TEXTS = ("Hel", "lo", " é")
LINES = (
    b'{"event":"text","data":"Hel"}\n\n',
    b'{"event":"text","data":"lo"}\n\n',
    b'{"event":"text","data":" \xc3\xa9"}\n\n',
)
CHUNKS = tuple(chunk(line) for line in LINES)


async def spoken(_: object) -> AsyncGenerator[str, None]:
    """A responder that says TEXTS."""
    for text in TEXTS:
        yield text
