"""One attempt over real sockets: what of a reply arrives, and what each fault of head, body and time becomes."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
import uvloop
from aiohttp.helpers import NO_EXTENSIONS

from flowgpt.config import Timeouts
from flowgpt.errors import (
    APITimeoutError,
    InvalidRequestError,
    ProtocolError,
    StreamInterruptedError,
)
from flowgpt.transport import exchange, failures
from tests.transport.calls import BODY, Outcome, ask, limits, read
from tests.upstream import (
    CHUNKED,
    FIN,
    HUNG_UP,
    LAST,
    RST,
    Gate,
    Peer,
    Step,
    Upstream,
    answer,
    chunk,
    endless,
    event,
    head,
    one_by_one,
    reply,
    texts_in,
)

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
BRIEF_S = {"total_s": 0.5, "head_s": 0.2}
"""Limits that are meant to pass; all others are off. The longer ones have something to wait out before."""


def run(script: list[Step], *, loop: str = "asyncio", **options: Any) -> tuple[Outcome, Upstream]:
    """The outcome of one call answered by one script, within a bound that says: it hangs."""

    async def main(url: str) -> Outcome:
        async with asyncio.timeout(10):
            return await read(ask(url, **({"timeout": limits()} | options)))

    with Upstream(script) as upstream, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main(upstream.url)), upstream


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_a_request_says_who_it_is_and_asks_for_no_compression() -> None:
    """docs/protocol.md#status-and-terms: an honest User-Agent."""
    outcome, upstream = run([reply("a")])
    [request] = upstream.requests
    assert outcome.texts == ["a"]
    assert (request.method, request.target, request.body) == ("POST", "/v3/chat-anonymous", BODY)
    assert request.headers["user-agent"].startswith("flowgpt-python/")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-length"] == str(len(BODY))
    assert not {"cookie", "origin", "referer"} & request.headers.keys()


# --- cuts -----------------------------------------------------------------------------------------------------------

PARTS = [event("Seg"), event("ún") + event("€")[:9], event("€")[9:] + b"\n" + event("", "title"), event("end")]
WHOLE = CHUNKED + b"".join(map(chunk, PARTS)) + LAST


def body_at(offset: int) -> bytes:
    """The body bytes in the first `offset` bytes of WHOLE."""
    place, body = len(CHUNKED), b""
    for part in PARTS:
        place += len(chunk(part)) - len(part) - 2
        body += part[: max(0, offset - place)]
        place += len(part) + 2
    return body


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("cut", [FIN, RST], ids=["FIN", "RST"])
def test_b6_c3_c4_c5_c6_a_reply_cut_at_any_byte_gives_its_whole_lines_and_then_a_failure(cut: Step, loop: str) -> None:
    """Every offset of the response's bytes, the head's too. H19: on both event loops."""
    offsets = range(len(WHOLE))

    async def main(url: str) -> list[Outcome]:
        async with asyncio.timeout(60):
            # With a key each: so many failures would open the circuit of one endpoint.
            return [await read(ask(url, timeout=limits(), api_key=f"key-{offset}")) for offset in offsets]

    with (
        Upstream(*([WHOLE[:offset], cut] for offset in offsets)) as upstream,
        asyncio.Runner(loop_factory=LOOPS[loop]) as runner,
    ):
        outcomes = runner.run(main(upstream.url))
    for offset, outcome in zip(offsets, outcomes, strict=True):
        body = body_at(offset)
        texts = [text for text in texts_in([body]) if text]
        failure = outcome.failure
        assert failure is not None, offset
        assert outcome.texts == texts, offset
        assert failure.partial_text == "".join(texts), offset
        assert outcome.reply.verdict == "truncated", offset
        if offset < len(CHUNKED):
            bad_head = offset > 0 and cut is FIN
            expected = {ProtocolError if bad_head else StreamInterruptedError}
            if NO_EXTENSIONS:  # aiohttp's parser in Python judges a line when all of it is there (P4)
                expected = {ProtocolError, StreamInterruptedError}
            assert (type(failure) in expected, failure.phase) == (True, "head"), offset
            assert failure.retry_class == "ambiguous", offset
        else:
            tail = body.rpartition(b"\n")[2]
            on_a_line = cut is FIN and not tail
            code = "stream_truncated" if on_a_line else "stream_interrupted"
            assert isinstance(failure, StreamInterruptedError), offset
            assert (failure.code, failure.phase, failure.tail) == (code, "body", tail), offset


@pytest.mark.parametrize(
    ("cut", "size"),
    [(FIN, 1), (RST, 1), (FIN, 100_000)],  # a reset throws away what is still in the sender's own buffers
    ids=["FIN", "RST", "FIN, more than the client buffers"],
)
def test_h15_a_slow_reader_loses_nothing_that_arrived_before_the_cut(cut: Step, size: int) -> None:
    """aiohttp raises the cut before it hands out what it holds; the exchange reads that buffer first.

    The reader is slow: it stands still until the whole reply is in the client's buffers, or its limits are reached.
    """
    texts = [f"{number} " * 20 for number in range(size // 40 + 3)]
    gate = Gate()
    first, rest = CHUNKED + chunk(event(texts[0])), b"".join(chunk(event(text)) for text in texts[1:])

    async def main(url: str) -> Outcome:
        slow = ask(url, timeout=limits())
        assert (await slow.next()) is not None
        gate.open()
        content = slow._source._exchange._content  # type: ignore[attr-defined]  # to see that all of it has arrived
        async with asyncio.timeout(10):
            while content.exception() is None and not content._protocol._reading_paused:
                await asyncio.sleep(0)
        outcome = await read(slow)
        return Outcome([texts[0], *outcome.texts], outcome.failure, slow)

    with Upstream([first, gate, rest, cut]) as upstream:
        outcome = asyncio.run(main(upstream.url))
    assert outcome.texts == texts
    assert isinstance(outcome.failure, StreamInterruptedError)
    assert outcome.failure.partial_text == "".join(texts)


def test_c11_a_reply_that_comes_byte_by_byte_is_the_same() -> None:
    outcome, _ = run([one_by_one(WHOLE)])
    assert (outcome.texts, outcome.code, outcome.reply.verdict) == (["Seg", "ún", "€", "end"], None, "complete")


def test_c11_a_megabyte_in_one_event_is_one_text() -> None:
    text = "x" * 1_000_000
    outcome, _ = run([reply(text)])
    assert outcome.texts == [text]


# --- how bodies end -------------------------------------------------------------------------------------------------

A = event("a")
LINE = b'{"event":"text","data":"a"}'
INTERRUPTED = (StreamInterruptedError, "stream_interrupted", "body")
TRUNCATED = (StreamInterruptedError, "stream_truncated", "body")
BAD_HTTP = (ProtocolError, "bad_http", "body")
REFUSED = (ProtocolError, "compression_refused", "head")

ENDS: dict[str, tuple[list[Step], list[str], Any, str]] = {
    "chunked": ([CHUNKED, chunk(A), LAST], ["a"], None, "complete"),
    "chunked, in capitals": ([head("200 OK", "Transfer-Encoding: CHUNKED"), chunk(A), LAST], ["a"], None, "complete"),
    "a length": ([answer("200 OK", A)], ["a"], None, "complete"),
    "C7 a length too long, FIN": ([head("200 OK", "Content-Length: 999"), A, FIN], ["a"], TRUNCATED, "truncated"),
    "C7 a length too long, RST": ([head("200 OK", "Content-Length: 999"), A, RST], ["a"], INTERRUPTED, "truncated"),
    "C8 close-delimited": ([head(), A, FIN], ["a"], None, "unverified"),
    "C8 HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n\r\n" + A, FIN], ["a"], None, "unverified"),
    "C8 close-delimited, reset": ([head(), A, RST], ["a"], INTERRUPTED, "truncated"),
    "C9 close-delimited, half a line": ([head(), A, A[:9], FIN], ["a"], TRUNCATED, "truncated"),
    "C10 no last newline": ([answer("200 OK", A + LINE)], ["a", "a"], None, "complete"),
    "C10 no last newline, cut": ([answer("200 OK", A + LINE[:-3])], ["a"], TRUNCATED, "truncated"),
    "C6 a bad chunk size": ([CHUNKED, chunk(A), b"zz\r\n", HUNG_UP], ["a"], BAD_HTTP, "truncated"),
    "C6 the same, in one piece": ([CHUNKED + chunk(A) + b"zz\r\n", HUNG_UP], ["a"], BAD_HTTP, "truncated"),
    "C6 a flood of trailers": (
        [CHUNKED + chunk(A) + b"0\r\n" + b"x: y\r\n" * 20_000, HUNG_UP],
        ["a"],
        BAD_HTTP,
        "truncated",
    ),
    "C16 garbage after the end": ([CHUNKED + chunk(A) + LAST + b"garbage", HUNG_UP], ["a"], None, "complete"),
    "C16 a second response": ([reply("a") + reply("b"), HUNG_UP], ["a"], None, "complete"),
    "C12 gzip": ([answer("200 OK", b"\x1f\x8b", "Content-Encoding: gzip"), HUNG_UP], [], REFUSED, "truncated"),
    "C12 br": ([head("200 OK", "Content-Encoding: br"), HUNG_UP], [], REFUSED, "truncated"),
    "C12 identity": ([answer("200 OK", A, "Content-Encoding: identity")], ["a"], None, "complete"),
    "C12 gzip as a transfer coding": (
        [head("200 OK", "Transfer-Encoding: gzip, chunked"), chunk(A), HUNG_UP],
        [],
        REFUSED,
        "truncated",
    ),
    "B10 nothing": ([answer("200 OK")], [], (ProtocolError, "empty_reply", "body"), "truncated"),
    "B10 204": ([head(204), HUNG_UP], [], (ProtocolError, "empty_reply", "head"), "truncated"),
    "B10 205": ([head(205), HUNG_UP], [], (ProtocolError, "empty_reply", "head"), "truncated"),
    "B10 304": ([head(304), HUNG_UP], [], (ProtocolError, "empty_reply", "head"), "truncated"),
    "B11 html": (
        [answer("200 OK", b"<html>", "Content-Type: text/html")],
        [],
        (ProtocolError, "not_a_stream", "body"),
        "truncated",
    ),
    "B11 events called html": ([answer("200 OK", A, "Content-Type: text/html")], ["a"], None, "complete"),
    "B12 another charset": ([answer("200 OK", A, "Content-Type: x; charset=utf-16")], ["a"], None, "complete"),
    "D7 a line without end": (
        [CHUNKED, endless(chunk(b"x" * 65536))],
        [],
        (ProtocolError, "line_too_long", "body"),
        "truncated",
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ENDS)
def test_a_body_ends_as_its_form_proves(name: str, loop: str) -> None:
    script, texts, fault, verdict = ENDS[name]
    outcome, _ = run(script, loop=loop)
    assert (outcome.texts, outcome.fault, outcome.reply.verdict) == (texts, fault, verdict)


def test_c13_a_compressed_answer_is_refused_before_its_body_is_read() -> None:
    outcome, upstream = run([head("200 OK", "Content-Encoding: gzip", "Content-Length: 99999999"), HUNG_UP])
    assert outcome.fault == REFUSED
    assert upstream.connections == len(upstream.closed) == 1


def test_c15_a_reply_without_end_is_cut_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LIMIT_REPLY_BYTES", 10_000)
    outcome, _ = run([CHUNKED, endless(chunk(event("again")))])
    assert outcome.fault == (ProtocolError, "response_too_large", "body")
    assert len(outcome.texts) * len(event("again")) >= 10_000


# --- heads ----------------------------------------------------------------------------------------------------------

HEADS: dict[str, list[Step]] = {
    "B7 another protocol": [b"SSH-2.0-OpenSSH_9.6\r\n", HUNG_UP],
    "B7 HTTP/0.9": [b"<html>hello</html>\n", FIN],
    "B7 HTTP/2": [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", HUNG_UP],
    "B7 no status": [b"HTTP/1.1 hello\r\n\r\n", HUNG_UP],
    "B8 200 kB in a header": [head("200 OK", "x: " + "y" * 200_000), HUNG_UP],
    "B8 5,000 headers": [head("200 OK", *["x: y"] * 5000), HUNG_UP],
    "B8 NUL": [b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", HUNG_UP],
    "B8 CR": [b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", HUNG_UP],
    "B8 two lengths": [head("200 OK", "Content-Length: 5", "Content-Length: 6"), HUNG_UP],
    "B8 a length and chunks": [head("200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"), HUNG_UP],
    "B8 a negative length": [head("200 OK", "Content-Length: -5"), HUNG_UP],
    "B9 10,000 × 103": [head("103 Early Hints") * 10_000 + reply("a"), HUNG_UP],
    "B9 103 without end": [endless(head("103 Early Hints"))],
    "C18 101": [head("101 Switching", "Upgrade: x", "Connection: upgrade"), HUNG_UP],
    "F26 a long reason": [head("500 " + "x" * 100_000), HUNG_UP],
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_no_http_is_bad_http_and_not_sent_again(name: str) -> None:
    """Not a BadRequestError: aiohttp calls these a ClientResponseError with status 400."""
    outcome, upstream = run(HEADS[name], max_retries=2)
    assert outcome.fault == (ProtocolError, "bad_http", "head")
    assert len(upstream.requests) == 1
    assert len(str(outcome.failure)) < 250
    assert str(outcome.failure).isprintable()


def test_b7_the_message_has_a_piece_of_what_came() -> None:
    outcome, _ = run(HEADS["B7 another protocol"])
    assert "SSH-2.0-OpenSSH_9.6" in str(outcome.failure)


def test_b9_a_few_interim_heads_are_no_fault() -> None:
    outcome, _ = run([head("100 Continue") + head("103 Early Hints") * 2 + reply("a")])
    assert (outcome.texts, outcome.code) == (["a"], None)


CLOSED_EARLY: dict[str, list[Step]] = {"B1 closed": [FIN], "B3 reset": [RST]}


@pytest.mark.parametrize("name", CLOSED_EARLY)
def test_a_fresh_connection_closed_before_any_byte_may_have_been_processed(name: str) -> None:
    outcome, upstream = run(CLOSED_EARLY[name], max_retries=2)
    assert outcome.fault == (StreamInterruptedError, "stream_interrupted", "head")
    assert outcome.failure is not None
    assert outcome.failure.retry_class == "ambiguous"
    assert len(upstream.requests) == outcome.failure.attempts == 2


REDIRECTS = [
    "/v3/elsewhere",
    "{other}/v3/chat",
    "http://127.0.0.1:1/",
    "file:///etc/passwd",
    "//user:pw@host.test/",
    "http://user:pw@host.test/?token=hidden",
    "ht!tp://\\[",
    "",
]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
@pytest.mark.parametrize("location", REDIRECTS)
def test_c17_a_redirect_is_refused_and_nothing_is_sent_to_where_it_points(status: int, location: str) -> None:
    with Upstream([reply("stolen")]) as other:
        target = location.format(other=other.url)
        outcome, upstream = run([answer(f"{status} Moved", b"", *([f"Location: {target}"] if target else []))])
        assert other.connections == 0
    assert outcome.fault == (ProtocolError, "redirect_refused", "head")
    assert len(upstream.requests) == 1
    assert not any(word in str(outcome.failure) for word in ("user", "pw", "hidden"))
    if "host.test" in location:
        assert "host.test" in str(outcome.failure)


def test_b13_cookies_are_not_kept() -> None:
    async def main(url: str) -> None:
        for _ in range(2):
            assert (await read(ask(url))).texts == ["a"]

    with Upstream([answer("200 OK", A, "Set-Cookie: sid=1; Path=/")]) as upstream:
        asyncio.run(main(upstream.url))
        assert [request.headers.get("cookie") for request in upstream.requests] == [None, None]


# --- time -----------------------------------------------------------------------------------------------------------


async def drip(peer: Peer) -> None:
    """A head that never ends, a byte at a time: it keeps a timer alive that only looks at the socket."""
    for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nx-", itertools.repeat(ord("y"))):
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.001)


TIMES: dict[str, tuple[list[Step], str, tuple[str, str], list[str]]] = {
    "B4 no head": ([HUNG_UP], "head_s", ("header_timeout", "head"), []),
    "B5 a head in drops": ([drip], "head_s", ("header_timeout", "head"), []),
    "no head, total": ([HUNG_UP], "total_s", ("deadline_exceeded", "head"), []),
    "C1 no event": ([CHUNKED, HUNG_UP], "first_event_s", ("first_event_timeout", "body"), []),
    "C1 no other event": ([CHUNKED, chunk(A), HUNG_UP], "idle_s", ("idle_timeout", "body"), ["a"]),
    "C1 total": ([CHUNKED, chunk(A), HUNG_UP], "total_s", ("deadline_exceeded", "body"), ["a"]),
    "C2 heartbeats only": (
        [CHUNKED, chunk(A), endless(chunk(b"\n"))],
        "idle_s",
        ("idle_timeout", "body"),
        ["a"],
    ),
    "C2 heartbeats from the start": (
        [CHUNKED, endless(chunk(b" \r\n"))],
        "first_event_s",
        ("first_event_timeout", "body"),
        [],
    ),
    "C2 heartbeats in floods": (
        [CHUNKED, endless(chunk(b"\n" * 65536) * 4)],
        "first_event_s",
        ("first_event_timeout", "body"),
        [],
    ),
    "C2 heartbeats in drops": (
        [CHUNKED, one_by_one(chunk(b"\n") * 20), HUNG_UP],
        "first_event_s",
        ("first_event_timeout", "body"),
        [],
    ),
    "C15 events without end, total": ([CHUNKED, endless(chunk(A))], "total_s", ("deadline_exceeded", "body"), ["a"]),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", TIMES)
def test_each_part_of_a_reply_has_its_limit(name: str, loop: str) -> None:
    script, part, fault, texts = TIMES[name]
    outcome, upstream = run(script, loop=loop, timeout=limits(**{part: BRIEF_S.get(part, 0.05)}))
    assert isinstance(outcome.failure, APITimeoutError)
    assert (outcome.failure.code, outcome.failure.phase) == fault
    assert outcome.texts[:1] == texts
    assert outcome.failure.partial_text == "".join(outcome.texts)
    assert upstream.connections == len(upstream.closed)


def test_c1_a_timeout_before_the_first_text_may_be_tried_once_more_and_not_after_it() -> None:
    none, _ = run([CHUNKED, HUNG_UP], timeout=limits(first_event_s=0.05))
    some, _ = run([CHUNKED, chunk(A), HUNG_UP], timeout=limits(idle_s=0.05))
    assert none.failure is not None
    assert some.failure is not None
    assert (none.failure.retriable, some.failure.retriable) == (True, False)


def test_e5_e7_an_event_without_text_is_a_sign_of_life() -> None:
    """The first-event limit is over with it; the limit between events is off here."""
    gate = Gate()

    async def main(url: str) -> Outcome:
        quiet = ask(url, timeout=limits(first_event_s=0.2))
        assert (await quiet.next()) is not None  # the title
        loop = asyncio.get_running_loop()
        later = loop.create_future()
        loop.call_later(0.3, later.set_result, None)  # after the limit, by the loop's own clock
        await later
        gate.open()
        return await read(quiet)

    with Upstream([CHUNKED, chunk(event("", "title")), gate, chunk(A), LAST]) as upstream:
        outcome = asyncio.run(main(upstream.url))
    assert (outcome.texts, outcome.code) == (["a"], None)


def test_h17_a_blocked_loop_is_no_silence_of_the_service() -> None:
    """The event comes in time, and the loop is busy past the limit: it is read, and no idle timeout is told."""
    gate = Gate()
    sent = Gate()
    sent.open()

    async def main(url: str, upstream: Upstream) -> Outcome:
        calm = ask(url, timeout=limits(idle_s=0.05, first_event_s=0.05))
        assert (await calm.next()) is not None
        reading = asyncio.create_task(read(calm))
        await asyncio.sleep(0)
        gate.open()
        assert sent._reached.wait(10)  # blocks this loop until the event is in the socket
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        return await reading

    with Upstream([CHUNKED, chunk(A), gate, chunk(event("b")), LAST, sent]) as upstream:
        outcome = asyncio.run(main(upstream.url, upstream))
    assert (outcome.texts, outcome.code) == (["b"], None)


def test_h4_h16_a_reply_that_nobody_reads_on_gives_its_connection_up() -> None:
    """What had arrived is still delivered, and then the failure."""

    async def main(url: str, upstream: Upstream) -> Outcome:
        left = ask(url, timeout=limits(consumer_s=0.05))
        assert (await left.next()) is not None
        await upstream.hung_up()
        return await read(left)

    with Upstream([CHUNKED, chunk(A), HUNG_UP]) as upstream:
        outcome = asyncio.run(main(upstream.url, upstream))
    assert outcome.fault == (APITimeoutError, "consumer_stalled", "body")
    assert outcome.failure is not None
    assert outcome.failure.partial_text == "a"


def test_f27_an_error_body_has_no_more_time_than_the_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of an error is read for its words, within the deadline of the whole reply, and the status counts."""
    monkeypatch.setattr(failures, "LIMIT_ERROR_BODY_S", 1000)
    outcome, upstream = run([head("500 Oh", "Content-Length: 9"), b"oh", HUNG_UP], timeout=limits(total_s=0.5))
    assert outcome.code == "server_error"
    assert str(outcome.failure).endswith("(status 500): oh")
    assert len(upstream.closed) == 1


# --- closing --------------------------------------------------------------------------------------------------------

WAITS: dict[str, list[Step]] = {
    "the head": [HUNG_UP],
    "the body of an error": [head("500 Oh", "Content-Length: 9"), HUNG_UP],
    "the first event": [CHUNKED, HUNG_UP],
    "the next event": [CHUNKED, chunk(A), HUNG_UP],
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["cancel", "close", "aclose"])
@pytest.mark.parametrize("place", WAITS)
def test_h1_who_leaves_hangs_up_at_once_wherever_it_waits(place: str, how: str, loop: str) -> None:
    """Cancelled: CancelledError, unchanged. Closed by another task: the reader hears `client_closed`."""

    async def main(url: str, upstream: Upstream) -> BaseException | None:
        left = ask(url, timeout=limits())
        if place == "the next event":
            await left.next()
        reading = asyncio.create_task(left.next())
        await upstream.until(lambda: upstream.requests)
        for _ in range(20):  # let what was sent come in
            await asyncio.sleep(0)
        if how == "cancel":
            reading.cancel()
        elif how == "close":
            left.close()
        else:
            await left.aclose()
        async with asyncio.timeout(10):
            [result] = await asyncio.gather(reading, return_exceptions=True)
        await upstream.hung_up()
        return result if isinstance(result, BaseException) else None

    with Upstream(WAITS[place]) as upstream, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(main(upstream.url, upstream))
    if how == "cancel":
        assert isinstance(result, asyncio.CancelledError)
    else:
        assert isinstance(result, InvalidRequestError)
        assert result.code == "client_closed"


def test_h7_two_tasks_cannot_read_one_reply() -> None:
    async def main(url: str) -> None:
        shared = ask(url, timeout=limits())
        first = asyncio.create_task(shared.next())
        await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError, match="already being read"):
            await shared.next()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    with Upstream([HUNG_UP]) as upstream:
        asyncio.run(main(upstream.url))


def test_the_limits_are_those_of_the_options() -> None:
    """The defaults: none of the tests above would end within its bound otherwise."""
    assert Timeouts() == Timeouts(
        connect_s=10, head_s=60, first_event_s=60, idle_s=60, total_s=None, pool_s=60, consumer_s=600
    )
