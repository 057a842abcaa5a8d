"""embedded/faults.py: each named fault, as literal bytes on a real socket."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from flowgpt import InvalidRequestError
from flowgpt.embedded import FAULTS, Server
from flowgpt.embedded.faults import named
from tests.embedded.wire import (
    CHUNKS,
    HEAD,
    LAST,
    LINES,
    SIGNED_IN,
    Answer,
    ask,
    body,
    chunk,
    connect,
    read_until,
    request,
    signed,
    spoken,
)

ALL = b"".join(CHUNKS)


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "connection: close", "", ""]).encode()


def among(line: bytes) -> bytes:
    """A reply with this line after the first text."""
    return HEAD + CHUNKS[0] + chunk(line) + CHUNKS[1] + CHUNKS[2] + LAST


WELCOME = b"<!DOCTYPE html>\n<title>Welcome</title>\n<p>Not a stream</p>\n"
MOMENT = b"<!DOCTYPE html>\n<title>Just a moment...</title>\n<p>Checking your browser</p>\n"
JSON = "content-type: application/json"
GZIPPED = gzip.compress(b"".join(LINES), mtime=0)
GIANT = b'{"event":"text","data":"' + b"a" * (2 * 1024 * 1024 - 26) + b'"}'

#: name -> what comes, but for the date, and how the connection ends (`open`: it stays until the client leaves)
EXPECTED: dict[str, tuple[bytes, str]] = {
    "bad_chunk": (HEAD + CHUNKS[0] + CHUNKS[1] + b"zz\r\n", "FIN"),
    "bom": (HEAD + chunk(b"\xef\xbb\xbf") + ALL + LAST, "FIN"),
    "byte_at_a_time": (HEAD + b"".join(chunk(bytes([byte])) for byte in b"".join(LINES)) + LAST, "FIN"),
    "challenge": (
        head("403 Forbidden", "content-type: text/html; charset=utf-8", "content-length: 77", "cf-mitigated: challenge")
        + MOMENT,
        "FIN",
    ),
    "close_delimited": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson; charset=utf-8\r\nconnection: close\r\n\r\n"
        + b"".join(LINES),
        "FIN",
    ),
    "credit": (HEAD + chunk(b'{"event":"text","data":"Insufficient credit"}\n\n') + LAST, "FIN"),
    "credit:2": (
        HEAD
        + chunk(b'{"event":"text","data":"Insufficie"}\n\n')
        + chunk(b'{"event":"text","data":"nt credit"}\n\n')
        + LAST,
        "FIN",
    ),
    "crlf": (HEAD + b"".join(chunk(line.replace(b"\n", b"\r\n")) for line in LINES) + LAST, "FIN"),
    "cut_at_line": (HEAD + CHUNKS[0] + CHUNKS[1], "FIN"),
    "cut_at_line:0": (HEAD, "FIN"),
    "cut_at_line:99": (HEAD + ALL, "FIN"),
    "cut_mid_character": (HEAD + CHUNKS[0] + CHUNKS[1] + chunk(b'{"event":"text","data":"\xc3'), "FIN"),
    "cut_mid_line": (HEAD + CHUNKS[0] + CHUNKS[1] + chunk(b'{"event":"text","data":"half a '), "FIN"),
    "deep_nesting": (among(b'{"event":"text","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"), "FIN"),
    "empty": (HEAD + LAST, "FIN"),
    "endless": (HEAD + chunk(b'{"event":"text","data":"and on "}\n\n') * 100, "open"),
    "giant_line:30": (
        HEAD + chunk(b'{"event":"text","data":"') + chunk(b"aaaa") + chunk(b'"}\n\n') + LAST,
        "FIN",
    ),
    "gzip": (
        head(
            "200 OK",
            "content-type: application/x-ndjson; charset=utf-8",
            f"content-length: {len(GZIPPED)}",
            "content-encoding: gzip",
        )
        + GZIPPED,
        "FIN",
    ),
    "heartbeat": (HEAD + chunk(b"\n") * 3, "open"),
    "html_page": (
        head("200 OK", "content-type: text/html; charset=utf-8", "content-length: 59") + WELCOME,
        "FIN",
    ),
    "invalid_utf8": (among(b'{"event":"text","data":"\xff\xc0\xaf"}\n\n'), "FIN"),
    "lone_surrogate": (among(b'{"event":"text","data":"\\ud83d"}\n\n'), "FIN"),
    "no_blank_lines": (HEAD + b"".join(chunk(line[:-1]) for line in LINES) + LAST, "FIN"),
    "no_last_newline": (HEAD + CHUNKS[0] + CHUNKS[1] + chunk(LINES[2][:-2]) + LAST, "FIN"),
    "rate_limit": (
        head("429 Too Many Requests", JSON, "content-length: 59", "retry-after: 1")
        + b'{"error":"too many requests","message":"too many requests"}',
        "FIN",
    ),
    "rate_limit:30": (
        head("429 Too Many Requests", JSON, "content-length: 59", "retry-after: 30")
        + b'{"error":"too many requests","message":"too many requests"}',
        "FIN",
    ),
    "redirect": (head("307 Temporary Redirect", JSON, "content-length: 0", "location: /elsewhere"), "FIN"),
    "redirect:http://127.0.0.1:9/x": (
        head("307 Temporary Redirect", JSON, "content-length: 0", "location: http://127.0.0.1:9/x"),
        "FIN",
    ),
    "refuse": (b"", "FIN"),
    "reset": (b"", "RST"),
    "reset_mid_stream": (HEAD + CHUNKS[0] + CHUNKS[1], "RST"),
    "set_cookie": (
        HEAD.replace(b"connection:", b"set-cookie: embedded=1; Path=/\r\nconnection:") + ALL + LAST,
        "FIN",
    ),
    "sse_framed": (
        HEAD.replace(b"application/x-ndjson; charset=utf-8", b"text/event-stream")
        + b"".join(chunk(b"data: " + line) for line in LINES)
        + chunk(b"data: [DONE]\n\n")
        + LAST,
        "FIN",
    ),
    "stall": (HEAD + CHUNKS[0] + CHUNKS[1], "open"),
    "stall:1": (HEAD + CHUNKS[0], "open"),
    "stall_head": (b"", "open"),
    "status": (
        head("503 Service Unavailable", JSON, "content-length: 63")
        + b'{"error":"scripted status 503","message":"scripted status 503"}',
        "FIN",
    ),
    "status:402": (
        head("402 Payment Required", JSON, "content-length: 63")
        + b'{"error":"scripted status 402","message":"scripted status 402"}',
        "FIN",
    ),
    "status:204": (head("204 No Content", "content-type: application/x-ndjson; charset=utf-8"), "FIN"),
    "truncated_length": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson; charset=utf-8\r\n"
        b"content-length: 161\r\nconnection: close\r\n\r\n" + LINES[0] + LINES[1],
        "FIN",
    ),
    "unknown_events": (
        HEAD
        + CHUNKS[0]
        + chunk(b'{"event":"title","data":"A title"}\n\n')
        + chunk(b'{"event":"usage","data":{"tokens":3}}\n\n')
        + chunk(b'{"event":"end"}\n\n')
        + CHUNKS[1]
        + CHUNKS[2]
        + LAST,
        "FIN",
    ),
    "wrong_json": (among(b'{"event":"text","data":}\n\n'), "FIN"),
    "wrong_json:0": (HEAD + chunk(b'{"event":"text","data":}\n\n') + ALL + LAST, "FIN"),
    "wrong_types": (among(b'{"event":"text","data":5}\n\n'), "FIN"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(spoken) as server:
        yield server


@pytest.mark.parametrize("fault", [name for name in EXPECTED if EXPECTED[name][1] != "open"])
def test_a_fault_is_these_bytes_on_the_wire(server: Server, fault: str) -> None:
    answer = ask(server.base_url, request(data=body(fault=fault)))

    assert (answer.undated, answer.ending) == EXPECTED[fault]
    server.wait_until_idle()
    assert ask(server.base_url).undated == HEAD + ALL + LAST, "the next request works"


@pytest.mark.parametrize("fault", [name for name in EXPECTED if EXPECTED[name][1] == "open"])
def test_a_fault_without_an_end_lasts_until_the_client_leaves(server: Server, fault: str) -> None:
    """C2, C15, B4: and then the server is free of it."""
    expected = EXPECTED[fault][0]
    with connect(server.base_url) as connection:
        connection.sendall(request(data=body(fault=fault)))
        server.wait_until_open(1)
        data = undated = b""
        while len(undated) < len(expected):
            data = read_until(connection, b"\r\n\r\n", data + connection.recv(65536))
            undated = Answer(data, "open").undated
        assert undated.startswith(expected)
        if "stall" in fault:
            assert undated == expected
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
    server.wait_until_idle()
    assert ask(server.base_url).undated == HEAD + ALL + LAST, "the next request works"


def test_a_giant_line_has_exactly_its_bytes(server: Server) -> None:
    """D7, D8: two MiB unless another size is named."""
    answer = ask(server.base_url, request(data=body(fault="giant_line")))
    left, joined = answer.body, b""
    while (size := int(left.partition(b"\r\n")[0], 16)) > 0:
        left = left.partition(b"\r\n")[2]
        joined, left = joined + left[:size], left[size + 2 :]

    assert joined == GIANT + b"\n\n"
    assert len(GIANT) == 2 * 1024 * 1024


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_the_table_has_its_bytes_here(name: str) -> None:
    assert name in {known.partition(":")[0] for known in EXPECTED}
    assert FAULTS[name].words


def test_the_table_is_sorted_and_says_each_in_one_line() -> None:
    assert list(FAULTS) == sorted(FAULTS)
    assert not [row.words for row in FAULTS.values() if "\n" in row.words or row.words.endswith(".")]


def test_every_fault_plays_as_an_answer_to_the_signed_in_route_too(server: Server) -> None:
    data = request(SIGNED_IN, body(signed_in=True, fault="empty"), signed("a-token"))
    assert ask(server.base_url, data).undated == HEAD + LAST


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stal", "fault 'stal' does not exist; nearest: stall"),
        ("", "fault '' does not exist"),
        ("stall:", "the value of fault 'stall' must be a whole number"),
        ("stall:-1", "the value of fault 'stall' must be a whole number"),
        ("stall:²", "the value of fault 'stall' must be a whole number"),
        ("stall:9999999999999999999", "the value of fault 'stall' must be a whole number"),
        ("status:99", "the value of fault 'status' must be an HTTP status from 200 to 599"),
        ("status:600", "the value of fault 'status' must be an HTTP status from 200 to 599"),
        ("redirect:/a\r\nx: y", "the value of fault 'redirect' must be an address in printable ASCII"),
        ("empty:1", "fault 'empty' takes no value"),
        (5, "fault must be a string"),
        (None, "fault must be a string"),
    ],
)
def test_a_wrong_fault_says_what_is_wrong_and_what_is_near(server: Server, fault: object, words: str) -> None:
    with pytest.raises(InvalidRequestError, match="fault") as caught:
        named(fault)
    assert caught.value.message.startswith(words)

    answer = ask(server.base_url, request(data=body(fault=fault)))
    assert answer.status == 400
    assert answer.json["error"].startswith(words)


def test_a_queued_fault_plays_as_often_as_asked_and_then_no_more(server: Server) -> None:
    server.fault("empty", times=2)
    answers = [ask(server.base_url).undated for _ in range(3)]

    assert answers == [HEAD + LAST, HEAD + LAST, HEAD + ALL + LAST]


def test_a_fault_of_the_body_goes_before_the_queue_and_leaves_it(server: Server) -> None:
    server.fault("empty")

    assert ask(server.base_url, request(data=body(fault="status:500"))).status == 500
    assert ask(server.base_url).undated == HEAD + LAST


def test_a_fault_of_the_server_plays_in_every_chat_that_names_none() -> None:
    with Server(spoken, fault="status:500") as server:
        assert [ask(server.base_url).status for _ in range(2)] == [500, 500]
        assert ask(server.base_url, request(data=body(fault="empty"))).undated == HEAD + LAST
        server.fault("status:404")
        assert [ask(server.base_url).status for _ in range(2)] == [404, 500]


def test_a_server_with_an_unknown_fault_is_not_made() -> None:
    with pytest.raises(InvalidRequestError, match="nearest: reset"):
        Server(fault="resset")
    with Server() as server, pytest.raises(InvalidRequestError, match="nearest: refuse"):
        server.fault("refuze")
