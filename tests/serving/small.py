"""A small ASGI application in a thread, behind flowgpt/serving.py: what its tests talk to with bytes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, Self

import msgspec
from starlette.types import Receive, Scope, Send

from flowgpt import serving
from tests.embedded.wire import Answer, connect, read_to_end

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
STALL = b"GET /stall HTTP/1.1\r\nhost: x\r\n\r\n"
FOUND = b'{"method":"GET","path":"/","length":0}'

BIG = 50_000_000
"""As much as no kernel keeps between a server and a client that does not read."""


async def small(scope: Scope, receive: Receive, send: Send) -> None:
    """`/`: what was asked, in JSON. `/refuse`, `/early`: an answer unread. `/big`: much. `/stall`: a start, no end."""

    async def respond(status: int, body: bytes, *headers: tuple[bytes, bytes], more: bool = False) -> None:
        length = [] if more else [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": [*length, *headers]})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body, "more_body": more}
        )

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    match scope["path"]:
        case "/refuse":
            await respond(413, b"too much", (b"connection", b"close"))
        case "/early":
            await respond(401, b"who?")
        case "/big":
            await respond(200, b"x" * BIG, *(header for header in scope["headers"] if header[0] == b"connection"))
        case "/stall":
            await respond(200, b"begun", more=True)
            await left()
        case _:
            body = bytearray()
            while (message := await receive()).get("more_body"):
                body += message["body"]
            body += message.get("body", b"")
            told = {"method": scope["method"], "path": scope["path"], "length": len(body)}
            await respond(200, msgspec.json.encode(told), (b"content-type", b"application/json"))


def problem(status: HTTPStatus, words: str) -> bytes:
    return msgspec.json.encode({"error": words, "status": status})


class Serving:
    """The application, listening for as long as the block lasts. `facts`: of its `serving.Listener`, which gathers."""

    base_url: str
    listener: serving.Listener

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = serving.new_loop, **facts: Any) -> None:
        self._new_loop = new_loop
        self._facts = {"gathers": True} | facts

    def __enter__(self) -> Self:
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        started.result()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has stopped already
            self._loop.call_soon_threadsafe(self._stop.set)

    def wait_until_empty(self, timeout_s: float = 10.0) -> None:
        """Until no connection is open. Raises: TimeoutError."""
        asyncio.run_coroutine_threadsafe(self.listener.empty.wait(), self._loop).result(timeout_s)

    def _run(self, started: Future[None]) -> None:
        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self.listener = serving.Listener(problem, **self._facts)
            bound = serving.bind("127.0.0.1", 0)
            self.base_url = serving.base_url(bound)
            async with serving.listening(small, bound, self.listener):
                started.set_result(None)
                await self._stop.wait()

        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            runner.run(serve())


def ask(base_url: str, data: bytes = LAST_GET) -> Answer:
    with connect(base_url) as connection:
        connection.sendall(data)
        return Answer(*read_to_end(connection))
