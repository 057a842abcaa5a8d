"""The access log: one line of JSON a request, to the logger `flowgpt.gateway.access`, and how a server writes it.

What was asked and answered never comes in (K3), nor a key or a raw path. JSON, since its escapes leave one event one
line of ASCII whatever a foreign string holds (K4), and since every log reader knows it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from .visit import Visit

log = logging.getLogger(__name__)

LIMIT_VALUE = 100
LIMIT_MESSAGE = 2000
"""How many characters of a request's fact are written, and of another logger's message or traceback."""

LIMIT_LINES_PER_S = 500
LIMIT_WAITING = 2000
"""What a storm of requests may write (K5), and how much may wait for a slow reader. The rest is counted."""

GATHER_S = 0.05
"""How long lines are gathered before they are written together: a thread that wakes for each takes the loop's time."""

_escape = json.JSONEncoder(separators=(",", ":")).encode
"""msgspec, which is many times as quick, does not escape what is beyond ASCII, nor DEL."""

_own: Handler | None = None
"""Where a process of our own writes, past the machinery of `logging`."""


def write(visit: Visit) -> None:
    """Log a request that is over. The name of the key is told, never the key."""
    if _own is None and not log.isEnabledFor(logging.INFO):
        return
    text = line(
        {
            "request_id": visit.request_id,
            "method": visit.method,
            "route": visit.route,
            "status": visit.status,
            "code": visit.code,
            "key": visit.owner,
            "model": visit.model or visit.requested_model,
            "stream": visit.stream or None,
            "duration_ms": _milliseconds(visit.total_s),
            "first_text_ms": _milliseconds(visit.first_text_s),
            "texts": visit.texts or None,
            "characters": visit.characters or None,
            "attempts": visit.attempts or None,
            "reason": visit.reason,
        },
        LIMIT_VALUE,
    )
    if _own is not None:
        _own.put(text)
        return
    with contextlib.suppress(Exception):  # a strange handler's fault is not the request's
        log.info("%s", text)


def line(facts: Mapping[str, Any], limit: int = LIMIT_MESSAGE) -> str:
    """One event as one line of JSON, in ASCII, with its time; strings are cut at `limit`, None and "" are left out."""
    told: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
    for name, value in facts.items():
        if value is not None and value != "":
            told[name] = value[:limit] if isinstance(value, str) else value
    with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair
        text = msgspec.json.encode(told)
        if text.isascii() and b"\x7f" not in text:
            return text.decode()
    return _escape(told)


def to_stderr() -> None:
    """Write the access log to stderr, and what other loggers warn of in the same form. For a process of our own."""
    global _own
    if sys.stderr is not None:  # closed from the beginning: then 2 may be a socket by now
        _own = Handler(sys.stderr.fileno())
        logging.getLogger().addHandler(_own)


class Handler(logging.Handler):
    """Lines written by a thread of its own: no reader that is slow, stuck or gone holds up or fails a request (I21).

    The bare descriptor, and not `sys.stderr`, whose lock a stuck thread would keep from the interpreter at its end.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._second, self._lines_of_second = 0, 0
        self._refused, self._unwritten, self._told = 0, 0, 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._asleep = True
        self._hurried = self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or count it."""
        try:
            text = record.getMessage() if record.name == log.name else _event(record)
        except Exception:  # a wrong call of a logger somewhere costs its line, not the request
            text = line({"level": "error", "logger": record.name, "message": "a message that cannot be formatted"})
        self.put(text)

    def put(self, text: str) -> None:
        """Queue a line, or count it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines_of_second = second, 0
        if self._lines_of_second >= LIMIT_LINES_PER_S or len(self._lines) >= LIMIT_WAITING:
            self._refused += 1
            return
        self._lines_of_second += 1
        self._lines.append(text)
        if self._asleep:
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write, name="flowgpt-log", daemon=True)
                    self._thread.start()
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written that can be, but no longer than a second."""
        if self._thread is None:
            return
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._hurried, timeout=1.0)

    def close(self) -> None:
        """Let the thread end once it has written all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def _write(self) -> None:
        while self._lines or not self._closed:
            with self._changed:
                self._asleep = True  # before it is looked whether there are lines: who adds one later sees it
                self._changed.wait_for(lambda: self._lines or self._hurried or self._closed)
                self._asleep = False
                self._changed.wait_for(lambda: self._hurried or self._closed, GATHER_S)
                hurried = self._hurried
            left_out = self._refused + self._unwritten - self._told
            told = [line({"left_out": left_out})] if left_out else []
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            unwritten = _write_all(self._descriptor, "".join(f"{one}\n" for one in [*told, *lines]).encode())
            if unwritten <= len(lines):
                self._told += left_out
            self._unwritten += min(unwritten, len(lines))
            if hurried:
                with self._changed:
                    self._hurried = False
                    self._changed.notify_all()


def _write_all(descriptor: int, data: bytes) -> int:
    """Gives how many lines could not be written; what is full or broken may be mended, as a disk is."""
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        pass
    return data.count(b"\n")


def _event(record: logging.LogRecord) -> str:
    """What another logger says."""
    facts = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
    if record.exc_info:
        facts["traceback"] = logging.Formatter().formatException(record.exc_info)[-LIMIT_MESSAGE:]
    return line(facts)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
