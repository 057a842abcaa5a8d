"""The two tables: every exception of the HTTP client, every HTTP status; and ways that really fail."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import resource
import socket
import ssl
import threading
from types import SimpleNamespace
from typing import Any

import aiohttp
import aiohttp_socks
import pytest
import trustme
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from flowgpt.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChallengeError,
    FlowGPTError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    ProxyError,
    QuotaExceededError,
    RateLimitError,
    ServiceUnavailableError,
)
from flowgpt.transport import failures
from flowgpt.transport.connection import LIMIT_INTERIM_HEADS
from flowgpt.transport.failures import FOREIGN, TABLE, translate
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER, Resolver
from tests.transport.calls import Outcome, ask, call, limits, read
from tests.upstream import (
    BOUND_S,
    CHUNKED,
    FIN,
    HUNG_UP,
    LAST,
    RST,
    Step,
    Upstream,
    answer,
    chunk,
    endless,
    event,
    head,
)


def run(script: list[Step], **options: Any) -> Outcome:
    with Upstream(script) as upstream:
        return run_at(upstream.url, **options)


def run_at(url: str, **options: Any) -> Outcome:
    async def main() -> Outcome:
        async with asyncio.timeout(10):
            return await read(ask(url, **({"timeout": limits()} | options)))

    return asyncio.run(main())


# --- the table of exceptions ----------------------------------------------------------------------------------------

NOT_IN_A_CALL = {
    "BadContentDispositionHeader": "a warning",
    "BadContentDispositionParam": "a warning",
    "EofStream": "of the server's request reader",
    "SocksError": "the SOCKS library makes its ProxyError of it",
    "WSMessageTypeError": "of web sockets",
    "WebSocketError": "of web sockets",
}
PUBLIC = {
    name: found
    for package in (aiohttp, aiohttp_socks)
    for name in dict.fromkeys([*getattr(package, "__all__", ()), *vars(package)])
    if isinstance(found := getattr(package, name), type) and issubclass(found, BaseException)
}


def test_the_client_has_exceptions_and_we_found_them() -> None:
    assert len(PUBLIC) > 30
    assert {"ClientConnectorDNSError", "ClientPayloadError", "ServerDisconnectedError", "ProxyError"} <= PUBLIC.keys()
    assert NOT_IN_A_CALL.keys() <= PUBLIC.keys()


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - NOT_IN_A_CALL.keys()))
def test_every_public_exception_of_the_client_is_in_the_table(name: str) -> None:
    assert issubclass(PUBLIC[name], FOREIGN), "no row catches it"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.foreign.__name__)
def test_a_row_is_reached_and_gives_its_code(row: failures.Row) -> None:
    """No row stands behind one that takes its exceptions away."""
    first = next(other for other in TABLE if issubclass(row.foreign, other.foreign))
    assert first is row
    assert issubclass(row.error, FlowGPTError)


@pytest.mark.parametrize("phase", ["pool", "connect", "head", "body"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: str(foreign.__name__))
def test_every_exception_in_every_phase_becomes_one_of_ours(foreign: type[BaseException], phase: str) -> None:
    """Also when it is made without its facts, and whatever its words are."""
    error = foreign.__new__(foreign)
    error.args = ("a\nb",)
    facts = {"_conn_key": SimpleNamespace(host="h", port=1, ssl=True, is_ssl=True), "_os_error": OSError(1, "x")}
    for name, value in (facts | {"message": "m", "status": 500}).items():
        with contextlib.suppress(AttributeError):
            setattr(error, name, value)
    ours = translate(error, phase=phase, call=call("http://127.0.0.1:1"))
    assert ours.phase == phase
    assert str(ours).isprintable()
    assert "127.0.0.1:1" in str(ours)


def test_k1_the_clients_own_exceptions_show_the_headers_and_ours_do_not() -> None:
    """What the table is for: aiohttp's repr has the Authorization header."""
    headers = CIMultiDictProxy(CIMultiDict(Authorization=f"Bearer {API_KEY}"))
    sent = aiohttp.RequestInfo(URL("http://h/"), "POST", headers, URL("http://h/"))
    theirs = aiohttp.ClientResponseError(sent, (), status=400, message="Bad status line")
    assert API_KEY in repr(theirs)
    ours = translate(theirs, phase="head", call=call("http://127.0.0.1:1", api_key=API_KEY))
    assert API_KEY not in repr(ours) + str(ours) + repr(vars(ours))
    assert ours.__cause__ is ours.__context__ is None


# --- ways that fail -------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a1_an_unknown_host_is_a_dns_error() -> None:
    outcome = run_at("http://nowhere.invalid")
    assert outcome.fault == (APIConnectionError, "dns_error", "connect")
    assert outcome.failure is not None
    assert outcome.failure.retry_class == "safe"
    assert "nowhere.invalid" in str(outcome.failure)


def test_a2_a_resolver_that_fails_for_now_is_a_dns_error(resolver: Resolver) -> None:
    resolver({"flaky.test": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")})
    assert run_at("http://flaky.test").fault == (APIConnectionError, "dns_error", "connect")


def test_a2_a_resolver_that_hangs_is_bounded_by_the_connect_limit(resolver: Resolver) -> None:
    answered = threading.Event()
    resolver({"slow.test": lambda: answered.wait(10) and None})

    async def main() -> Outcome:
        outcome = await read(ask("http://slow.test", timeout=limits(connect_s=0.05)))
        answered.set()
        return outcome

    assert asyncio.run(main()).fault == (APITimeoutError, "connect_timeout", "connect")


@pytest.mark.parametrize("dead_first", [True, False])
def test_a3_one_dead_address_of_two_is_no_fault(resolver: Resolver, dead_first: bool) -> None:
    """::1 is dead: the upstream listens on 127.0.0.1 only."""
    with Upstream([CHUNKED, chunk(event("a")), LAST]) as upstream:
        resolver({"two.test": ["::1", "127.0.0.1"] if dead_first else ["127.0.0.1", "::1"]})
        assert run_at(f"http://two.test:{upstream.port}").texts == ["a"]


def test_a4_a_refused_connection_may_be_tried_again() -> None:
    outcome = run_at(f"http://127.0.0.1:{closed_port()}")
    assert outcome.fault == (APIConnectionError, "connect_error", "connect")
    assert outcome.failure is not None
    assert outcome.failure.retry_class == "safe"
    assert "ECONNREFUSED" in str(outcome.failure)


def test_a5_a_host_that_swallows_packets_is_a_connect_timeout() -> None:
    """A full listen backlog: the kernel drops what knocks."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        with socket.create_connection(deaf.getsockname()):
            outcome = run_at(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=limits(connect_s=0.05))
    assert outcome.fault == (APITimeoutError, "connect_timeout", "connect")
    assert outcome.failure is not None
    assert outcome.failure.retry_class == "safe"


def test_a6_no_more_files_is_overloaded_and_not_tried_again() -> None:
    async def main(url: str) -> Outcome:
        await read(ask(url, timeout=limits()))  # what a first call opens is open
        gc.collect()  # what earlier tests left to it frees no descriptor in the middle
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as lowest:
            free = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            return await read(ask(url, timeout=limits(), max_retries=2))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with Upstream([answer("200 OK", event("a"), "Connection: close"), FIN]) as upstream:
        outcome = asyncio.run(main(upstream.url))
    assert isinstance(outcome.failure, ServiceUnavailableError)
    assert (outcome.code, outcome.failure.retry_class, outcome.failure.attempts) == ("overloaded", "never", 1)


def tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_a7_a_certificate_of_an_unknown_authority_is_refused_and_said_so() -> None:
    with Upstream([FIN], tls=tls(trustme.CA(), "127.0.0.1")) as upstream:
        outcome = run_at(upstream.url, max_retries=2)
        assert upstream.requests == []
    assert outcome.fault == (APIConnectionError, "tls_error", "connect")
    assert outcome.failure is not None
    assert (outcome.failure.retry_class, outcome.failure.attempts) == ("never", 1)
    assert "unable to get local issuer certificate" in str(outcome.failure)
    assert "verify" not in str(outcome.failure.hint or "").replace("verified", "")


def trusting(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA) -> None:
    """Make the next connections trust this authority: the client's own default contexts get it besides."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)


def test_a7_a_trusted_certificate_is_good_and_one_for_another_host_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    trusting(monkeypatch, authority)
    good = [CHUNKED, chunk(event("a")), LAST]
    with Upstream(good, tls=tls(authority, "127.0.0.1")) as upstream:
        assert run_at(upstream.url).texts == ["a"]
    with Upstream(good, tls=tls(authority, "other.test")) as upstream:
        outcome = run_at(upstream.url)
        assert upstream.requests == []
    assert outcome.fault == (APIConnectionError, "tls_error", "connect")
    assert "mismatch" in str(outcome.failure)


def test_a7_an_expired_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    trusting(monkeypatch, authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    long_ago = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    authority.issue_cert("127.0.0.1", not_before=long_ago, not_after=long_ago).configure_cert(context)
    with Upstream([FIN], tls=context) as upstream:
        outcome = run_at(upstream.url)
    assert outcome.fault == (APIConnectionError, "tls_error", "connect")
    assert "expired" in str(outcome.failure)


async def client_hello(peer: Any) -> None:
    assert await peer.reader.read(65536)


HANDSHAKES: dict[str, tuple[list[Step], tuple[str, str]]] = {
    "A7 no TLS": ([client_hello, b"HTTP/1.1 400 Bad Request\r\n\r\n", HUNG_UP], ("tls_error", "never")),
    "A7 an old protocol": ([client_hello, b"\x15\x03\x01\x00\x02\x02\x46", FIN], ("tls_error", "never")),  # an alert
    "A8 closed": ([client_hello, FIN], ("connect_error", "safe")),
    "A8 reset": ([client_hello, RST], ("connect_error", "safe")),
    "A8 stalled": ([HUNG_UP], ("connect_timeout", "safe")),
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_that_breaks_off(name: str) -> None:
    script, (code, retry_class) = HANDSHAKES[name]
    part = {"connect_s": 0.1} if "timeout" in code else {}
    with Upstream(greeting=script) as upstream:
        outcome = run_at(upstream.url.replace("http:", "https:"), timeout=limits(**part))
        assert upstream.requests == []
    assert outcome.failure is not None
    assert (outcome.code, outcome.failure.retry_class, outcome.failure.phase) == (code, retry_class, "connect")


NO_HTTP: dict[str, tuple[bytes, str]] = {
    "instead of a head": (b"garbage\r\n\r\n", "head"),
    "too many heads": (head("100 Continue") * (LIMIT_INTERIM_HEADS + 1), "head"),
    "in the body": (CHUNKED + b"garbage\r\n\r\n", "body"),
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_http_inside_tls_leaves_no_socket_open(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a service that never says goodbye, which TLS waits for."""
    data, phase = NO_HTTP[name]
    authority, ended = trustme.CA(), threading.Event()
    trusting(monkeypatch, authority)

    async def stand_still(_: Any) -> None:
        assert ended.wait(BOUND_S)  # and its loop with it, which would answer

    with Upstream([data, stand_still], tls=tls(authority, "127.0.0.1")) as upstream:
        outcome = run_at(upstream.url)
        gc.collect()  # fails the test if there is an open transport
        ended.set()
    assert outcome.fault == (ProtocolError, "bad_http", phase)


# --- statuses -------------------------------------------------------------------------------------------------------


def meaning(status: int) -> tuple[type[FlowGPTError], str, str]:
    """faults.md, group F, in our own words: class, code and retry class of each status."""
    table: dict[int, tuple[type[FlowGPTError], str, str]] = {
        204: (ProtocolError, "empty_reply", "ambiguous"),
        205: (ProtocolError, "empty_reply", "ambiguous"),
        304: (ProtocolError, "empty_reply", "ambiguous"),
        401: (AuthenticationError, "authentication_failed", "never"),
        402: (QuotaExceededError, "quota_exceeded", "never"),
        403: (PermissionDeniedError, "permission_denied", "never"),
        404: (NotFoundError, "not_found", "never"),
        407: (ProxyError, "proxy_auth_error", "never"),
        408: (BadRequestError, "request_timeout", "ambiguous"),
        410: (NotFoundError, "not_found", "never"),
        421: (BadRequestError, "too_early", "safe"),
        425: (BadRequestError, "too_early", "safe"),
        429: (RateLimitError, "rate_limited", "safe"),
        503: (InternalServerError, "service_unavailable", "safe"),
        521: (InternalServerError, "server_error", "safe"),
        522: (InternalServerError, "server_error", "safe"),
        523: (InternalServerError, "server_error", "safe"),
        524: (InternalServerError, "server_error", "never"),
        525: (InternalServerError, "server_error", "never"),
        526: (InternalServerError, "server_error", "never"),
        529: (InternalServerError, "service_unavailable", "safe"),
    }
    if status in table:
        return table[status]
    if status < 200 or status >= 600:
        return ProtocolError, "bad_http", "never"
    if status < 300:
        return ProtocolError, "empty_reply", "ambiguous"  # a body without an event
    if status < 400:
        return ProtocolError, "redirect_refused", "never"
    if status < 500:
        return BadRequestError, "bad_request", "never"
    return InternalServerError, "server_error", "ambiguous"


def test_f8_f26_every_status_from_0_to_999_has_its_meaning() -> None:
    """1xx apart, which is no final status: 101 alone ends an exchange."""
    statuses = [0, 99, 101, *range(200, 1000)]

    async def main(url: str) -> list[Outcome]:
        async with asyncio.timeout(60):
            return [await read(ask(url, timeout=limits())) for _ in statuses]

    with Upstream(*([answer(f"{status:03} Whatever ÿ")] for status in statuses)) as upstream:
        outcomes = asyncio.run(main(upstream.url))
    for status, outcome in zip(statuses, outcomes, strict=True):
        failure = outcome.failure
        assert failure is not None, status
        assert (type(failure), failure.code, failure.retry_class) == meaning(status), status
        if isinstance(failure, APIStatusError):
            assert failure.status_code == status
            assert f"status {status}" in str(failure)
            assert failure.phase == "head"


def test_g6_who_is_rejected_hears_that_the_protocol_may_have_changed() -> None:
    failure = run([answer(401)]).failure
    assert failure is not None
    assert "the protocol may have changed" in str(failure.hint)


PAGE = b"<!DOCTYPE html><title>Just a moment...</title><script>alert(1)</script>"
BODIES: dict[str, tuple[bytes, type[FlowGPTError], str]] = {
    "F1 plain words": (answer(400, b"no\nsuch\x1b[31m thing"), BadRequestError, ": no such\ufffd[31m thing"),
    "the key data first": (
        answer(400, b'{"error": "c", "message": "b", "data": "a"}'),
        BadRequestError,
        "(status 400): a",
    ),
    "then message": (answer(400, b'{"error": "c", "message": "b", "data": ""}'), BadRequestError, "(status 400): b"),
    "then error, in two levels": (answer(422, b'{"error": {"message": "deep"}}'), BadRequestError, ": deep"),
    "JSON without words": (answer(400, b'{"code": 7}'), BadRequestError, "(status 400)"),
    "a list": (answer(400, b"[1, 2]"), BadRequestError, "(status 400)"),
    "too deep": (answer(400, b"[" * 50_000), BadRequestError, "…"),
    "nothing": (answer(400), BadRequestError, "(status 400)"),
    "F27 long": (answer(400, b"x" * 1_000_000), BadRequestError, "x…"),
    "F27 invalid UTF-8": (answer(500, b"a\xffb"), InternalServerError, ": a\ufffdb"),
    "F27 gzip": (answer(500, b"\x1f\x8b\x08", "Content-Encoding: gzip"), InternalServerError, "(status 500): \ufffd"),
    "F27 a page": (answer(500, PAGE), InternalServerError, "(status 500)"),
    "F27 cut short": (head(500, "Content-Length: 99") + b"half", InternalServerError, ": half"),
    "F4 JSON": (answer(403, b'{"message": "no"}'), PermissionDeniedError, ": no"),
    "F5 a page with 403": (answer(403, PAGE), ChallengeError, "does not bypass it"),
    "F5 a challenge with 503": (answer(503, PAGE + b"challenge-platform"), ChallengeError, "does not bypass it"),
    "F5 another page with 503": (answer(503, PAGE), InternalServerError, "(status 503)"),
    "F5 the edge's own header": (answer(429, b"", "cf-mitigated: challenge"), ChallengeError, "does not bypass it"),
    "F6 a challenge with 200": (answer(200, PAGE, "cf-mitigated: challenge"), ChallengeError, "does not bypass it"),
    "F6 a page with 200": (answer(200, PAGE), ProtocolError, "Just a moment...</title><script>alert(1)</'…"),
    "F20 429 for credit": (answer(429, b'{"message": "You are out of credit"}'), QuotaExceededError, "out of credit"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_an_error_body_says_stands_in_the_message_on_one_short_line(name: str) -> None:
    whole, kind, words = BODIES[name]
    outcome = run([whole, FIN])
    message = str(outcome.failure)
    assert type(outcome.failure) is kind
    assert words in message
    assert message.isprintable()
    assert len(message) < 600


def test_f27_an_error_body_without_end_is_read_to_its_cap() -> None:
    outcome = run([head(500, "Transfer-Encoding: chunked"), endless(chunk(b"oh no " * 1000))])
    assert outcome.code == "server_error"
    assert str(outcome.failure).endswith("…")


def test_f27_an_error_body_in_drops_is_read_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LIMIT_ERROR_BODY_S", 0.05)
    outcome = run([head(500, "Content-Length: 9"), b"oh", HUNG_UP])
    assert str(outcome.failure).endswith(": oh")


def test_f27_k1_secrets_that_the_service_echoes_do_not_show() -> None:
    """The key and the proxy's credentials, echoed in body, header and request id. The canary looks everywhere else."""
    with Upstream(
        [
            answer(
                "400 Bad",
                f"you sent Bearer {API_KEY}".encode(),
                f"x-request-id: {API_KEY}\x0b" + "i" * 200,
                f"Retry-After: {API_KEY}",
            )
        ],
        [answer("302 Found", b"", f"Location: http://{API_KEY}@h.test/{API_KEY}")],
        [f"{API_KEY} is not HTTP\r\n".encode(), FIN],
        [answer("400 Bad", f"{PROXY_USER}:{PROXY_PASSWORD}".encode())],
        [answer(200, f"<html>{'.' * 80}{API_KEY}".encode())],
    ) as upstream:
        first = run_at(upstream.url, api_key=API_KEY)
        rest = [run_at(upstream.url, api_key=API_KEY) for _ in range(2)]
        proxy = f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{upstream.port}"
        rest.append(run_at("http://nowhere.invalid", proxy=proxy))
        rest.append(run_at(upstream.url, api_key=API_KEY))
        assert upstream.requests[3].headers["proxy-authorization"].startswith("Basic ")
    assert first.failure is not None
    assert "Bearer ***" in str(first.failure)
    assert first.failure.request_id is not None
    assert len(first.failure.request_id) <= 80
    assert first.failure.request_id.isprintable()
    assert [outcome.code for outcome in rest] == ["redirect_refused", "bad_http", "bad_request", "not_a_stream"]


def test_b14_a_connection_with_an_unread_error_body_is_not_used_again() -> None:
    async def main(url: str) -> list[Outcome]:
        return [await read(ask(url, timeout=limits())) for _ in range(2)]

    error = head(500, "Transfer-Encoding: chunked")
    good = [CHUNKED, chunk(event("a")), LAST]
    with Upstream([error, endless(chunk(b"x" * 6000))], good) as upstream:
        bad, fine = asyncio.run(main(upstream.url))
        assert [request.connection for request in upstream.requests] == [0, 1]
    assert (bad.code, fine.texts) == ("server_error", ["a"])


def test_f14_f28_the_service_says_when_to_come_back_and_when_not_to() -> None:
    later = run([answer(429, b"", "Retry-After: 3")]).failure
    never = run([answer(429, b"", "Retry-After: 3", "x-should-retry: false")]).failure
    assert later is not None
    assert never is not None
    assert (later.retry_after_s, later.retriable) == (3.0, True)
    assert (never.retry_after_s, never.retriable) == (3.0, False)
