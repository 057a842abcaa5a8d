"""serving/__init__.py: where it listens, and how that ends. What ends a process is seen in those of both servers."""

from __future__ import annotations

import pytest

from flowgpt import InvalidRequestError, serving
from tests.embedded.wire import Answer, connect, read_to_end, read_until
from tests.serving.conftest import NewLoop
from tests.serving.small import BIG, FOUND, GET, Serving


def test_f16_every_answer_is_dated_and_who_leaves_says_so(served: Serving) -> None:
    with connect(served.base_url) as connection:
        connection.sendall(GET)
        first = read_until(connection, FOUND)
        served.listener.leaving = True
        connection.sendall(GET)
        answer = Answer(*read_to_end(connection))

    assert b"connection: close" not in first
    assert "connection: close" in answer.head
    assert sum(line.startswith("date: ") for line in answer.head) == 1


def test_at_the_end_an_answer_that_was_written_is_read_if_there_is_patience(new_loop: NewLoop) -> None:
    with Serving(new_loop) as served, connect(served.base_url) as connection, connect(served.base_url) as idle:
        connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        start = read_until(connection, b"\r\n\r\n")
        served.listener.patience_s = 10.0
        served.stop()
        rest, ending = read_to_end(connection)

        assert len(start) + len(rest) > BIG
        assert (ending, read_to_end(idle)) == ("FIN", (b"", "FIN"))


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with serving.bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(
            InvalidRequestError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use$"
        ):
            serving.bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "named", "loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:", True),
        ("localhost", "http://localhost:", True),
        ("::1", "http://[::1]:", True),
        ("0.0.0.0", "http://0.0.0.0:", False),
        ("::", "http://[::]:", False),
    ],
)
def test_l5_an_address_is_told_as_clients_write_it_and_judged_by_what_it_is(
    host: str, named: str, loopback: bool
) -> None:
    with serving.bind(host, 0) as bound:
        assert serving.base_url(bound, host) == f"{named}{bound.getsockname()[1]}"
        assert serving.is_loopback(bound) is loopback


def test_a_host_that_nobody_knows_is_a_clear_error() -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot listen on nowhere\.invalid port 0: [A-Z]"):
        serving.bind("nowhere.invalid", 0)
    with pytest.raises(InvalidRequestError, match="this is no host"):
        serving.bind("ü..x", 0)
