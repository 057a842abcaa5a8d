"""embedded/exchange.py: pace, one write a text, and clients that read slowly or leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from flowgpt.embedded import Server
from tests.embedded.wire import BOUND_S, CHUNKS, HEAD, LAST, ask, body, connect, read_until, request, spoken


class Loop(asyncio.Event):
    """An event that another thread may set."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()

    def open(self) -> None:
        self.loop.call_soon_threadsafe(self.set)


def test_each_text_leaves_before_the_next_one_is_made() -> None:
    """The head and the first text are at the client while the responder still waits to make the second."""
    waiting: list[Loop] = []
    made = threading.Event()

    async def careful(_: object) -> AsyncGenerator[str, None]:
        yield "Hel"
        waiting.append(Loop())
        made.set()
        await waiting[0].wait()
        yield "lo"

    with Server(careful) as server, connect(server.base_url) as connection:
        connection.sendall(request())
        data = read_until(connection, CHUNKS[0])
        assert CHUNKS[1] not in data
        assert made.wait(BOUND_S)
        waiting[0].open()
        assert read_until(connection, LAST, data).endswith(CHUNKS[0] + CHUNKS[1] + LAST)


def test_the_head_waits_for_the_first_text() -> None:
    """So that a responder that fails at once is a status, and no broken stream."""
    made, waiting = threading.Event(), list[Loop]()

    async def slow(_: object) -> AsyncGenerator[str, None]:
        waiting.append(Loop())
        made.set()
        await waiting[0].wait()
        yield "Hel"

    with Server(slow) as server, connect(server.base_url) as connection:
        connection.sendall(request())
        assert made.wait(BOUND_S)
        assert server.requests[-1].status is None
        waiting[0].open()
        read_until(connection, CHUNKS[0])
        assert server.requests[-1].status == 200


def test_a_pace_does_not_change_the_words() -> None:
    with Server(spoken, pace_s=0.001) as server:
        assert ask(server.base_url).undated == HEAD + b"".join(CHUNKS) + LAST


def test_a_client_that_does_not_read_stops_the_responder() -> None:
    """J: back-pressure; what one client leaves unread is bounded, and the server serves the others meanwhile."""
    said = 0

    async def talkative(_: object) -> AsyncGenerator[str, None]:
        nonlocal said
        while True:
            said += 1
            yield "x" * 65536

    with Server(talkative) as server:
        with connect(server.base_url) as connection:
            connection.sendall(request())
            server.wait_until_open(1)
            before = -1
            while said != before:  # until the responder stands still while another client is served
                before = said
                ask(server.base_url, request(data=body(fault="empty")))
            assert 0 < said < 1000
        server.wait_until_idle()


def test_a_responder_that_never_waits_does_not_keep_the_others_waiting() -> None:
    async def endless_or_not(asked: object) -> AsyncGenerator[str, None]:
        while True:
            yield "x"

    with Server(endless_or_not) as server:
        stop = threading.Event()

        def read() -> None:
            with connect(server.base_url) as connection:
                connection.sendall(request())
                while not stop.is_set() and connection.recv(1 << 20):
                    pass

        reader = threading.Thread(target=read)
        reader.start()
        server.wait_until_open(1)
        assert ask(server.base_url, request(data=body(fault="empty"))).undated == HEAD + LAST
        stop.set()
        reader.join(BOUND_S)
        server.wait_until_idle()
        assert not reader.is_alive()


def test_nothing_more_is_written_to_a_client_that_has_left(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio would warn of each write; the loop is held, so that the writes themselves must find out."""
    gone, held = threading.Event(), threading.Event()

    async def holding(_: object) -> AsyncGenerator[str, None]:
        yield "Hel"
        held.set()
        gone.wait(BOUND_S)
        for _ in range(25):
            yield "x"

    with Server(holding) as server:
        with connect(server.base_url) as connection:
            connection.sendall(request())
            assert held.wait(BOUND_S)
        gone.set()
        server.wait_until_idle()

    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


def test_a_request_that_comes_before_the_last_answer_ended_is_answered_after_it() -> None:
    """Pipelined requests, as HTTP allows them."""
    with Server(spoken) as server, connect(server.base_url) as connection:
        connection.sendall(request(keep=True) + request())
        data = read_until(connection, LAST)
        while data.count(LAST) < 2:
            data = data + connection.recv(65536)

    assert data.count(CHUNKS[2]) == 2
