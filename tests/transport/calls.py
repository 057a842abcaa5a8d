"""Calls for the tests of the transport: small to make, and read to a whole outcome."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from flowgpt.config import Options, Timeouts
from flowgpt.errors import FlowGPTError
from flowgpt.protocol import signing
from flowgpt.protocol.events import Decoder
from flowgpt.reply import Reply
from flowgpt.transport import Call, Stream

BODY = b'{"question":"why?"}'


class Outcome(NamedTuple):
    """What a reply came to. `fault`: class and code of the failure, or None."""

    texts: list[str]
    failure: FlowGPTError | None
    reply: Reply

    @property
    def code(self) -> str | None:
        return self.failure.code if self.failure else None

    @property
    def fault(self) -> tuple[type[FlowGPTError], str, str | None] | None:
        return (type(self.failure), self.failure.code, self.failure.phase) if self.failure else None


def call(url: str, **options: Any) -> Call:
    """A signed call of the chat address at `url`."""
    resolved = Options.resolve(base_url=url, **options)

    def headers(now_s: float) -> dict[str, str]:
        return signing.headers(
            authorization=signing.authorization(resolved.api_key),
            timestamp_s=int(now_s),
            nonce=secrets.token_hex(16),
            device_id="f-0123456789abcdefghi",
        )

    return Call(url + "/v3/chat-anonymous", BODY, headers, Decoder, resolved)


def ask(url: str, **options: Any) -> Reply:
    """A reply that nobody has read from yet. Without retries, unless they are asked for."""
    return Reply(Stream(call(url, **({"max_retries": 0} | options))), model="test")


async def read(reply: Reply) -> Outcome:
    """Read a reply text by text, however it ends."""
    texts: list[str] = []
    try:
        async for text in reply:
            texts.append(text)  # noqa: PERF401  # what came before a failure counts
    except FlowGPTError as failure:
        return Outcome(texts, failure, reply)
    return Outcome(texts, None, reply)


def limits(**parts: float | None) -> Timeouts:
    """No limit but these: what else takes time in a test is the machine's."""
    return Timeouts(**(dict.fromkeys(Timeouts.__dataclass_fields__) | parts))
