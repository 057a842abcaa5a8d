"""gateway/serving.py as a process: draining, the second signal, too few descriptors, and heads that are no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from flowgpt.embedded import Server
from tests.embedded.wire import BOUND_S, Answer, connect, read_to_end, read_until
from tests.gateway.conftest import post

RUN = """
import json, resource, signal, sys
from flowgpt import serving
from flowgpt.gateway import serving as at_work
from flowgpt.gateway.app import create_app
from flowgpt.gateway.settings import Settings
base_url, facts = sys.argv[1], json.loads(sys.argv[2])
at_work.FINISH_S = 0.5
if limit := facts.pop("descriptors", None):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
app = create_app(settings=Settings(), base_url=base_url, proxy="")
bound = serving.bind("127.0.0.1", 0)
at_work.run(app, bound, ready=lambda: print(serving.base_url(bound), flush=True), **facts)
for number in (signal.SIGINT, signal.SIGTERM):  # of somebody impatient, while the program ends
    signal.raise_signal(number)
print("ended")
"""

ASK = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = post(ASK | {"stream": True})
LAST = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


class Gate:
    """A responder that says one text, and the other when the gate is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    async def __call__(self, _: object) -> AsyncGenerator[str, None]:
        yield "begun"
        assert await asyncio.to_thread(self.open.wait, BOUND_S)
        yield "gone on"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def upstream(gate: Gate) -> Iterator[Server]:
    with Server(gate) as server:
        yield server
        gate.open.set()


@contextlib.contextmanager
def running(upstream: Server, **facts: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway as a process of its own, and its base URL."""
    told = json.dumps({"drain_timeout_s": 60} | facts)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUN, upstream.base_url, told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        watchdog = threading.Timer(3 * BOUND_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            watchdog.cancel()
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=BOUND_S)
    return process.returncode, output, errors


PROPERLY = (0, "ended\n", "")


def get(base_url: str, path: str = "/readyz") -> Answer:
    with connect(base_url) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        return Answer(*read_to_end(connection))


def drain(process: subprocess.Popen[str], base_url: str, number: signal.Signals = signal.SIGTERM) -> None:
    """Send the signal, and wait until it was heard."""
    assert get(base_url).status == 200
    process.send_signal(number)
    while get(base_url).status != 503:
        pass


def begun(base_url: str) -> socket.socket:
    """A stream that is under way."""
    connection = connect(base_url)
    connection.sendall(STREAM)
    read_until(connection, b"begun")
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_i16_streams_go_on_while_new_work_is_refused_and_then_it_ends(
    upstream: Server, gate: Gate, number: signal.Signals
) -> None:
    with running(upstream) as (process, base_url), begun(base_url) as stream, connect(base_url) as kept:
        kept.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        read_until(kept, b'"ok"}')
        drain(process, base_url, number)
        with connect(base_url) as late:
            late.sendall(post(ASK))
            refused = Answer(*read_to_end(late))
        gate.open.set()
        rest = read_to_end(stream)[0]

        assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
        assert "connection: close" in refused.head
        assert b"gone on" in rest
        assert rest.endswith(LAST + b"\r\n" + END)
        assert read_to_end(kept) == (b"", "FIN")
        assert ended(process) == PROPERLY


def test_i16_what_is_not_done_in_time_is_told_so(upstream: Server) -> None:
    """After its first text by an error frame, before it by a status."""
    with running(upstream, drain_timeout_s=0.05) as (process, base_url), begun(base_url) as stream:
        upstream.fault("stall_head")
        with connect(base_url) as held, connect(base_url) as whole:
            held.sendall(STREAM)
            upstream.wait_until_open(2)
            whole.sendall(post(ASK))
            upstream.wait_until_open(3)
            process.send_signal(signal.SIGTERM)
            rest = read_to_end(stream)[0]
            refused = [Answer(*read_to_end(connection)) for connection in (held, whole)]

        assert b'"code":"shutting_down"' in rest
        assert rest.endswith(END)
        assert LAST not in rest
        assert [(answer.status, answer.json["error"]["code"]) for answer in refused] == [(503, "shutting_down")] * 2
        assert ended(process) == PROPERLY
    upstream.wait_until_idle()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_i17_a_second_signal_ends_it_at_once(upstream: Server, number: signal.Signals) -> None:
    """Long before the drain timeout; a stream is cut, and its client can tell."""
    with running(upstream) as (process, base_url), begun(base_url) as stream:
        drain(process, base_url)
        process.send_signal(number)

        assert ended(process) == PROPERLY
        assert END not in read_to_end(stream)[0]
    upstream.wait_until_idle()


def test_i17_signals_that_come_after_the_second_do_not_break_the_ending(upstream: Server) -> None:
    with running(upstream) as (process, base_url), begun(base_url) as stream:
        drain(process, base_url)
        process.send_signal(signal.SIGTERM)
        read_to_end(stream)  # the end has begun
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)

        assert ended(process) == PROPERLY


def test_i16_a_client_that_does_not_read_does_not_hold_up_the_end(upstream: Server) -> None:
    upstream.fault("endless")
    with running(upstream, drain_timeout_s=1) as (process, base_url), connect(base_url) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.sendall(STREAM)
        read_until(stream, b"data: ")
        process.send_signal(signal.SIGTERM)

        assert ended(process) == PROPERLY


def test_an_idle_gateway_ends_at_its_first_signal(upstream: Server) -> None:
    with running(upstream) as (process, base_url), connect(base_url):
        assert get(base_url).status == 200
        process.send_signal(signal.SIGTERM)

        assert ended(process) == PROPERLY


def test_i20_too_many_connections_are_refused_and_it_recovers(upstream: Server, gate: Gate) -> None:
    """100 descriptors are enough for 18 answers, each with a connection to the upstream."""
    with running(upstream, descriptors=100) as (process, base_url):
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(begun(base_url)) for _ in range(18)]
            more = [stack.enter_context(connect(base_url)) for _ in range(200)]
            assert read_to_end(more[-1])[0] == b""  # before any of them frees its descriptor
            for connection in more[:-1]:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(STREAM)
            answers = [read_to_end(connection)[0] for connection in more[:-1]]
            assert {answer[:12] for answer in answers} == {b"HTTP/1.1 503", b""}
            assert b'"code":"overloaded"' in answers[0]
            upstream.wait_until_open(18)
            for stream in streams:
                stream.close()
        upstream.wait_until_idle()
        gate.open.set()
        while get(base_url).status == 503:  # until it has heard that those whom it refused have left
            pass
        with connect(base_url) as stream:
            stream.sendall(STREAM)
            read_until(stream, LAST)  # which may come in one piece with all that is before it
        process.send_signal(signal.SIGTERM)
        assert ended(process) == PROPERLY


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n", 408, "request_timeout"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 102, 431, "head_too_large"),
        (STREAM.replace(b"content-length: ", b"content-length: 1000000000"), 413, "payload_too_large"),
    ],
)
def test_i1_i3_i12_what_is_refused_before_any_route_has_openais_error_object(
    upstream: Server, data: bytes, status: int, code: str
) -> None:
    with running(upstream, head_s=0.2) as (_, base_url), connect(base_url) as connection:
        connection.sendall(data)
        answer = Answer(*read_to_end(connection))

        assert (answer.status, answer.json["error"]["code"]) == (status, code)
        assert "connection: close" in answer.head
