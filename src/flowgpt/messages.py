"""The values that travel: messages down, events and batches up. No behaviour but reading, no I/O.

**message** {role, content} · **event** one object of the stream · **text** a `str`, a piece of the reply ·
**batch** what one read of the socket brought, in wire order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import msgspec

if TYPE_CHECKING:
    from .errors import FlowGPTError

Verdict = Literal["complete", "truncated", "unverified"]


class TextPart(TypedDict):
    """One text part of a message's content: {"type": "text", "text": ...}."""

    type: Literal["text"]
    text: str


class Message(TypedDict):
    """One turn: `developer` is the newer word for `system`; `content` a string or a list of text parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Sequence[TextPart]
    name: NotRequired[str]


Messages = Sequence[Mapping[str, Any]]
"""A conversation: each is a `Message`, or a plain dict of its shape."""

AsyncResult = AsyncGenerator[str, None]


@dataclass(frozen=True, slots=True)
class Event:
    """One object of the stream: its name, and its data as JSON values. Only `text` is known to exist."""

    name: str
    data: Any = None


class Batch(msgspec.Struct):
    """What one read brought: the texts, and between them the events of other names, each with its place.

    `others`: (how many texts stand before it, event). `failure`: why nothing comes after this batch.
    """

    texts: list[str] = []
    others: list[tuple[int, Event]] = []
    failure: FlowGPTError | None = None

    def extend(self, later: Batch) -> None:
        """Put a later batch behind this one; its failure is that of the whole."""
        self.others += [(len(self.texts) + place, event) for place, event in later.others]
        self.texts += later.texts
        self.failure = later.failure

    def events(self) -> list[Event]:
        """All events in wire order."""
        events: list[Event] = []
        done = 0
        for place, event in self.others:
            events += [Event("text", text) for text in self.texts[done:place]]
            events.append(event)
            done = place
        return events + [Event("text", text) for text in self.texts[done:]]
