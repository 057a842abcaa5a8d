"""A question as FlowGPT's service expects it, signed; and its lines. Source: docs/protocol.md."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

import msgspec

PATH = "/v3/chat-anonymous"


class Event(msgspec.Struct):
    """A line."""

    event: str
    data: str


decode = msgspec.json.Decoder(Event).decode


def headers() -> dict[str, str]:
    """The signed headers of one request. Source: docs/protocol.md#request-headers."""
    timestamp, nonce, bearer = str(int(time.time())), secrets.token_hex(16), "Bearer null"
    return {
        "Authorization": bearer,
        "x-timestamp": timestamp,
        "x-nonce": nonce,
        "x-signature": hashlib.md5(f"{timestamp}-{nonce}-{bearer}".encode(), usedforsecurity=False).hexdigest(),
        "x-flow-device-id": "f-0123456789abcdefghi",
        "Content-Type": "application/json",
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


def http(origin: str, question: str) -> bytes:
    """The whole request."""
    data = msgspec.json.encode(body(question))
    facts = {"Host": origin.removeprefix("http://"), "Content-Length": len(data), **headers()}
    head = "".join(f"{name}: {value}\r\n" for name, value in facts.items())
    return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + data
