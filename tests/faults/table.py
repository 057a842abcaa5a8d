"""What an upstream may do to a question, and what becomes of it: one row for each case, the same for every surface.

A case's name begins with the ids of the faults of rows.py that it proves. No surface, no playing in here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import NamedTuple

from flowgpt.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChallengeError,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    ProxyError,
    QuotaExceededError,
    RateLimitError,
    RetryClass,
    StreamInterruptedError,
)
from tests.upstream import (
    CHUNKED,
    FIN,
    HUNG_UP,
    LAST,
    RST,
    Peer,
    Script,
    Step,
    answer,
    chunk,
    endless,
    event,
    head,
    one_by_one,
    reply,
)

LEVELS: dict[type[FlowGPTError], tuple[int, int]] = {
    InvalidRequestError: (2, 400),
    APIConnectionError: (5, 502),
    APITimeoutError: (6, 504),
    ProxyError: (5, 502),
    StreamInterruptedError: (7, 502),
    ProtocolError: (8, 502),
    BadRequestError: (2, 502),
    AuthenticationError: (3, 502),
    PermissionDeniedError: (3, 502),
    ChallengeError: (3, 502),
    NotFoundError: (8, 502),
    RateLimitError: (4, 429),
    QuotaExceededError: (4, 429),
    InternalServerError: (5, 502),
}
"""Written down by hand: the terminal's exit code and the gateway's status for each class."""


class Fault(NamedTuple):
    """How a failure is known."""

    kind: type[FlowGPTError]
    code: str
    retry_class: RetryClass


@dataclass(frozen=True)
class Case:
    """What the upstream does, and what is to come of it.

    `script`, `greeting`, `tls`: of `Upstream`. `error`: None for a reply, whose verdict
    is `verdict`. `text`: what arrives, also before a failure; `shown`: the same in a terminal, where it differs.
    `config`: the configuration, TOML; {url} is the upstream, {port} its port, {closed} a port where nobody listens,
    {deaf} one that swallows what knocks. `sends`: how many requests the upstream hears. `words`: in the message.
    `wait_s`: how long the service asks to wait.
    """

    script: Script
    error: Fault | None = None
    phase: str | None = None
    text: str = ""
    verdict: str = "complete"
    shown: str | None = None
    config: str = 'base_url = "{url}"'
    greeting: Script = ()
    tls: bool = False
    sends: int = 1
    words: str = ""
    wait_s: int | None = None


A = event("a")
LINE = b'{"event":"text","data":"a"}'
BEGUN = CHUNKED + chunk(A)

DNS = Fault(APIConnectionError, "dns_error", "safe")
CONNECT = Fault(APIConnectionError, "connect_error", "safe")
CONNECT_TIMEOUT = Fault(APITimeoutError, "connect_timeout", "safe")
TLS = Fault(APIConnectionError, "tls_error", "never")
PROXY = Fault(ProxyError, "proxy_connect_error", "safe")
PROXY_FINAL = Fault(ProxyError, "proxy_connect_error", "never")
PROXY_AUTH = Fault(ProxyError, "proxy_auth_error", "never")
INTERRUPTED = Fault(StreamInterruptedError, "stream_interrupted", "ambiguous")
TRUNCATED = Fault(StreamInterruptedError, "stream_truncated", "ambiguous")
DEADLINE = Fault(APITimeoutError, "deadline_exceeded", "never")
HEADER_TIMEOUT = Fault(APITimeoutError, "header_timeout", "ambiguous")
FIRST_TIMEOUT = Fault(APITimeoutError, "first_event_timeout", "ambiguous")
IDLE_TIMEOUT = Fault(APITimeoutError, "idle_timeout", "ambiguous")
BAD_HTTP = Fault(ProtocolError, "bad_http", "never")
CUT_HEAD = Fault(ProtocolError, "bad_http", "ambiguous")
EMPTY = Fault(ProtocolError, "empty_reply", "ambiguous")
NO_STREAM = Fault(ProtocolError, "not_a_stream", "never")
COMPRESSED = Fault(ProtocolError, "compression_refused", "never")
BAD_EVENT = Fault(ProtocolError, "bad_event", "never")
DECODE = Fault(ProtocolError, "decode_error", "never")
TOO_LONG = Fault(ProtocolError, "line_too_long", "never")
BAD_REQUEST = Fault(BadRequestError, "bad_request", "never")
AUTHENTICATION = Fault(AuthenticationError, "authentication_failed", "never")
CHALLENGE = Fault(ChallengeError, "challenge", "never")
QUOTA = Fault(QuotaExceededError, "quota_exceeded", "never")
LIMITED = Fault(RateLimitError, "rate_limited", "safe")
SERVER = Fault(InternalServerError, "server_error", "ambiguous")
SERVER_SAFE = Fault(InternalServerError, "server_error", "safe")
SERVER_FINAL = Fault(InternalServerError, "server_error", "never")
UNAVAILABLE = Fault(InternalServerError, "service_unavailable", "safe")


def to(base_url: str) -> str:
    """The configuration for another place than the upstream's own."""
    return f'base_url = "{base_url}"'


def through(proxy: str, base_url: str = "https://nowhere.invalid") -> str:
    """The configuration for a proxy."""
    return f'proxy = "{proxy}"\n{to(base_url)}'


def within(part: str, seconds: float, where: str = to("{url}")) -> str:
    """The configuration with a limit that is meant to pass."""
    return f"{where}\n[timeout]\n{part} = {seconds}"


async def client_hello(peer: Peer) -> None:
    assert await peer.reader.read(65536)


async def drip(peer: Peer) -> None:
    """A head that never ends, a byte at a time."""
    for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nx-", itertools.repeat(ord("y"))):
        await peer.send(bytes([byte]))
        await asyncio.sleep(0)


HTTPS = to("https://127.0.0.1:{port}")
PAGE = b"<!DOCTYPE html><title>Just a moment...</title><script>alert(1)</script>"


async def nine_minutes_off(peer: Peer) -> None:
    await peer.send(answer(401, b"", f"Date: {formatdate(time.time() + 540, usegmt=True)}"))


WAY: dict[str, Case] = {
    "A1 no such name": Case([], DNS, "connect", config=to("http://nowhere.invalid"), sends=0, words="nowhere.invalid"),
    "A2 a resolver that fails": Case([], DNS, "connect", config=to("http://flaky.test"), sends=0),
    "A3 one dead address of two": Case([reply("a")], text="a", config=to("http://two.test:{port}")),
    "A4 refused": Case([], CONNECT, "connect", config=to("http://127.0.0.1:{closed}"), sends=0, words="ECONNREFUSED"),
    "A5 silence": Case(
        [], CONNECT_TIMEOUT, "connect", config=within("connect_s", 0.05, to("http://127.0.0.1:{deaf}")), sends=0
    ),
    "A7 no TLS": Case([], TLS, "connect", config=HTTPS, sends=0, greeting=[client_hello, answer(400), HUNG_UP]),
    "A7 an unknown authority": Case([FIN], TLS, "connect", config=HTTPS, sends=0, tls=True, words="issuer"),
    "A8 closed in the handshake": Case([], CONNECT, "connect", config=HTTPS, sends=0, greeting=[client_hello, FIN]),
    "A8 reset in the handshake": Case([], CONNECT, "connect", config=HTTPS, sends=0, greeting=[client_hello, RST]),
    "A8 stalled in the handshake": Case(
        [], CONNECT_TIMEOUT, "connect", config=within("connect_s", 0.1, HTTPS), sends=0, greeting=[HUNG_UP]
    ),
    "A9 a proxy that refuses": Case([], PROXY, "connect", config=through("http://127.0.0.1:{closed}"), sends=0),
    "A10 407 at CONNECT": Case([answer(407), FIN], PROXY_AUTH, "connect", config=through("{url}")),
    "A11 407 as an answer": Case([answer(407), FIN], PROXY_AUTH, "head", config=through("{url}", "http://n.invalid")),
    "A12 403 to CONNECT": Case([answer(403), FIN], PROXY_FINAL, "connect", config=through("{url}"), words="403"),
    "A12 502 to CONNECT": Case([answer(502), FIN], PROXY, "connect", config=through("{url}"), words="502"),
    "A13 a proxy that hangs": Case(
        [HUNG_UP], CONNECT_TIMEOUT, "connect", config=within("connect_s", 0.1, through("{url}"))
    ),
    "A14 a proxy that closes": Case([FIN], PROXY, "connect", config=through("{url}")),
    "A14 a proxy that resets": Case([RST], PROXY, "connect", config=through("{url}")),
    "A14 a proxy of garbage": Case([b"\0 SSH-2.0\r\n\r\n", FIN], PROXY, "connect", config=through("{url}")),
    "A15 a proxy that dies": Case(
        [BEGUN, RST], INTERRUPTED, "body", "a", "truncated", config=through("{url}", "http://n.invalid")
    ),
    "A16 no such port": Case(
        [],
        Fault(InvalidRequestError, "bad_proxy", "never"),
        config=through("http://127.0.0.1:99999"),
        sends=0,
    ),
}

HEADS: dict[str, Case] = {
    "B1 closed": Case([FIN], INTERRUPTED, "head"),
    "B3 reset": Case([RST], INTERRUPTED, "head"),
    "B4 no head": Case([HUNG_UP], HEADER_TIMEOUT, "head", config=within("head_s", 0.05)),
    "B5 a head in drops": Case([drip], HEADER_TIMEOUT, "head", config=within("head_s", 0.05)),
    "B6 half a head": Case([b"HTTP/1.1 200 OK\r\nx-", FIN], CUT_HEAD, "head"),
    "B7 another protocol": Case([b"SSH-2.0-OpenSSH_9.6\r\n", HUNG_UP], BAD_HTTP, "head", words="SSH-2.0"),
    "B7 HTTP/0.9": Case([b"<html>hello</html>\n", FIN], BAD_HTTP, "head"),
    "B7 HTTP/2": Case([b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", HUNG_UP], BAD_HTTP, "head"),
    "B8 200 kB in a header": Case([head(200, "x: " + "y" * 200_000), HUNG_UP], BAD_HTTP, "head"),
    "B8 5,000 headers": Case([head(200, *["x: y"] * 5000), HUNG_UP], BAD_HTTP, "head"),
    "B8 NUL": Case([b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", HUNG_UP], BAD_HTTP, "head"),
    "B8 two lengths": Case([head(200, "Content-Length: 5", "Content-Length: 6"), HUNG_UP], BAD_HTTP, "head"),
    "B9 103 without end": Case([endless(head("103 Early Hints"))], BAD_HTTP, "head"),
    "B9 a few of 103": Case([head("100 Continue") + head("103 Early Hints") + reply("a")], text="a"),
    "B10 nothing": Case([answer(200)], EMPTY, "body"),
    "B10 204": Case([head(204), HUNG_UP], EMPTY, "head"),
    "B10 304": Case([head(304), HUNG_UP], EMPTY, "head"),
    "B11 events called html": Case([answer(200, A, "Content-Type: text/html")], text="a"),
    "B11 html called events": Case([answer(200, b"<p>", "Content-Type: application/x-ndjson")], NO_STREAM, "body"),
    "B12 another charset": Case([answer(200, A, "Content-Type: x; charset=utf-16")], text="a"),
    "B12 another charset that is true": Case(
        [answer(200, b'{"event":"text","data":"\xe9"}\n', "Content-Type: x; charset=latin-1")], DECODE, "body"
    ),
}

BODIES: dict[str, Case] = {
    "C1 no event": Case([CHUNKED, HUNG_UP], FIRST_TIMEOUT, "body", config=within("first_event_s", 0.05)),
    "C1 no second event": Case([BEGUN, HUNG_UP], IDLE_TIMEOUT, "body", "a", "truncated", config=within("idle_s", 0.05)),
    "C2 heartbeats": Case(
        [CHUNKED, endless(chunk(b" \r\n"))], FIRST_TIMEOUT, "body", config=within("first_event_s", 0.05)
    ),
    "C2 heartbeats after a text": Case(
        [BEGUN, endless(chunk(b"\n"))], IDLE_TIMEOUT, "body", "a", "truncated", config=within("idle_s", 0.05)
    ),
    "C3 reset": Case([BEGUN, RST], INTERRUPTED, "body", "a", "truncated"),
    "C3 reset before the first text": Case([CHUNKED, RST], INTERRUPTED, "body"),
    "C4 cut in a line": Case([CHUNKED, chunk(A + A[:9]), FIN], INTERRUPTED, "body", "a", "truncated"),
    "C5 cut at the end of a line": Case([BEGUN, FIN], TRUNCATED, "body", "a", "truncated"),
    "C6 cut in a chunk": Case([BEGUN, chunk(A)[:12], FIN], INTERRUPTED, "body", "a", "truncated"),
    "C6 a bad chunk size": Case([BEGUN, b"zz\r\n", HUNG_UP], BAD_HTTP, "body", "a", "truncated"),
    "C6 a flood of trailers": Case(
        [BEGUN + b"0\r\n" + b"x: y\r\n" * 20_000, HUNG_UP], BAD_HTTP, "body", "a", "truncated"
    ),
    "C7 less than announced": Case([head(200, "Content-Length: 99"), A, FIN], TRUNCATED, "body", "a", "truncated"),
    "C8 no proof of the end": Case([head(), A, FIN], text="a", verdict="unverified"),
    "C8 HTTP/1.0": Case([b"HTTP/1.0 200 OK\r\n\r\n" + A, FIN], text="a", verdict="unverified"),
    "C9 no proof, and half a line": Case([head(), A, A[:9], FIN], TRUNCATED, "body", "a", "truncated"),
    "C10 no last newline": Case([answer(200, A + LINE)], text="aa"),
    "C10 no last newline, cut": Case([answer(200, A + LINE[:-3])], TRUNCATED, "body", "a", "truncated"),
    "C11 byte by byte": Case([one_by_one(reply("Seg", "ún", "€", "end"))], text="Según€end"),
    "C11 a megabyte": Case([reply("x" * 1_000_000)], text="x" * 1_000_000),
    "C12 gzip": Case([answer(200, b"\x1f\x8b", "Content-Encoding: gzip"), HUNG_UP], COMPRESSED, "head"),
    "C12 br": Case([head(200, "Content-Encoding: br"), HUNG_UP], COMPRESSED, "head"),
    "C12 zstd": Case([head(200, "Content-Encoding: zstd"), HUNG_UP], COMPRESSED, "head"),
    "C16 a second response": Case([reply("a") + reply("b"), HUNG_UP], text="a"),
    "C17 a redirect": Case(
        [answer(307, b"", "Location: https://elsewhere.test/x")],
        Fault(ProtocolError, "redirect_refused", "never"),
        "head",
        words="elsewhere.test",
    ),
    "C18 101": Case([head(101, "Upgrade: x", "Connection: upgrade"), HUNG_UP], BAD_HTTP, "head"),
}


def after_a_text(line: bytes, error: Fault) -> Case:
    """A good text, and then a line that is none."""
    return Case([BEGUN, chunk(line + b"\n"), LAST], error, "body", "a", "truncated")


def lines(data: bytes, text: str, shown: str | None = None) -> Case:
    """A good reply of these bytes."""
    return Case([answer(200, data)], text=text, shown=shown)


def cut_in_three(data: bytes) -> list[Step]:
    return [CHUNKED, *(chunk(data[place : place + 3]) for place in range(0, len(data), 3)), LAST]


LINES: dict[str, Case] = {
    "D1 a lone ff": after_a_text(b'{"event":"text","data":"\xff"}', DECODE),
    "D1 overlong": after_a_text(b'{"event":"text","data":"\xc0\xaf"}', DECODE),
    "D1 a surrogate as bytes": after_a_text(b'{"event":"text","data":"\xed\xa0\x80"}', DECODE),
    "D2 characters cut in three": Case(cut_in_three('{"event":"text","data":"ñ€😀日本"}\n'.encode()), text="ñ€😀日本"),
    "D3 CRLF": lines(LINE + b"\r\n\r\n" + LINE + b"\r\n", "aa"),
    "D3 CR is white space": lines(b"\r" + LINE + b"\r\r\n", "a"),
    "D4 blank lines": lines(b"\n \n\t\n" * 1000 + A, "a"),
    "D5 a BOM": Case(cut_in_three(b"\xef\xbb\xbf" + A), text="a"),
    "D5 a BOM later": after_a_text(b"\xef\xbb\xbf" + LINE, BAD_EVENT),
    "D6 other separators": lines(
        '{"event":"text","data":"a\u2028b\u0085c"}\n'.encode(), "a\u2028b\u0085c", "a\u2028bc"
    ),
    "D7 a line without end": Case([CHUNKED, endless(chunk(b"x" * 65536))], TOO_LONG, "body"),
    "D8 a line of the limit": lines(
        b'{"event":"text","data":"%b"}\n' % (b"x" * (1024 * 1024 - 26)), "x" * (1024 * 1024 - 26)
    ),
    "D8 one byte more": after_a_text(b'{"event":"text","data":"%b"}' % (b"x" * (1024 * 1024 - 25)), TOO_LONG),
    "D9 NUL": after_a_text(b'{"event":"text","data":"\0"}', BAD_EVENT),
    "D10 a page": after_a_text(b"<html>", BAD_EVENT),
    "D10 server-sent events": Case([answer(200, b"data: " + A)], NO_STREAM, "body", words="server-sent events"),
    "D11 a list": after_a_text(b'["text"]', BAD_EVENT),
    "D11 null": after_a_text(b"null", BAD_EVENT),
    "D12 too deep": after_a_text(b'{"event":"x","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", BAD_EVENT),
    "D13 NaN": after_a_text(b'{"event":"x","data":NaN}', BAD_EVENT),
    "D13 1e400": after_a_text(b'{"event":"x","data":1e400}', BAD_EVENT),
    "D14 5,000 digits": after_a_text(b'{"event":"x","data":%b}' % (b"9" * 5000), BAD_EVENT),
    "D15 equal keys": lines(b'{"event":"x","data":"b","data":"a","event":"text"}\n', "a"),
    "D16 a lone surrogate": lines(b'{"event":"text","data":"a\\ud83d"}\n', "a\ufffd"),
    "D17 many keys": lines(
        b"{%b" % b"".join(b'"%d":0,' % number for number in range(50_000)) + LINE.removeprefix(b"{") + b"\n", "a"
    ),
    "D18 UTF-16": Case([answer(200, LINE.decode().encode("utf-16-le"))], DECODE, "body"),
    "D19 two on a line": after_a_text(LINE + LINE, BAD_EVENT),
    "D19 one on two lines": after_a_text(b'{"event":"text",\n"data":"a"}', BAD_EVENT),
}

ESCAPES = "\x1b[31mred\x1b]0;title\x07\u202eback\x9b2J"

EVENTS: dict[str, Case] = {
    "E1 an unknown name": lines(event("b", "sparkle") + A, "a"),
    "E2 no event": lines(b'{"other":1}\n' + A, "a"),
    "E2 nothing but such": Case([answer(200, b'{"other":1}\n')], NO_STREAM, "body"),
    "E3 no data": after_a_text(b'{"event":"text"}', BAD_EVENT),
    "E3 null": after_a_text(b'{"event":"text","data":null}', BAD_EVENT),
    "E4 a number": after_a_text(b'{"event":"text","data":1}', BAD_EVENT),
    "E4 an object": after_a_text(b'{"event":"text","data":{}}', BAD_EVENT),
    "E5 an empty text": lines(event("") + A + event(""), "a"),
    "E6 a name that is no string": after_a_text(b'{"event":1,"data":"a"}', BAD_EVENT),
    "E7 an event called error": lines(A + event("b", "error") + A, "aa"),
    "E7 nothing but others": Case([answer(200, event("b", "title"))], EMPTY, "body", words="title"),
    "E11 no text": Case([answer(200, event(""))], EMPTY, "body"),
    "E13 our own protocol": lines(event('data: [DONE]\n\n{"event":"error"}\n'), 'data: [DONE]\n\n{"event":"error"}\n'),
    "E14 control sequences": lines(event(ESCAPES), ESCAPES, "[31mred]0;titleback2J"),
}


def refused(status: int, error: Fault, body: bytes = b"", *headers: str, wait_s: int | None = None) -> Case:
    """A status that is no reply."""
    return Case([answer(status, body, *headers), FIN], error, "head", words=f"status {status}", wait_s=wait_s)


STATUSES: dict[str, Case] = {
    "F1 400": refused(400, BAD_REQUEST, b'{"message": "no"}'),
    "F2 401": refused(401, AUTHENTICATION),
    "F3 402": refused(402, QUOTA),
    "F4 403": refused(403, Fault(PermissionDeniedError, "permission_denied", "never"), b'{"message": "no"}'),
    "F5 a page with 403": refused(403, CHALLENGE, PAGE),
    "F5 a challenge with 503": refused(503, CHALLENGE, PAGE + b"challenge-platform"),
    "F6 a page with 200": Case([answer(200, PAGE)], NO_STREAM, "body"),
    "F6 a challenge with 200": refused(200, CHALLENGE, PAGE, "cf-mitigated: challenge"),
    "F7 404": refused(404, Fault(NotFoundError, "not_found", "never")),
    "F7 410": refused(410, Fault(NotFoundError, "not_found", "never")),
    "F8 405": refused(405, BAD_REQUEST),
    "F8 451": refused(451, BAD_REQUEST),
    "F9 408": refused(408, Fault(BadRequestError, "request_timeout", "ambiguous")),
    "F10 409": refused(409, BAD_REQUEST),
    "F11 413": refused(413, BAD_REQUEST),
    "F12 422": refused(422, BAD_REQUEST, b'{"error": {"message": "field x"}}'),
    "F13 425": refused(425, Fault(BadRequestError, "too_early", "safe")),
    "F13 421": refused(421, Fault(BadRequestError, "too_early", "safe")),
    "F14 429 with a wait": refused(429, LIMITED, b"", "Retry-After: 3", wait_s=3),
    "F15 429": refused(429, LIMITED),
    "F16 429 with a date": refused(
        429,
        LIMITED,
        b"",
        "Retry-After: Sun, 06 Nov 1994 08:49:42 GMT",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT",
        wait_s=5,
    ),
    "F17 429 with a wait that is none": refused(429, LIMITED, b"", "Retry-After: soon"),
    "F18 429 with an absurd wait": refused(429, LIMITED, b"", "Retry-After: 4000000000", wait_s=4_000_000_000),
    "F20 429 for credit": refused(429, QUOTA, b'{"message": "out of credit"}'),
    "F22 500": refused(500, SERVER),
    "F22 502": refused(502, SERVER),
    "F22 504": refused(504, SERVER),
    "F23 503": refused(503, UNAVAILABLE),
    "F23 503 with a wait": refused(503, UNAVAILABLE, b"", "Retry-After: 7", wait_s=7),
    "F24 520": refused(520, SERVER),
    "F24 522": refused(522, SERVER_SAFE),
    "F24 524": refused(524, SERVER_FINAL),
    "F25 529": refused(529, UNAVAILABLE),
    "F26 599": refused(599, SERVER),
    "F26 999": Case([answer(999), FIN], BAD_HTTP, "head"),
    "F26 000": Case([answer("000 Whatever"), FIN], BAD_HTTP, "head"),
    "F26 a reason in Latin-1": Case([answer("500 Weiß nicht"), FIN], SERVER, "head", words="status 500"),
    "F27 long": refused(400, BAD_REQUEST, b"x" * 1_000_000),
    "F27 binary": refused(500, SERVER, b"\x1f\x8b\xff\0", "Content-Encoding: gzip"),
    "F27 without end": Case(
        [head(500, "Transfer-Encoding: chunked"), endless(chunk(b"oh no " * 1000))], SERVER, "head"
    ),
    "F28 503, and not again": refused(503, UNAVAILABLE._replace(retry_class="never"), b"", "x-should-retry: false"),
    "G1 401, nine minutes off": Case(
        [nine_minutes_off, FIN], Fault(AuthenticationError, "clock_skew", "safe"), "head", words="9 min slow"
    ),
    "G6 401 for every signature": Case([answer(401), FIN], AUTHENTICATION, "head", words="rejects the key or the sign"),
}

CASES = WAY | HEADS | BODIES | LINES | EVENTS | STATUSES
