"""The scripted faults: what can go wrong between a client and the service, each under a name in one table.

A fault plays the whole answer to one request, on the texts of the server's responder. Named as `stall`, or with a
value as `stall:2`. A new fault is a row in FAULTS (and a test).
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import gzip as gzip_
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import InvalidRequestError
from ..messages import Event
from ..protocol import events
from .exchange import CONTENT_TYPE, Exchange

Play = Callable[[Exchange], Awaitable[None]]

HEARTBEAT_S = 0.02
"""Between two blank lines of `heartbeat`, unless the server has a pace."""

LIMIT_VALUE = 10**9

HTML = "text/html; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Fault:
    """`words`: what it does, in one line. `default`: its value when none is given; None: it takes no value."""

    words: str
    play: Callable[..., Awaitable[None]]
    default: int | str | None = None


def named(fault: object) -> Play:
    """The fault that `name` or `name:value` names, ready to play. Raises: InvalidRequestError naming the nearest."""
    if not isinstance(fault, str):
        raise InvalidRequestError("fault must be a string: a name, or name:value")
    name, colon, given = fault.partition(":")
    row = FAULTS.get(name)
    if row is None:
        nearest = difflib.get_close_matches(name, FAULTS, n=3, cutoff=0.4) or sorted(FAULTS)
        raise InvalidRequestError(f"fault {name[:40]!r} does not exist; nearest: {', '.join(nearest)}")
    if row.default is None:
        if colon:
            raise InvalidRequestError(f"fault {name!r} takes no value")
        return row.play
    value: int | str = row.default
    if colon:
        value = _address(name, given) if isinstance(row.default, str) else _number(name, given)
    return functools.partial(row.play, value=value)


def _number(name: str, given: str) -> int:
    number = int(given) if re.fullmatch(r"[0-9]{1,10}", given) else LIMIT_VALUE + 1
    if number > LIMIT_VALUE:
        raise InvalidRequestError(f"the value of fault {name!r} must be a whole number up to {LIMIT_VALUE}")
    if name == "status" and not 200 <= number <= 599:
        raise InvalidRequestError("the value of fault 'status' must be an HTTP status from 200 to 599")
    return number


def _address(name: str, given: str) -> str:
    if not given or not given.isascii() or not given.isprintable():
        raise InvalidRequestError(f"the value of fault {name!r} must be an address in printable ASCII")
    return given


# --- the connection ----------------------------------------------------------------------------------------------


async def refuse(exchange: Exchange) -> None:
    exchange.cut()


async def reset(exchange: Exchange) -> None:
    await exchange.reset()


async def reset_mid_stream(exchange: Exchange, value: int) -> None:
    await exchange.start()
    await exchange.stream(value)
    await exchange.reset()


async def stall_head(exchange: Exchange) -> None:
    await exchange.hang()


async def stall(exchange: Exchange, value: int) -> None:
    await exchange.start()
    await exchange.stream(value)
    await exchange.hang()


async def cut_at_line(exchange: Exchange, value: int) -> None:
    await exchange.start()
    await exchange.stream(value)
    exchange.cut()


async def cut_mid_line(exchange: Exchange, value: int) -> None:
    await _cut_in(exchange, value, _text("half a line")[:-8])


async def cut_mid_character(exchange: Exchange, value: int) -> None:
    await _cut_in(exchange, value, _text("é").partition("é".encode())[0] + "é".encode()[:1])


async def _cut_in(exchange: Exchange, count: int, last: bytes) -> None:
    await exchange.start()
    await exchange.stream(count)
    await exchange.write(last)
    exchange.cut()


async def truncated_length(exchange: Exchange, value: int) -> None:
    lines = [line for _ in range(value) if (line := await exchange.line()) is not None]
    body = b"".join(lines)
    await exchange.start(headers=[("content-length", str(len(body) + 100))])
    await exchange.write(body)
    exchange.cut()


async def close_delimited(exchange: Exchange) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {CONTENT_TYPE}\r\nconnection: close\r\n\r\n"
    exchange.started = True
    exchange.raw(head.encode())
    while (line := await exchange.line()) is not None:
        exchange.raw(line)
    exchange.cut()


async def bad_chunk(exchange: Exchange, value: int) -> None:
    await exchange.start()
    await exchange.stream(value)
    exchange.raw(b"zz\r\n")
    exchange.cut()


# --- the bytes of a reply that is otherwise complete -------------------------------------------------------------


async def no_last_newline(exchange: Exchange) -> None:
    await exchange.start()
    line = await exchange.line()
    while line is not None:
        following = await exchange.line()
        await exchange.write(line if following is not None else line.rstrip(b"\n"))
        line = following
    await exchange.end()


async def byte_at_a_time(exchange: Exchange) -> None:
    await exchange.start()
    while (line := await exchange.line()) is not None:
        for byte in line:
            await exchange.write(bytes([byte]))
            await asyncio.sleep(0)
    await exchange.end()


async def crlf(exchange: Exchange) -> None:
    await _changed(exchange, lambda line: line.replace(b"\n", b"\r\n"))


async def no_blank_lines(exchange: Exchange) -> None:
    await _changed(exchange, lambda line: line.removesuffix(b"\n"))


async def bom(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.write(b"\xef\xbb\xbf")
    await exchange.stream()
    await exchange.end()


async def sse_framed(exchange: Exchange) -> None:
    await exchange.start(content_type="text/event-stream")
    await exchange.stream(change=lambda line: b"data: " + line)
    await exchange.write(b"data: [DONE]\n\n")
    await exchange.end()


async def _changed(exchange: Exchange, change: Callable[[bytes], bytes]) -> None:
    await exchange.start()
    await exchange.stream(change=change)
    await exchange.end()


async def giant_line(exchange: Exchange, value: int) -> None:
    head, tail = _text("").removesuffix(b"\n\n").split(b'""')
    left = max(0, value - len(head) - len(tail) - 2)
    await exchange.start()
    await exchange.write(head + b'"')
    while left:
        await exchange.write(b"a" * min(left, 65536))
        left -= min(left, 65536)
    await exchange.write(b'"' + tail + b"\n\n")
    await exchange.end()


async def endless(exchange: Exchange) -> None:
    await exchange.start()
    while True:
        await exchange.write(_text("and on "))
        await asyncio.sleep(exchange.pace_s)


async def heartbeat(exchange: Exchange) -> None:
    await exchange.start()
    while True:
        await exchange.write(b"\n")
        await asyncio.sleep(exchange.pace_s or HEARTBEAT_S)


async def empty(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.end()


async def credit(exchange: Exchange, value: int) -> None:
    await exchange.start()
    size = -(-len(events.QUOTA_TEXT) // max(1, value))
    for begin in range(0, len(events.QUOTA_TEXT), size):
        await exchange.write(_text(events.QUOTA_TEXT[begin : begin + size]))
    await exchange.end()


async def _among(exchange: Exchange, value: int, *, lines: tuple[bytes, ...]) -> None:
    """A reply with these lines after `value` texts."""
    await exchange.start()
    await exchange.stream(value)
    for line in lines:
        await exchange.write(line)
    await exchange.stream()
    await exchange.end()


def _lines(*lines: bytes) -> Callable[..., Awaitable[None]]:
    return functools.partial(_among, lines=lines)


# --- the head ----------------------------------------------------------------------------------------------------


async def html_page(exchange: Exchange) -> None:
    await exchange.respond(200, b"<!DOCTYPE html>\n<title>Welcome</title>\n<p>Not a stream</p>\n", content_type=HTML)


async def challenge(exchange: Exchange) -> None:
    page = b"<!DOCTYPE html>\n<title>Just a moment...</title>\n<p>Checking your browser</p>\n"
    await exchange.respond(403, page, content_type=HTML, headers=[("cf-mitigated", "challenge")])


async def rate_limit(exchange: Exchange, value: int) -> None:
    headers = [("retry-after", str(value))]
    await exchange.respond(429, problem("too many requests"), content_type=JSON, headers=headers)


async def status(exchange: Exchange, value: int) -> None:
    if value in (204, 304):
        await exchange.start(value)
        await exchange.end()
    else:
        await exchange.respond(value, problem(f"scripted status {value}"), content_type=JSON)


async def redirect(exchange: Exchange, value: str) -> None:
    await exchange.respond(307, b"", content_type=JSON, headers=[("location", value)])


async def gzip(exchange: Exchange) -> None:
    lines = []
    while (line := await exchange.line()) is not None:
        lines.append(line)
    body = gzip_.compress(b"".join(lines), mtime=0)
    await exchange.respond(200, body, content_type=CONTENT_TYPE, headers=[("content-encoding", "gzip")])


async def set_cookie(exchange: Exchange) -> None:
    await exchange.reply([("set-cookie", "embedded=1; Path=/")])


def problem(words: str) -> bytes:
    """The JSON body of an answer that is a failure: the same words under both keys that clients look for."""
    return msgspec.json.encode({"error": words, "message": words})


def _text(text: str) -> bytes:
    return events.encode(Event("text", text))


def _event(**fields: Any) -> bytes:
    return msgspec.json.encode(fields) + b"\n\n"


DEPTH = 100_000

FAULTS: Mapping[str, Fault] = {
    "bad_chunk": Fault("after N texts, a chunk whose size is no number", bad_chunk, 2),
    "bom": Fault("a byte order mark before the first line", bom),
    "byte_at_a_time": Fault("each byte in a chunk of its own", byte_at_a_time),
    "challenge": Fault("status 403 with an HTML page and cf-mitigated, as a browser check", challenge),
    "close_delimited": Fault("a clean reply without length or chunks: closing is its end", close_delimited),
    "credit": Fault("the whole answer is the quota text, in N events", credit, 1),
    "crlf": Fault("lines end with CR LF", crlf),
    "cut_at_line": Fault("after N texts, closed without the last chunk", cut_at_line, 2),
    "cut_mid_character": Fault("after N texts, closed within a character of two bytes", cut_mid_character, 2),
    "cut_mid_line": Fault("after N texts, closed within a line", cut_mid_line, 2),
    "deep_nesting": Fault(
        f"after N texts, a line of JSON nested {DEPTH:,} deep",
        _lines(b'{"event":"text","data":' + b"[" * DEPTH + b"]" * DEPTH + b"}\n\n"),
        1,
    ),
    "empty": Fault("a proper reply with no text at all", empty),
    "endless": Fault("texts for ever", endless),
    "giant_line": Fault("one text whose line has N bytes", giant_line, 2 * 1024 * 1024),
    "gzip": Fault("the reply compressed, though nobody asked", gzip),
    "heartbeat": Fault("blank lines for ever, and no text", heartbeat),
    "html_page": Fault("status 200 with an HTML page", html_page),
    "invalid_utf8": Fault(
        "after N texts, a line that is not UTF-8", _lines(b'{"event":"text","data":"\xff\xc0\xaf"}\n\n'), 1
    ),
    "lone_surrogate": Fault(
        "after N texts, a text with half a surrogate pair", _lines(b'{"event":"text","data":"\\ud83d"}\n\n'), 1
    ),
    "no_blank_lines": Fault("no blank line between objects", no_blank_lines),
    "no_last_newline": Fault("the last line has no newline", no_last_newline),
    "rate_limit": Fault("status 429 with Retry-After: N seconds", rate_limit, 1),
    "redirect": Fault("status 307 to the given address", redirect, "/elsewhere"),
    "refuse": Fault("the connection is closed without an answer", refuse),
    "reset": Fault("the connection is reset before the head", reset),
    "reset_mid_stream": Fault("after N texts, the connection is reset", reset_mid_stream, 2),
    "set_cookie": Fault("the reply with a Set-Cookie header", set_cookie),
    "sse_framed": Fault("the reply framed as server-sent events", sse_framed),
    "stall": Fault("after N texts, nothing more comes", stall, 2),
    "stall_head": Fault("the head never comes", stall_head),
    "status": Fault("status N with a JSON body", status, 503),
    "truncated_length": Fault("N texts, closed short of the Content-Length", truncated_length, 2),
    "unknown_events": Fault(
        "after N texts, events of names that nobody knows",
        _lines(_event(event="title", data="A title"), _event(event="usage", data={"tokens": 3}), _event(event="end")),
        1,
    ),
    "wrong_json": Fault("after N texts, a line that is no JSON", _lines(b'{"event":"text","data":}\n\n'), 1),
    "wrong_types": Fault("after N texts, a text event whose data is a number", _lines(_event(event="text", data=5)), 1),
}
