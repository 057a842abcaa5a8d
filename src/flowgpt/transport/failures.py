"""Foreign failures to ours: the HTTP client's exceptions by one table, HTTP statuses by another.

Nothing above this package knows the HTTP client's names. Messages carry no secret, and nothing of the service's text
that is longer than a line.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp_socks import ProxyConnectionError, ProxyTimeoutError
from aiohttp_socks import ProxyError as SocksError

from ..addresses import Proxy
from ..errors import (
    APIConnectionError,
    APIStatusError,
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
    ServiceUnavailableError,
    StreamInterruptedError,
)
from ..limits.retry import http_date, retry_after_s
from . import Call
from .health import LIMIT_OFFSET_S, LIMIT_SKEW_S

LIMIT_ERROR_BODY_BYTES = 64 * 1024
LIMIT_ERROR_BODY_S = 5.0
LIMIT_SHOWN_CHARACTERS = 500
LIMIT_SHOWN_GARBAGE = 100


Headers = Mapping[str, str]


class Row(NamedTuple):
    """What an exception of the HTTP client means."""

    foreign: type[BaseException]
    error: type[FlowGPTError]
    code: str
    words: str


TABLE: tuple[Row, ...] = (
    Row(aiohttp.ClientConnectorDNSError, APIConnectionError, "dns_error", "cannot resolve the host"),
    Row(aiohttp.ClientConnectorCertificateError, APIConnectionError, "tls_error", "TLS failed"),
    Row(aiohttp.ClientConnectorSSLError, APIConnectionError, "tls_error", "TLS failed"),
    Row(aiohttp.ClientSSLError, APIConnectionError, "tls_error", "TLS failed"),
    Row(aiohttp.ServerFingerprintMismatch, APIConnectionError, "tls_error", "TLS failed"),
    Row(ssl.SSLError, APIConnectionError, "tls_error", "TLS failed"),
    Row(aiohttp.ClientProxyConnectionError, ProxyError, "proxy_connect_error", "cannot reach the proxy"),
    Row(aiohttp.ClientHttpProxyError, ProxyError, "proxy_connect_error", "the proxy refused"),
    Row(ProxyConnectionError, ProxyError, "proxy_connect_error", "cannot reach the proxy"),
    Row(ProxyTimeoutError, ProxyError, "proxy_connect_error", "the proxy does not answer"),
    Row(SocksError, ProxyError, "proxy_connect_error", "the proxy refused"),
    Row(EOFError, ProxyError, "proxy_connect_error", "the proxy broke off"),
    Row(UnicodeError, ProxyError, "proxy_connect_error", "the proxy's answer is not SOCKS"),
    Row(aiohttp.ClientConnectorError, APIConnectionError, "connect_error", "cannot connect"),
    Row(aiohttp.ConnectionTimeoutError, APITimeoutError, "connect_timeout", "no connection in time"),
    Row(aiohttp.ServerTimeoutError, APITimeoutError, "idle_timeout", "no data in time"),
    Row(aiohttp.ServerDisconnectedError, StreamInterruptedError, "stream_interrupted", "the connection was closed"),
    Row(aiohttp.ClientPayloadError, StreamInterruptedError, "stream_interrupted", "the reply was cut"),
    Row(aiohttp.ClientConnectionResetError, StreamInterruptedError, "stream_interrupted", "the connection was reset"),
    Row(aiohttp.ClientOSError, StreamInterruptedError, "stream_interrupted", "the connection broke"),
    Row(aiohttp.ClientConnectionError, StreamInterruptedError, "stream_interrupted", "the connection broke"),
    Row(aiohttp.InvalidURL, InvalidRequestError, "bad_base_url", "the address is not usable"),
    Row(aiohttp.ClientResponseError, ProtocolError, "bad_http", "the answer is not HTTP"),
    Row(aiohttp.ClientError, ProtocolError, "bad_http", "the answer is not HTTP"),
    Row(HttpProcessingError, ProtocolError, "bad_http", "the answer is not HTTP"),
    Row(TimeoutError, APITimeoutError, "connect_timeout", "no connection in time"),
    Row(ConnectionError, StreamInterruptedError, "stream_interrupted", "the connection was reset"),
    Row(OSError, APIConnectionError, "connect_error", "cannot connect"),
    Row(RuntimeError, StreamInterruptedError, "stream_interrupted", "the connection was closed"),
)
"""The first row whose class fits counts. RuntimeError is aiohttp's, for a connection or session that is closed;
EOFError and UnicodeError the SOCKS library's, which lets them through.
"""

FOREIGN = tuple(row.foreign for row in TABLE)


def translate(error: BaseException, *, phase: str, call: Call, reused: bool = False, tail: bytes = b"") -> FlowGPTError:
    """Our error for an exception of the HTTP client. `phase`: what was under way; `reused`: on an idle connection.

    `tail`: the bytes of the line that was cut, for the body.
    """
    row = next(row for row in TABLE if isinstance(error, row.foreign))
    kind, code, words = row.error, row.code, row.words
    facts: dict[str, Any] = {"phase": phase}
    proxy = call.options.proxy
    place = call.origin
    failed = error.__cause__ if isinstance(error, ProxyConnectionError) else error
    if isinstance(failed, OSError) and failed.errno in (errno.EMFILE, errno.ENFILE):
        kind, code, words = ServiceUnavailableError, "overloaded", "too many open files on this machine"
        facts["retry_class"] = "never"
    elif proxy is not None and phase in ("pool", "connect") and _at_proxy(error, row, proxy):
        return _proxy_failure(error, row, proxy, phase=phase)
    elif phase in ("pool", "connect") and kind in (StreamInterruptedError, ProtocolError):
        kind, code, words = APIConnectionError, "connect_error", "the connection broke while it was made"
    elif phase == "head" and isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        kind, code, words = ProtocolError, "bad_http", "the connection was closed in the middle of the answer's head"
        facts["retry_class"] = "ambiguous"
    elif phase == "head" and kind is StreamInterruptedError and reused:
        code, words = "connection_closed_idle", "an idle connection was closed"
    elif phase == "body" and kind is StreamInterruptedError:
        facts["tail"] = tail
        if isinstance(error, aiohttp.ClientPayloadError) and not tail.strip():
            code, words = "stream_truncated", "the reply ended before its end"
    elif kind is ProtocolError:
        words += _garbage(error, call)
    elif kind is APIConnectionError:
        words += _reason(error)
    return kind(f"{words}: {place}", code=code, hint=HINTS.get(code), **facts)


HINTS = {
    "dns_error": "check the host's name and the network",
    "connect_error": "is the service up, and is the address right?",
    "tls_error": "check the address, the proxy and the clock; certificates are always verified",
    "proxy_connect_error": "check the proxy's address and credentials, or use proxy='' for none",
    "proxy_auth_error": "check the user name and password in the proxy's URL",
    "bad_http": "is base_url the address of an HTTP service?",
}


def _at_proxy(error: BaseException, row: Row, proxy: Proxy) -> bool:
    """Whether the way to the proxy failed, or the proxy itself; not the way from there to the service."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return (error.host, error.port) == (proxy.host.strip("[]"), proxy.port)
    return row.error in (ProxyError, StreamInterruptedError, ProtocolError)


def _proxy_failure(error: BaseException, row: Row, proxy: Proxy, *, phase: str) -> ProxyError:
    """What a proxy did that cannot be reached, refuses, or breaks off."""
    code, words, final = "proxy_connect_error", row.words, row.code == "tls_error"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        words, final = f"the proxy answered {error.status}", error.status < 500
        code = "proxy_auth_error" if error.status == 407 else code
    elif isinstance(error, SocksError):
        words, final = f"{words} ({_line(str(error), 80)})", error.error_code in SOCKS_FINAL
        code = "proxy_auth_error" if "auth" in str(error).lower() else code
    elif isinstance(error, (aiohttp.ClientConnectorError, ProxyConnectionError)):
        words = "cannot reach the proxy" + (_reason(error) or f" ({row.words})")
    elif row.error is not ProxyError:
        words = "the proxy broke off" if row.error is StreamInterruptedError else "the proxy's answer is not HTTP"
    if code == "proxy_auth_error":
        words, final = "the proxy rejects the credentials", True
    again: RetryClass = "never" if final else "safe"
    return ProxyError(f"{words}: {proxy.url}", code=code, hint=HINTS[code], phase=phase, retry_class=again)


SOCKS_FINAL = (2, 7, 8)
"""Replies of a SOCKS proxy that will not change: not allowed, command or kind of address unknown (RFC 1928, 6)."""


def _reason(error: BaseException) -> str:
    """What the system or TLS said, short: " (Connection refused)"."""
    if isinstance(error, ProxyConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    if certificate := getattr(error, "certificate_error", None):
        error = certificate
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError):
        message = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or "the handshake failed"
        return f" ({_line(str(message), 120).replace('_', ' ').lower()})"
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return f" ({errno.errorcode.get(cause.errno, cause.errno)})"
    return ""


def _garbage(error: BaseException, call: Call) -> str:
    """What the parser says about an answer that is no HTTP, with a piece of it."""
    said = _line(_scrubbed(str(getattr(error, "message", "")), call), LIMIT_SHOWN_GARBAGE)
    return f" ({said})" if said else ""


# --- statuses ----------------------------------------------------------------------------------------------------


class Status(NamedTuple):
    """What an HTTP status means."""

    error: type[APIStatusError]
    code: str
    words: str
    hint: str | None = None
    retry_class: RetryClass | None = None


STATUSES: dict[int, Status] = {
    400: Status(BadRequestError, "bad_request", "refuses the request"),
    401: Status(
        AuthenticationError,
        "authentication_failed",
        "rejects the key or the signature",
        "check api_key and this machine's clock; if both are right, the protocol may have changed",
    ),
    402: Status(QuotaExceededError, "quota_exceeded", "wants a payment", "no credit is left for this key"),
    403: Status(PermissionDeniedError, "permission_denied", "does not allow this", "the key may have expired"),
    404: Status(NotFoundError, "not_found", "does not have this", "check base_url; the API may have changed"),
    408: Status(BadRequestError, "request_timeout", "did not get the request in time", "ask again"),
    410: Status(NotFoundError, "not_found", "no longer has this", "the API may have changed"),
    413: Status(BadRequestError, "bad_request", "finds the request too large", "shorten the history"),
    421: Status(BadRequestError, "too_early", "wants another connection", "ask again"),
    425: Status(BadRequestError, "too_early", "wants the request later", "ask again"),
    429: Status(RateLimitError, "rate_limited", "limits the rate of requests", "wait, and ask again"),
    503: Status(InternalServerError, "service_unavailable", "is not available"),
    521: Status(InternalServerError, "server_error", "is down behind its edge", None, "safe"),
    522: Status(InternalServerError, "server_error", "cannot be reached by its edge", None, "safe"),
    523: Status(InternalServerError, "server_error", "cannot be reached by its edge", None, "safe"),
    524: Status(InternalServerError, "server_error", "took too long for its edge", None, "never"),
    525: Status(InternalServerError, "server_error", "has a TLS fault behind its edge", None, "never"),
    526: Status(InternalServerError, "server_error", "has a TLS fault behind its edge", None, "never"),
    529: Status(InternalServerError, "service_unavailable", "is overloaded"),
}
OTHER_4XX = Status(BadRequestError, "bad_request", "refuses the request")
OTHER_5XX = Status(InternalServerError, "server_error", "failed")


async def refusal(
    response: aiohttp.ClientResponse, call: Call, *, deadline_s: float | None = None, offset_s: float = 0.0
) -> FlowGPTError | None:
    """What the head says against reading the body as a reply, or None. A refused response is closed.

    `offset_s`: how far the service's clock was thought to be ahead of ours when the request was signed.
    """
    error = _head_error(response.status, response.headers)
    if error is None:
        if 200 <= response.status < 300 and "cf-mitigated" not in response.headers:
            return None
        try:
            body = await _beginning(response, deadline_s)
        finally:  # cancelled, too
            response.close()
        skew = _clock_skew(response, offset_s) if call.signed else None
        error = skew or _status_error(response.status, response.headers, body, call)
    response.close()
    if isinstance(error, APIStatusError):
        error.offset_s = clock_offset_s(response.headers)
    error.phase = "head"
    error.request_id = request_id(response, call)
    return error


def _head_error(status: int, headers: Headers) -> FlowGPTError | None:
    """What is wrong with the head itself; None for a reply and for a refusal that has its say in the body."""
    coding = headers.get("Content-Encoding", "identity").strip().lower()
    transfer = headers.get("Transfer-Encoding", "chunked").strip().lower()
    if status == 407:
        return ProxyError("the proxy rejects the credentials", code="proxy_auth_error", hint=HINTS["proxy_auth_error"])
    if not 200 <= status < 600:
        return ProtocolError(f"the answer has status {status}, which HTTP does not know", code="bad_http")
    if status in (204, 205, 304):
        return ProtocolError(f"the reply is empty (status {status})", code="empty_reply")
    if 300 <= status < 400:
        target = re.match(r"(?:\w+:)?//(?:[^/?#]*@)?([^/?#@]*)", headers.get("Location", ""))
        where = _line(target[1], 80) if target else "another place"
        return ProtocolError(
            f"the service redirects to {where} (status {status}), and redirects are never followed",
            code="redirect_refused",
            hint="if that is the service's new origin, set base_url",
        )
    if status < 300 and (coding not in ("", "identity") or transfer != "chunked"):
        encoding = transfer if transfer != "chunked" else coding
        return ProtocolError(
            f"the reply is compressed ({_line(encoding, 20)}), and we asked for identity", code="compression_refused"
        )
    return None


def _clock_skew(response: aiohttp.ClientResponse, offset_s: float) -> FlowGPTError | None:
    """A rejected signature whose cause may be the clock (G1): sent again once, by the service's clock."""
    skew_s = clock_offset_s(response.headers)
    signed_wrong = abs(skew_s - offset_s) > LIMIT_SKEW_S  # also when our clock has been set right since
    if response.status not in (401, 403) or http_date(response.headers.get("Date")) is None:
        return None
    if not (signed_wrong or abs(skew_s) > LIMIT_SKEW_S) or abs(skew_s) >= LIMIT_OFFSET_S:
        return None
    row = STATUSES[response.status]
    words = f"{abs(skew_s) / 60:.0f} min {'slow' if skew_s > 0 else 'fast'}"
    return row.error(
        f"the service {row.words} (status {response.status}); this machine's clock is {words}",
        code="clock_skew",
        status_code=response.status,
        hint="set the clock; if that does not help, check api_key",
        retry_class="safe" if signed_wrong else "never",
    )


def clock_offset_s(headers: Headers) -> float:
    """How far the service's clock is ahead of ours by its Date, in seconds; 0: it didn't say."""
    date = http_date(headers.get("Date"))
    return 0.0 if date is None else date.timestamp() - time.time()


def request_id(response: aiohttp.ClientResponse, call: Call) -> str | None:
    """The service's name for this request, when it gives one."""
    value = response.headers.get("x-request-id")
    return None if value is None else _line(_scrubbed(value, call), 80)


async def _beginning(response: aiohttp.ClientResponse, deadline_s: float | None) -> str:
    """The first bytes of an error's body, within its limits, however it breaks off."""
    body = bytearray()
    until = asyncio.get_running_loop().time() + LIMIT_ERROR_BODY_S
    try:
        async with asyncio.timeout_at(until if deadline_s is None else min(until, deadline_s)):
            while len(body) < LIMIT_ERROR_BODY_BYTES and (data := await response.content.readany()):
                body += data
    except FOREIGN:
        pass  # what has come is enough
    return body[:LIMIT_ERROR_BODY_BYTES].decode(errors="replace")


def _scrubbed(text: str, call: Call) -> str:
    """Foreign text without the secrets that it may echo."""
    for secret in call.secrets:
        text = text.replace(str(secret), "***") if secret.strip() else text
    return text


def _status_error(status: int, headers: Headers, body: str, call: Call) -> FlowGPTError:
    row = STATUSES.get(status) or (OTHER_4XX if status < 500 else OTHER_5XX)
    page = body.lstrip()[:1] == "<" or "html" in headers.get("Content-Type", "")
    if "cf-mitigated" in headers or (page and (status == 403 or (status == 503 and "challenge" in body.lower()))):
        return ChallengeError(
            f"the service asks for a browser check (status {status}); this client does not bypass it",
            status_code=status,
            hint="use the service in a browser, or ask its owners for access",
        )
    said = "" if page else _scrubbed(_said(body), call)
    if status == 429 and re.search(r"quota|credit|billing", said, re.IGNORECASE):
        row = STATUSES[402]
    said = _line(said, LIMIT_SHOWN_CHARACTERS)
    return row.error(
        f"the service {row.words} (status {status})" + (f": {said}" if said else ""),
        code=row.code,
        status_code=status,
        hint=row.hint,
        retry_after_s=retry_after_s(headers.get("Retry-After"), date=headers.get("Date")),
        retry_class="never" if headers.get("x-should-retry") == "false" else row.retry_class,
    )


def _said(body: str) -> str:
    """The words of an error body: the keys `data`, `message`, `error`, in this order; else the body itself.

    Source: docs/protocol.md#errors-and-quotas. Other servers: FastAPI's have `detail`, and Google's a list around it.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body
    for _ in range(3):
        if isinstance(value, list):
            value = next(iter(value), "")
        elif isinstance(value, dict):
            value = next((value[key] for key in ("data", "message", "error", "detail", "msg") if value.get(key)), "")
    return value if isinstance(value, str) else ""


def _line(text: str, length: int) -> str:
    """Foreign text as a message may show it: one line, no control characters, at most `length` characters."""
    text = " ".join(text.split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text[: length + 1])
    return text if len(text) <= length else text[: length - 1] + "…"
