"""Server-sent events: bytes to events, events to bytes. No sockets, and no idea of what the events mean.

Source: the WHATWG HTML standard, "Server-sent events", parsing and interpreting an event stream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InvalidRequestError, ProtocolError

LIMIT_BYTES = 2 * 1024 * 1024
"""The longest line, and the most data of one event. A line of FlowGPT's, 1 MiB at most, must fit into a chunk."""

BOM = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class SSEvent:
    """One event: its type (`message` when none was named), and its data, lines joined by a newline."""

    event: str
    data: str


def encode(data: bytes | str, event: str | None = None) -> bytes:
    """One event as bytes; each line of `data` gets its own field. Raises: InvalidRequestError for a broken name."""
    if isinstance(data, str):
        data = data.encode()
    head = b""
    if event is not None:
        name = event.encode()
        head = b"event: " + name + b"\n"
        if b"\n" in name or b"\r" in name:
            raise InvalidRequestError(f"the event name {event!r} has more than one line")
    if b"\n" not in data and b"\r" not in data:
        return head + b"data: " + data + b"\n\n"
    return head + b"".join(b"data: " + line + b"\n" for line in LINE_END.split(data)) + b"\n"


class Decoder:
    """Decode an event stream, however its bytes are cut: LF, CR and CRLF, BOM, comments, data of several lines.

    Bytes that are not UTF-8 become U+FFFD, as the standard says. `id` and `retry` are for those who reconnect: skipped.
    A line `error: …` is an event `error` with this data.
    """

    def __init__(self) -> None:
        self._tail = bytearray()
        self._at_start = True
        self._after_cr = False
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._failure: str | None = None

    def feed(self, data: bytes) -> list[SSEvent]:
        """The events that `data` completes (b"" is allowed).

        Raises: ProtocolError when a line or an event is over LIMIT_BYTES; the events before it come out first.
        """
        if self._failure is not None:
            raise ProtocolError(self._failure, code="line_too_long")
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *rest = data.split(b"\n")
        self._tail += first
        events: list[SSEvent] = []
        if rest:
            lines = [bytes(self._tail), *rest[:-1]]
            self._tail = bytearray(rest[-1])
            for line in lines:
                self._line(line, events)
                if self._failure is not None:
                    break
        if len(self._tail) > LIMIT_BYTES and len(self._begun) > LIMIT_BYTES and self._failure is None:
            self._failure = f"a line of the event stream has more than {LIMIT_BYTES} bytes"
        if self._failure is not None and not events:
            raise ProtocolError(self._failure, code="line_too_long")
        return events

    @property
    def tail(self) -> bytes:
        """What has come of an event that has no end yet: its lines of data, and the line that was begun."""
        return b"".join(b"data: " + line + b"\n" for line in self._data) + self._tail

    def close(self) -> bool:
        """The stream has ended: True when it ended between two events; one that was begun is dropped.

        Raises: ProtocolError as `feed` does.
        """
        if self._failure is not None:
            raise ProtocolError(self._failure, code="line_too_long")
        return not self._begun and not self._data

    @property
    def _begun(self) -> bytearray:
        """The line that has no end yet; a BOM is none of it."""
        return self._tail.removeprefix(BOM) if self._at_start else self._tail

    def _line(self, line: bytes, events: list[SSEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if len(line) > LIMIT_BYTES:
            self._failure = f"a line of the event stream has more than {LIMIT_BYTES} bytes"
        elif not line:
            if self._data:
                name = self._name.decode(errors="replace") or "message"
                events.append(SSEvent(name, b"\n".join(self._data).decode(errors="replace")))
            self._name, self._data, self._data_bytes = b"", [], 0
        else:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"error":  # not the standard's, but llama.cpp's until 2025-09 (ggml-org/llama.cpp#16109)
                self._name, field = b"error", b"data"
            if field == b"data":
                self._data.append(value)
                self._data_bytes += len(value) + 1
                if self._data_bytes > LIMIT_BYTES + 1:
                    self._failure = f"an event has more than {LIMIT_BYTES} bytes of data"
            elif field == b"event":
                self._name = value
