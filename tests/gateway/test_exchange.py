"""One HTTP answer on its way out: the body that came in, the held status, the silence, the reader that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest

from flowgpt.embedded import Server
from flowgpt.gateway import app
from tests.gateway.conftest import Serve, Served, post

STREAM = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    said = b""
    while mark not in said:
        data = connection.recv(65536)
        assert data, said
        said += data
    return said


def test_i15_a_status_is_held_until_the_first_text_and_then_comments_keep_the_stream_alive(
    serve: Serve, upstream: Server
) -> None:
    upstream.fault("stall:0")
    gateway = serve(hold_s=0.05, heartbeat_s=0.05)
    with gateway.connect(post(STREAM)) as connection:
        said = read_until(connection, b": heartbeat\n\n")
        said += read_until(connection, b": heartbeat\n\n")

    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    lines = [line for line in said.partition(b"\r\n\r\n")[2].replace(b"\r", b"").split(b"\n") if line]
    assert {line for line in lines if not line.isalnum()} == {b": heartbeat"}  # the sizes of chunks are alphanumeric


def test_a_failure_after_the_hold_is_an_error_frame(serve: Serve, upstream: Server) -> None:
    upstream.fault("stall:0")
    gateway = serve({"timeout": 1}, hold_s=0.05, heartbeat_s=10)

    answer = gateway.chat(stream=True)

    assert answer.status == 200
    assert answer.body.startswith(b": heartbeat\n\n")
    assert answer.chunks[-1]["error"]["code"] == "deadline_exceeded"


def test_a_stream_that_pauses_after_its_first_text_is_kept_alive(serve: Serve, upstream: Server) -> None:
    upstream.fault("stall:1")
    with serve(heartbeat_s=0.05).connect(post(STREAM)) as connection:
        said = read_until(connection, b": heartbeat\n\n")

    assert said.index(b'"This ') < said.index(b": heartbeat")


def test_i6_a_client_that_leaves_during_a_heartbeat_frees_the_upstream(serve: Serve, upstream: Server) -> None:
    upstream.fault("stall:0")
    gateway = serve(hold_s=0.01, heartbeat_s=0.01)
    with gateway.connect(post(STREAM)) as connection:
        read_until(connection, b": heartbeat\n\n")

    upstream.wait_until_idle()


def test_i8_a_client_that_does_not_read_is_dropped_and_frees_the_upstream(serve: Serve, upstream: Server) -> None:
    upstream.fault("endless")
    gateway = serve(write_s=0.3)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connection:
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(post(STREAM))
        upstream.wait_until_open(1)

        upstream.wait_until_idle()


def test_i8_a_client_that_does_not_read_a_whole_answer_is_dropped_too(serve: Serve) -> None:
    words = "x" * 3_000_000  # the mirror says it again
    gateway = serve(write_s=0.3)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connection:
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(post(STREAM | {"stream": False, "messages": [{"role": "user", "content": words}]}))
        assert connection.recv(12) == b"HTTP/1.1 200"

        asyncio.run_coroutine_threadsafe(gateway.app.service.wait_until_idle(), gateway.loop).result(20)


def test_i16_a_whole_answer_that_is_cut_by_the_end_has_no_error_within_it(gateway: Served) -> None:
    words = "x" * 3_000_000
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connection:
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(post(STREAM | {"stream": False, "messages": [{"role": "user", "content": words}]}))
        said = connection.recv(4096)

        asyncio.run_coroutine_threadsafe(gateway.app.finish(), gateway.loop).result(20)

        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                said += data
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"shutting_down" not in body
    announced = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert len(body) < announced


def test_i3_a_body_that_announces_too_much_is_refused_before_it_is_read(gateway: Served) -> None:
    announced = b"content-length: 10000000000\r\n\r\n"
    with gateway.connect(HEAD + announced) as connection:
        said = read_until(connection, b"payload_too_large")

    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()


def test_i3_a_body_without_a_length_is_refused_at_the_limit(gateway: Served) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with gateway.connect(HEAD + b"transfer-encoding: chunked\r\n\r\n") as connection:
        for _ in range(app.LIMIT_BODY_BYTES // 0x100000 + 1):
            connection.sendall(chunk)
        said = read_until(connection, b"payload_too_large")

    assert said.startswith(b"HTTP/1.1 413 ")


def test_i3_a_client_that_waits_for_the_word_to_go_on_gets_it(gateway: Served) -> None:
    body = json.dumps(STREAM | {"stream": False}).encode()
    head = HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body)
    with gateway.connect(head) as connection:
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(body)
        assert read_until(connection, b"chat.completion").startswith(b"HTTP/1.1 200 OK\r\n")


def test_i2_a_body_that_does_not_come_is_given_up(serve: Serve) -> None:
    with serve(body_s=0.1).connect(HEAD + b"content-length: 100\r\n\r\n{") as connection:
        said = read_until(connection, b"request_timeout")

    assert said.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b'{"model": "gp'])
def test_a_client_that_leaves_within_its_body_leaves_nothing(gateway: Served, upstream: Server, sent: bytes) -> None:
    with gateway.connect(HEAD + b"content-length: 100\r\n\r\n" + sent):
        pass

    assert gateway.chat().status == 200
    assert len(upstream.requests) == 1
