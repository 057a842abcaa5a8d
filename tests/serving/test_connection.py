"""serving/connection.py: connections that are slow, endless, malformed, unread or too many."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterable

import pytest

from flowgpt import serving
from tests.embedded.wire import Answer, connect, read_to_end, read_until
from tests.serving.conftest import NewLoop
from tests.serving.small import BIG, FOUND, GET, LAST_GET, STALL, Serving, ask


def post(path: str, length: int, *headers: str, keep: bool = True) -> bytes:
    """The head of a request with a body."""
    told = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {length}", *headers]
    return "\r\n".join([*told, *([] if keep else ["connection: close"]), "", ""]).encode()


def send(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        connection.sendall(piece)


# --- heads that are no good -------------------------------------------------------------------------------------------

ENDLESS = b"GET / HTTP/1.1\r\nX: "
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "more", "words"),
    [
        (ENDLESS, b"x" * 65536, "the head has more than 65536 bytes"),
        (b"GET /", b"x" * 65536, "the head has more than 65536 bytes"),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10_000, "there are more than 100 headers"),
        (CHUNKED + b"0\r\nX: ", b"x" * 65536, "the head has more than 65536 bytes"),
        (CHUNKED + b"1;", b"x" * 65536, "the head has more than 65536 bytes"),
        (b"", b"\r\n" * 30_000, "the head has more than 65536 bytes"),
    ],
    ids=["header", "address", "headers", "trailer", "chunk extension", "blank lines"],
)
def test_f11_i12_a_head_without_end_is_431_and_what_follows_is_not_kept(start: bytes, more: bytes, words: str) -> None:
    """80 MB are sent; the answer is there after the first of them, and the client can read it."""
    with Serving() as served, connect(served.base_url) as connection:
        connection.sendall(start)
        send(connection, itertools.repeat(more, 80_000_000 // len(more)))
        answer = Answer(*read_to_end(connection))

        assert (answer.status, answer.json) == (431, {"error": words, "status": 431})
        assert "connection: close" in answer.head
        assert ask(served.base_url).body == FOUND


def test_a_head_within_the_limits_is_taken(served: Serving) -> None:
    many = "".join(f"x-{number}: {'x' * 600}\r\n" for number in range(90))

    assert ask(served.base_url, LAST_GET[:-2] + many.encode() + b"\r\n").body == FOUND


def test_many_requests_in_one_piece_are_each_counted_for_themselves(served: Serving) -> None:
    assert ask(served.base_url, GET * 3000 + LAST_GET).raw.count(FOUND) == 3001


SMUGGLED = b"POST / HTTP/1.1\r\nhost: x\r\n%b\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        SMUGGLED % b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        SMUGGLED % b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        SMUGGLED % b"content-length: 5\r\ncontent-length: 6\r\n",
        SMUGGLED % b"content-length: +5\r\n",
        SMUGGLED % b"content-length: 5 5\r\n",
        SMUGGLED % b"content-length: 0x5\r\n",
        SMUGGLED % b"transfer-encoding: chunked, identity\r\n",
        SMUGGLED % b"transfer-encoding : chunked\r\n",
        SMUGGLED % b"transfer\x00encoding: chunked\r\n",
        SMUGGLED.replace(b"0\r\n\r\n", b"g\r\n\r\n") % b"transfer-encoding: chunked\r\n",
        SMUGGLED.replace(b"0\r\n\r\n", b"-1\r\n\r\n") % b"transfer-encoding: chunked\r\n",
        SMUGGLED.replace(b"0\r\n\r\n", b"fffffffffffffffff\r\n\r\n") % b"transfer-encoding: chunked\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c: d\r\n: e\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\nhost: x\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_i12_what_two_parsers_could_read_in_two_ways_is_400_and_the_end_of_its_connection(data: bytes) -> None:
    with Serving() as served:
        answer = ask(served.base_url, data)

        assert (answer.status, answer.ending) == (400, "FIN")
        assert "connection: close" in answer.head
        assert answer.raw.count(b"HTTP/1.1 ") == 1
        assert b"hidden" not in answer.raw


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH"])
def test_i12_every_method_is_the_applications_affair(method: str) -> None:
    with Serving() as served:
        answer = ask(served.base_url, f"{method} / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())

        assert answer.status == 200
        assert answer.body == (b"" if method == "HEAD" else FOUND.replace(b"GET", method.encode()))


@pytest.mark.parametrize("keep", [b"", b"connection: keep-alive\r\n"])
def test_i12_an_answer_in_http_1_0_ends_with_its_connection(keep: bytes) -> None:
    with Serving() as served:
        answer = ask(served.base_url, b"GET / HTTP/1.0\r\n%b\r\n" % keep)

        assert (answer.status, answer.body, answer.ending) == (200, FOUND, "FIN")


@pytest.mark.parametrize("wish", ["h2c", "websocket", "anything/2"])
def test_a_request_to_upgrade_is_answered_as_a_plain_one(served: Serving, wish: str) -> None:
    data = (
        post("/", 5, "connection: Upgrade, HTTP2-Settings", f"upgrade: {wish}", "http2-settings: AAMAAABk") + b"12345"
    )
    with connect(served.base_url) as connection:
        connection.sendall(data[:-20])
        connection.sendall(data[-20:] + LAST_GET)
        answers = read_to_end(connection)[0]

        assert answers.count(b'{"method":"POST","path":"/","length":5}') == 1
        assert answers.endswith(FOUND)


# --- clients that are slow --------------------------------------------------------------------------------------------


def test_i1_a_head_that_takes_too_long_is_408(hurried: Serving) -> None:
    with connect(hurried.base_url) as connection:
        connection.sendall(b"GET / HTT")
        answer = Answer(*read_to_end(connection))

        assert (answer.status, answer.json["error"]) == (408, "the head took more than 0.05 s")


def test_i1_half_open_connections_are_closed_without_a_word_and_hurt_nobody(hurried: Serving) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(hurried.base_url)) for _ in range(200)]
        assert ask(hurried.base_url).body == FOUND
        assert {read_to_end(connection) for connection in silent} == {(b"", "FIN")}
    hurried.wait_until_empty()


@pytest.mark.parametrize("before", [b"", GET], ids=["at first", "after an answer"])
def test_i1_blank_lines_keep_no_connection_open(hurried: Serving, before: bytes) -> None:
    with connect(hurried.base_url) as connection:
        connection.sendall(before)
        if before:
            read_until(connection, FOUND)
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == (b"", "FIN")


def test_a_connection_may_be_idle_for_longer_than_a_head_may_take(hurried: Serving) -> None:
    with connect(hurried.base_url) as kept, connect(hurried.base_url) as late:
        kept.sendall(GET)
        read_until(kept, FOUND)
        late.sendall(b"GET / HTT")
        assert Answer(*read_to_end(late)).status == 408
        kept.sendall(LAST_GET)
        assert read_to_end(kept)[0].endswith(FOUND)


def test_a_blank_line_in_an_answer_does_not_end_it(hurried: Serving) -> None:
    with connect(hurried.base_url) as connection:
        connection.sendall(STALL)
        read_until(connection, b"begun")
        connection.sendall(b"\r\n")
        ask(hurried.base_url, b"GET / HTT")  # a deadline later
        connection.settimeout(0)
        with pytest.raises(BlockingIOError):
            connection.recv(1)


def test_a_refused_client_that_stays_is_cut_off(hurried: Serving) -> None:
    with connect(hurried.base_url) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert read_to_end(connection)[0].startswith(b"HTTP/1.1 400 ")
        with pytest.raises(ConnectionError):
            send(connection, itertools.repeat(b"more" * 16384, 100_000))


# --- bodies that nobody reads -----------------------------------------------------------------------------------------


def test_i3_a_body_that_was_refused_unread_may_be_sent_to_its_end_and_the_answer_read(served: Serving) -> None:
    """Closing on it would be a reset, which takes the answer along."""
    with connect(served.base_url) as connection:
        connection.sendall(post("/refuse", BIG))
        send(connection, itertools.repeat(b"x" * 65536, BIG // 65536))
        answer = Answer(*read_to_end(connection))

    assert (answer.status, answer.body, answer.ending) == (413, b"too much", "FIN")


def test_i3_a_body_that_nobody_waits_for_ends_its_connection(hurried: Serving) -> None:
    """Even on a connection that could be kept: or a client could send the rest for ever, byte by byte."""
    with connect(hurried.base_url) as connection:
        connection.sendall(post("/early", BIG))
        assert Answer(*read_to_end(connection)).status == 401
        with pytest.raises(ConnectionError):
            send(connection, itertools.repeat(b"x" * 65536))
    hurried.wait_until_empty()


def test_a_body_that_has_come_leaves_the_connection_open(served: Serving) -> None:
    with connect(served.base_url) as connection:
        connection.sendall(post("/early", 5) + b"12345")
        read_until(connection, b"who?")
        connection.sendall(LAST_GET)

        assert read_to_end(connection)[0].endswith(FOUND)


def test_i3_who_asks_before_sending_a_body_is_told_to_go_on_only_when_it_is_wanted(served: Serving) -> None:
    with connect(served.base_url) as connection:
        connection.sendall(post("/", 5, "expect: 100-continue", keep=False))
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"12345")
        assert Answer(*read_to_end(connection)).json["length"] == 5

    refused = ask(served.base_url, post("/refuse", 10_000_000_000, "expect: 100-continue"))
    assert refused.status == 413


# --- answers that nobody reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "keep-alive"])
def test_i8_who_does_not_read_an_answer_loses_it(how: str, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "KEEP_ALIVE_S", 0.05)
    with Serving(new_loop, head_s=0.05) as served, connect(served.base_url) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: %b\r\n\r\n" % how.encode())
        read_until(connection, b"\r\n\r\n")
        served.wait_until_empty()


def test_what_is_sent_in_one_turn_of_the_loop_arrives_together(served: Serving) -> None:
    """A head, and the body, which uvicorn writes by itself."""
    with connect(served.base_url) as connection:
        for _ in range(50):
            connection.sendall(GET)
            assert connection.recv(65536).endswith(FOUND)


def test_who_reads_slowly_gets_all_of_it(hurried: Serving) -> None:
    with connect(hurried.base_url) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = Answer(*read_to_end(connection))

    assert (len(answer.body), answer.ending) == (BIG, "FIN")


def test_i6_a_client_that_leaves_ends_every_request_it_had_in_a_row(served: Serving) -> None:
    """Uvicorn tells the last of them only."""
    with connect(served.base_url) as connection:
        connection.sendall(STALL + GET)
        read_until(connection, b"begun")
    served.wait_until_empty()
    with connect(served.base_url) as connection:
        connection.sendall(LAST_GET)
        assert read_to_end(connection)[0].endswith(FOUND)


# --- too many ---------------------------------------------------------------------------------------------------------


def test_i20_one_connection_too_many_is_503_and_the_others_are_unharmed(new_loop: NewLoop) -> None:
    with Serving(new_loop, limit_connections=2) as served, connect(served.base_url) as stalled:
        stalled.sendall(STALL)
        read_until(stalled, b"begun")
        with connect(served.base_url) as second:
            second.sendall(GET)
            read_until(second, FOUND)
            refused = ask(served.base_url, GET)  # whose connection may still be counted when the second asks again
            second.sendall(LAST_GET)
            assert read_to_end(second)[0].endswith(FOUND)

        assert (refused.status, refused.json["status"]) == (503, 503)
        assert {"retry-after: 1", "connection: close"} <= set(refused.head)
        stalled.close()
        served.wait_until_empty()
        assert ask(served.base_url).body == FOUND
