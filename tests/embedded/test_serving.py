"""embedded/serving.py: a server in a thread, and a server that is the whole process."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from flowgpt import InvalidRequestError
from flowgpt.embedded import Server
from tests.embedded.wire import (
    BOUND_S,
    CHUNKS,
    HEAD,
    LAST,
    ask,
    body,
    connect,
    read_to_end,
    read_until,
    request,
    signed,
    spoken,
)

STRICT = (sys.executable, "-X", "dev", "-W", "error")

PATIENCE = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
"""
"""The loops' debug mode complains of slow steps: a busy machine is no fault."""

RUN = """
import asyncio, sys
from flowgpt.serving import connection
from flowgpt.embedded import mirror, run
async def stubborn(_):
    try:
        yield "Hel"
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()
connection.STOP_S = 0.05
responder = stubborn if "--stubborn" in sys.argv else mirror
until_stdin_closes = "--until-stdin-closes" in sys.argv
run(responder, ready=lambda base_url: print(base_url, flush=True), until_stdin_closes=until_stdin_closes)
print("ended")
"""

THREAD = """
import contextlib, gc, sys
sys.path.insert(0, {root!r})
from tests.embedded.wire import CHUNKS, ask, body, connect, read_until, request, spoken
from flowgpt.embedded import Server
for fault in ("stall:1", "stall_head", "endless", "reset", None):
    with contextlib.ExitStack() as stack, Server(spoken, fault=fault) as server, connect(server.base_url) as connection:
        idle = stack.enter_context(connect(server.base_url))
        connection.sendall(request())
        if fault in ("stall:1", None):
            read_until(connection, CHUNKS[0])
        server.wait_until_open(0 if fault in ("reset", None) else 1)
gc.collect()
print("ended")
"""


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that calls `run`, and its base URL."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*STRICT, "-c", PATIENCE + RUN, *arguments],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


# --- in a thread ------------------------------------------------------------------------------------------------------


def test_a_server_has_an_address_of_its_own_for_as_long_as_it_runs() -> None:
    server = Server(spoken)
    with pytest.raises(InvalidRequestError, match="not running"):
        _ = server.base_url
    with server, Server(spoken) as other:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.base_url != other.base_url
        assert ask(server.base_url).undated == ask(other.base_url).undated
        address = server.base_url
    with pytest.raises(ConnectionRefusedError):
        connect(address)
    assert repr(server) == "<Server stopped>"


def test_a_server_may_be_started_again() -> None:
    server = Server(spoken)
    for _ in range(2):
        with server:
            assert ask(server.base_url).status == 200
    assert len(server.requests) == 2


def test_the_repr_says_what_it_does() -> None:
    with Server(spoken) as server:
        ask(server.base_url)
        server.wait_until_idle()
        assert repr(server) == f"<Server at {server.base_url}, 1 requests, 0 open streams>"


def test_stopping_cuts_every_stream_and_leaves_no_thread() -> None:
    threads = threading.active_count()
    with Server(spoken, fault="stall") as server:
        connections = [connect(server.base_url) for _ in range(5)]
        for connection in connections:
            connection.sendall(request())
        server.wait_until_open(5)

    assert server.open_streams == 0
    assert threading.active_count() == threads
    for connection in connections:
        data, _ = read_to_end(connection)
        assert LAST not in data
        connection.close()


def test_stopping_twice_or_before_the_start_is_no_matter() -> None:
    server = Server()
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert repr(server) == "<Server stopped>"


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with Server() as server:
        port = int(server.base_url.rpartition(":")[2])
        with pytest.raises(InvalidRequestError, match=f"cannot listen on 127.0.0.1 port {port}: "), Server(port=port):
            pass


def test_ipv6_has_brackets_in_its_address() -> None:
    with Server(spoken, host="::1") as server:
        assert server.base_url.startswith("http://[::1]:")


def test_waiting_for_what_does_not_come_ends() -> None:
    with Server() as server, pytest.raises(TimeoutError, match="0 streams are open after 0 s, not 1"):
        server.wait_until_open(1, timeout_s=0)


def test_reset_forgets_faults_and_requests() -> None:
    with Server(spoken) as server:
        server.fault("empty", times=5)
        ask(server.base_url)
        server.reset()
        assert list(server.requests) == []
        assert ask(server.base_url).undated == HEAD + b"".join(CHUNKS) + LAST


def test_reset_ends_what_is_open_and_the_server_goes_on() -> None:
    with Server(spoken) as server, connect(server.base_url) as stalled, connect(server.base_url) as kept:
        kept.sendall(request(keep=True))
        read_until(kept, LAST)
        server.wait_until_idle()
        server.fault("stall")
        stalled.sendall(request())
        server.wait_until_open(1)
        server.reset()

        assert server.open_streams == 0
        assert LAST not in read_to_end(stalled)[0]
        kept.sendall(request())
        assert read_to_end(kept)[0].endswith(LAST)


def test_nothing_is_left_open_and_no_warning_appears(request: pytest.FixtureRequest) -> None:
    """Under -X dev -W error: streams that stall, run for ever, were reset, and idle connections."""
    script = PATIENCE + THREAD.format(root=str(request.config.rootpath))
    done = subprocess.run([*STRICT, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_the_raw_transport_is_in_the_scope() -> None:
    """What the socket faults stand on; uvicorn gives it to nobody, so our subclass does."""
    with Server(spoken) as server:
        assert ask(server.base_url, request(data=body(fault="reset"))).ending == "RST"


def test_every_answer_has_a_date() -> None:
    """F16: clients reckon Retry-After from it."""
    with Server(spoken) as server:
        for data in (request(), request(data=b"{"), request(data=body(fault="rate_limit"))):
            assert sum(line.startswith("date: ") for line in ask(server.base_url, data).head) == 1


# --- what it shares with the gateway: tests/serving has the rest ----------------------------------------------


def test_a_head_that_is_no_good_is_refused_in_the_words_of_this_server() -> None:
    with Server(spoken) as server:
        answer = ask(server.base_url, b"NONSENSE\r\n\r\n")

        assert (answer.status, answer.json) == (
            400,
            dict.fromkeys(("error", "message"), "Invalid HTTP request received."),
        )
        assert "connection: close" in answer.head


@pytest.mark.parametrize("wish", ["h2c", "websocket", "anything/2"])
def test_a_request_to_upgrade_is_answered_as_a_plain_one(wish: str) -> None:
    headers = signed() | {"connection": "Upgrade, HTTP2-Settings", "upgrade": wish, "http2-settings": "AAMAAABk"}
    data = request(headers=headers, keep=True)
    with Server(spoken) as server, connect(server.base_url) as connection:
        connection.sendall(data[:-20])
        connection.sendall(data[-20:] + request(headers=signed() | {"connection": "close"}))
        answers = read_to_end(connection)[0]

        assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert answers.count(LAST) == 2
        assert [received.body for received in server.requests] == [body(), body()]


def test_a_client_that_leaves_ends_every_request_it_had_in_a_row() -> None:
    """uvicorn tells the last of them only."""
    with Server(spoken) as server:
        with connect(server.base_url) as connection:
            connection.sendall(request(data=body(fault="stall"), keep=True) + request(keep=True))
            read_until(connection, CHUNKS[1])
        server.wait_until_idle()

        assert ask(server.base_url).status == 200


# --- as a process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_properly_with_a_stream_open(number: signal.Signals) -> None:
    with running() as (process, base_url), connect(base_url) as connection:
        connection.sendall(request(data=body(fault="stall")))
        read_until(connection, b'"event":"text"')
        process.send_signal(number)
        output, errors = process.communicate(timeout=BOUND_S)

    assert (process.returncode, output, errors) == (0, "ended\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_quietly_while_a_client_does_not_read(number: signal.Signals) -> None:
    with running() as (process, base_url), connect(base_url) as connection, connect(base_url) as other:
        connection.sendall(request(data=body(fault="endless"), keep=True) + request(keep=True))
        other.sendall(request(data=body(fault="stall")))
        read_until(other, b'"event":"text"')
        process.send_signal(number)
        output, errors = process.communicate(timeout=BOUND_S)

    assert (process.returncode, output, errors) == (0, "ended\n", "")


def test_a_responder_that_does_not_end_is_left_behind_quietly() -> None:
    with running("--stubborn") as (process, base_url), connect(base_url) as connection:
        connection.sendall(request())
        read_until(connection, CHUNKS[0])
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=BOUND_S)

    assert (process.returncode, output, errors) == (0, "ended\n", "")


def test_the_end_of_standard_input_ends_the_process() -> None:
    with running("--until-stdin-closes") as (process, base_url):
        assert ask(base_url).status == 200
        assert process.stdin is not None
        process.stdin.write("noise is no end\n")
        process.stdin.flush()
        assert ask(base_url).status == 200
        output, errors = process.communicate(timeout=BOUND_S)  # closes the child's standard input

    assert (process.returncode, output, errors) == (0, "ended\n", "")


def test_a_signal_ends_a_process_that_also_watches_its_standard_input() -> None:
    with running("--until-stdin-closes") as (process, base_url):
        assert ask(base_url).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0


def test_bad_requests_leave_no_traceback_on_the_terminal() -> None:
    with running() as (process, base_url):
        for data in (request(data=b"{"), request("/nowhere"), request(data=body(fault="refuse"))):
            ask(base_url, data)
        ask(base_url, request(data=body(fault="cut_mid_line")))
        with connect(base_url) as connection:
            connection.sendall(request()[:-5])
        for data in (b"NONSENSE\r\n\r\n", request(headers=signed() | {"connection": "upgrade", "upgrade": "h2c"})):
            with connect(base_url) as connection:
                connection.sendall(data)
                read_until(connection, b"}")
        assert ask(base_url).status == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=BOUND_S)

    assert errors == ""
