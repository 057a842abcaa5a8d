"""FlowGPT's event stream. The limit of a line is lowered for `check`, so that short inputs reach it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowgpt.errors import ProtocolError, QuotaExceededError, StreamInterruptedError
from flowgpt.messages import Batch, Event
from flowgpt.protocol import events

LIMIT = events.LIMIT_LINE_BYTES
LIMIT_LOW = 256


def parse(data: bytes) -> object:
    """Decode a whole body."""
    decoder = events.Decoder()
    return decoder.feed(data), decoder.close()


def check(data: bytes, ways: Sequence[Sequence[bytes]]) -> None:
    """The same for each way to cut it, an exact prefix when it breaks off, no surrogate, bounded, and a round trip."""
    try:
        events.LIMIT_LINE_BYTES = LIMIT_LOW
        told, *rest = whole = _outcome([data])
        for pieces in ways:
            assert _outcome(pieces) == whole
        broken = _outcome(ways[0][:2], cut=True)
    finally:
        events.LIMIT_LINE_BYTES = LIMIT
    if rest[0] is not QuotaExceededError:  # its text is no part of the answer, unless nobody knows that it was all
        assert broken[0] == told[: len(broken[0])]
    texts = [event.data for event in told if event.name == "text"]
    again = b"".join(events.encode(Event("text", text)) for text in texts)
    if texts and "".join(texts) != events.QUOTA_TEXT:
        assert _outcome([again])[0] == [Event("text", text) for text in texts]


def _outcome(pieces: Sequence[bytes], *, cut: bool = False) -> tuple[list[Event], Any, Any, Any]:
    """The events, the failure's class and words, and the counters."""
    decoder = events.Decoder()
    batches: list[Batch] = []
    for piece in pieces:
        batches.append(decoder.feed(piece))
        if batches[-1].failure is None:
            assert len(decoder.tail) <= events.LIMIT_LINE_BYTES + len(events.BOM) + len(b"\r")
        else:
            assert decoder.feed(piece) == Batch()  # it is the last one
            break
    batches.append(decoder.cut() if cut else decoder.close())
    told = [event for batch in batches for event in batch.events()]
    repr(told).encode()
    "".join(str(event.data) for event in told).encode()  # a lone surrogate cannot be encoded
    failures = [batch.failure for batch in batches if batch.failure is not None]
    counters = decoder.events, decoder.nameless, decoder.unknown_events, decoder.replaced_surrogates
    if not failures:
        return told, None, "", counters
    (failure,) = failures
    assert isinstance(failure, ProtocolError | QuotaExceededError | StreamInterruptedError)
    failure.message.encode()
    assert len(failure.message) < 1000
    return told, type(failure), failure.message, counters
