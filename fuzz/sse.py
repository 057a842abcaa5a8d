"""Server-sent events, against the standard's algorithm written the plain way: all at once, nothing cut."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flowgpt.errors import ProtocolError
from flowgpt.formats import sse

LIMIT = sse.LIMIT_BYTES
LIMIT_LOW = 256

Outcome = tuple[list[sse.SSEvent], bool | str]


def parse(data: bytes) -> object:
    """Decode a whole stream."""
    return _outcome([data])


def check(data: bytes, ways: Sequence[Sequence[bytes]]) -> None:
    """The same for each way to cut it, what the standard says, bounded, and a round trip."""
    expected = model(data)
    try:
        sse.LIMIT_BYTES = LIMIT_LOW
        whole = _outcome([data])
        for pieces in ways:
            assert _outcome(pieces) == whole
    finally:
        sse.LIMIT_BYTES = LIMIT
    events, ended = whole
    if isinstance(ended, bool):
        assert whole == expected
    else:
        assert ended == "line_too_long"
        assert events == expected[0][: len(events)]
    again = b"".join(sse.encode(event.data, event.event) for event in events)
    assert _outcome([again]) == (events, True)


def model(data: bytes) -> Outcome:
    """The events of a whole stream, and whether it ended between two."""
    *lines, rest = re.split(rb"\r\n|\r|\n", data.removeprefix(sse.BOM))
    events: list[sse.SSEvent] = []
    name, texts = "", list[str]()
    for line in lines:
        field, _, value = (part.decode(errors="replace") for part in line.partition(b":"))
        value = value.removeprefix(" ")
        if not line:
            if texts:
                events.append(sse.SSEvent(name or "message", "\n".join(texts)))
            name, texts = "", []
        elif field in ("data", "error"):  # the second one is llama.cpp's own
            texts.append(value)
            name = "error" if field == "error" else name
        elif field == "event":
            name = value
    begun = rest if lines else data.removeprefix(sse.BOM)
    return events, not begun and not texts


def _outcome(pieces: Sequence[bytes]) -> Outcome:
    decoder, events = sse.Decoder(), list[sse.SSEvent]()
    try:
        for piece in pieces:
            events += decoder.feed(piece)
            assert len(decoder.tail) <= 8 * (sse.LIMIT_BYTES + 2) or not piece
        return events, decoder.close()
    except ProtocolError as failure:
        return events, failure.code
