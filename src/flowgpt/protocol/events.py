"""FlowGPT's event stream: bytes to batches, events to bytes. No sockets, no clock, no logging.

A reply is newline-delimited JSON, one object a line; blank lines come between them. Hot path: the complete lines of
one read are split and decoded in one pass; whatever is not a plain text event goes line by line through `_line`,
which decides everything, so that how the bytes were cut never changes the result.
Source: docs/protocol.md#response, anchored by tests/anchors/*.ndjson.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

import msgspec

from ..errors import ProtocolError, QuotaExceededError, StreamInterruptedError
from ..messages import Batch, Event

LIMIT_LINE_BYTES = 1024 * 1024
"""The longest line taken, without its LF. A text is a few words; this bounds what a bad server can make us hold."""

QUOTA_TEXT = "Insufficient credit"
"""The whole answer, exactly, when the credit is used up (HTTP 200). A longer answer may contain the words."""

LIMIT_HELD_EVENTS = 64
"""How many events may wait for the question whether this is the quota text: far more than it has letters."""

BLANK = b" \t\r"
BOM = b"\xef\xbb\xbf"
SURROGATE = re.compile("[\ud800-\udfff]")


class _Text(msgspec.Struct):
    event: Literal["text"]
    data: str


_decode_text = msgspec.json.Decoder(_Text).decode


def encode(event: Event) -> bytes:
    """One event as the service sends it: a line of JSON and a blank line."""
    return msgspec.json.encode({"event": event.name, "data": event.data}) + b"\n\n"


class Decoder:
    """Decode a reply's body, however its bytes are cut: `feed` what comes, then `close` at the proper end or `cut`.

    A text that may still turn out to be the whole-answer quota text is held until it cannot be. A batch with a
    `failure` holds what was good before it, and is the last one. Counters: `events` (all, the sign of life),
    `nameless` (objects that are no event), `unknown_events` (by name), `replaced_surrogates`.
    """

    proven = done = False  # no event says that it is the last

    def __init__(self) -> None:
        self.events = 0
        self.nameless = 0
        self.unknown_events: dict[str, int] = {}
        self.replaced_surrogates = 0
        self._tail = bytearray()
        self._at_start = True
        self._failed = False
        self._held: Batch | None = Batch()

    @property
    def tail(self) -> bytes:
        """The bytes of the line that has no end yet."""
        return bytes(self._tail)

    def feed(self, data: bytes) -> Batch:
        """Decode the lines that `data` completes (raw body bytes, b"" is allowed); the batch may be empty."""
        if self._failed:
            return Batch()
        end = data.rfind(b"\n")
        if end < 0:
            self._tail += data
            batch = Batch()
        else:
            block = data[:end]
            if self._tail:
                self._tail += block
                block = bytes(self._tail)
            self._tail = bytearray(data[end + 1 :])
            batch = self._lines(block)
        if len(self._tail) > LIMIT_LINE_BYTES and self._is_too_long() and batch.failure is None:
            batch.failure = _line_too_long()
        if self._held is None and batch.failure is None:
            return batch
        return self._hold(batch)

    def close(self) -> Batch:
        """The body has ended properly: decode a last line without newline, and judge the whole.

        The `failure` is a StreamInterruptedError for a cut line, a QuotaExceededError when the whole answer is the
        quota text, a ProtocolError when there was no text or no stream.
        """
        if self._failed:
            return Batch()
        tail = self.tail
        line = tail.removeprefix(BOM) if self._at_start else tail
        batch = self._lines(tail)
        if batch.failure is not None and (self._seen or line.lstrip(BLANK)[:1] == b"{") and _is_cut(line):
            batch.failure = StreamInterruptedError(
                "the reply ended in the middle of a line", code="stream_truncated", tail=tail
            )
        undecided = self._held is not None
        batch = self._hold(batch, last=True)
        if undecided and batch.failure is None:
            text = "".join(batch.texts)
            if text == QUOTA_TEXT:
                batch = Batch([], [(0, event) for _, event in batch.others], _quota())
            elif not text:
                batch.failure = self._no_text()
        return batch

    def cut(self) -> Batch:
        """The connection broke: give what was held back. The half line is not delivered; `tail` has it."""
        return Batch() if self._failed else self._hold(Batch(), last=True)

    @property
    def _seen(self) -> int:
        """How many objects have come; until the first one, a bad line means that this is no stream at all."""
        return self.events + self.nameless

    def _is_too_long(self) -> bool:
        """Whether the unfinished line is over the limit; a BOM is none of it, and a last CR may belong to its end."""
        line = self._tail.removeprefix(BOM) if self._at_start else self._tail
        return len(line.removesuffix(b"\r")) > LIMIT_LINE_BYTES

    def _lines(self, block: bytes) -> Batch:
        """Decode whole lines (without the last LF): all in one pass, or one by one when that fails."""
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(BOM)
        lines = block.split(b"\n")
        if b"\r" in block:
            lines = [line.removesuffix(b"\r") for line in lines]
        if len(block) <= LIMIT_LINE_BYTES or max(map(len, lines)) <= LIMIT_LINE_BYTES:
            try:
                block.decode()  # msgspec does not look into the fields that it skips
                texts = [_decode_text(line).data for line in lines if line]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                self.events += len(texts)
                return Batch([text for text in texts if text] if "" in texts else texts)
        batch = Batch()
        for line in lines:
            try:
                event = self._line(line)
            except ProtocolError as failure:
                batch.failure = failure
                break
            if event is None:
                continue
            if event.name != "text":
                batch.others.append((len(batch.texts), event))
            elif event.data:
                batch.texts.append(event.data)
        return batch

    def _line(self, line: bytes) -> Event | None:
        """Decode one line with every check; None for one that holds no event. Raises: ProtocolError."""
        if len(line) > LIMIT_LINE_BYTES:
            raise _line_too_long()
        if not line.strip(BLANK):
            return None
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"the reply is not UTF-8 (byte {error.start} of a line)", code="decode_error") from None
        if b'"text"' in line or b"\\" in line:  # any other line is no text, and to be told so by an error takes long
            try:
                data = _decode_text(line).data
            except (msgspec.MsgspecError, RecursionError):
                pass
            else:
                self.events += 1
                return Event("text", data)
        try:
            value = self._without_surrogates(_parse(text))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._no_object(text)
        if "event" not in value:
            self.nameless += 1
            return None
        event = Event(value["event"], value.get("data"))
        if not isinstance(event.name, str):
            raise ProtocolError("an event's name is not a string", code="bad_event")
        if event.name == "text":
            if not isinstance(event.data, str):
                raise ProtocolError("a text event has no text", code="bad_event")
        else:
            name = shown(event.name, 40)
            if name in self.unknown_events or len(self.unknown_events) < 16:
                self.unknown_events[name] = self.unknown_events.get(name, 0) + 1
        self.events += 1
        return event

    def _no_object(self, text: str) -> ProtocolError:
        if not self._seen and "\x00" in text[:2]:
            return ProtocolError("the reply is not UTF-8, but UTF-16 or UTF-32", code="decode_error")
        code = "bad_event" if self._seen else "not_a_stream"
        if text.lstrip().startswith("data:"):
            return ProtocolError(
                "the answer is framed as server-sent events; FlowGPT's stream is bare JSON lines",
                code=code,
                hint="is base_url an OpenAI-compatible server?",
            )
        what = "a line of the reply is no JSON object" if self._seen else "the answer is not FlowGPT's event stream"
        return ProtocolError(f"{what}: {shown(text, 64)}", code=code)

    def _hold(self, batch: Batch, *, last: bool = False) -> Batch:
        """Hold the texts back while all of them together may be the beginning of the quota text."""
        self._failed = batch.failure is not None
        held = self._held
        if held is None:
            return batch
        held.extend(batch)
        between = sum(place > 0 for place, _ in held.others)  # those before the first text need not wait
        undecided = (
            len(held.texts) + between <= LIMIT_HELD_EVENTS
            and bool(held.texts)
            and QUOTA_TEXT.startswith("".join(held.texts))
        )
        if undecided and not last and not self._failed:
            return Batch()
        self._held = None if held.texts or last else Batch()
        return held

    def _no_text(self) -> ProtocolError:
        if self.nameless and not self.events:
            return ProtocolError("the answer is JSON, but none of it is an event", code="not_a_stream")
        skipped = ", ".join(f"{name} ×{count}" for name, count in self.unknown_events.items())
        return ProtocolError(
            "the reply has no text" + (f"; skipped events: {skipped}" if skipped else ""),
            code="empty_reply",
            hint="an empty answer is how FlowGPT refuses: ask in other words, or ask another model",
        )

    def _without_surrogates(self, value: Any) -> Any:
        """The same JSON value with U+FFFD for each lone surrogate, counted: stores and consoles cannot take one."""
        if isinstance(value, str):
            whole, count = SURROGATE.subn("\ufffd", value)
            self.replaced_surrogates += count
            return whole
        if isinstance(value, list):
            return [self._without_surrogates(item) for item in value]
        if isinstance(value, dict):
            return {self._without_surrogates(key): self._without_surrogates(item) for key, item in value.items()}
        return value


def _line_too_long() -> ProtocolError:
    return ProtocolError(f"a line of the reply has more than {LIMIT_LINE_BYTES} bytes", code="line_too_long")


def _quota() -> QuotaExceededError:
    return QuotaExceededError(
        f"FlowGPT answered {QUOTA_TEXT!r}: no credit is left",
        status_code=200,
        hint="wait until the credit is renewed, or use another key",
    )


def _parse(text: str) -> Any:
    """JSON, strictly. Raises: ValueError (also for NaN, numbers out of range), RecursionError."""
    return _decode_json(text)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


_decode_json = json.JSONDecoder(parse_constant=_finite, parse_float=_finite).decode


def _is_cut(line: bytes) -> bool:
    """Whether a last line without newline is only the beginning of one: no JSON, and no UTF-16 or UTF-32 either."""
    try:
        _parse(line.decode())
    except (ValueError, RecursionError):
        return b"\x00" not in line[:2]
    return False


def shown(text: str, length: int) -> str:
    """A piece of foreign text as a message may show it: one line, escaped, at most `length` characters of it."""
    return ascii(text[:length]) + ("…" if len(text) > length else "")
