"""The gateway as the job of a process: it listens, and a signal lets it drain, then end.

Sockets, signals and descriptors; what is answered is decided in app.py, and HTTP is flowgpt/serving.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from .. import serving
from ..formats.openai.chat import error_object
from ..formats.pieces import Problem

FINISH_S = 5.0
"""How long the clients of unfinished streams may take to be told so."""

PATIENCE_S = 1.0
"""How long the clients may take, at the very end, to read what was written to them; and then the answers, to end."""

RESERVED_DESCRIPTORS = 64
"""For what is no connection: files, pipes, the loop's own."""

LIMIT_DESCRIPTORS = 10_240
"""What is asked for where the system names no limit: macOS gives no more."""

CODES = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "head_too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded",
}
"""Of the refusals that never reach the application."""


class App(Protocol):
    """What is served: an ASGI application that can be drained."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def drain(self) -> None:
        """From now on new work is refused with 503; what is under way goes on."""

    async def finish(self) -> None:
        """End what is still under way with an error, and wait for it."""


def run(
    app: App,
    listening_socket: socket.socket,
    *,
    drain_timeout_s: float,
    ready: Callable[[], object] = lambda: None,
    head_s: float = serving.HEAD_S,
    is_worker: bool = False,
) -> None:
    """Serve in the main thread until SIGINT or SIGTERM, to end the process then: further ones are ignored.

    It prints nothing, and takes the socket over.

    The first signal drains: new work gets 503 while the socket stays open, streams may finish within
    `drain_timeout_s`, the rest get an error frame (I16). A second one breaks all connections off, and ends it (I17).
    `ready` is called once it listens. `is_worker`: standard input is the supervisor's (workers.py); a byte of it is a
    signal, and its end is two. A true signal only drains then, for both may come from whoever ends a whole group.
    """

    draining, stopping = asyncio.Event(), asyncio.Event()
    signals = itertools.count(1)

    def hear() -> None:
        draining.set()
        if next(signals) > 1:
            stopping.set()

    def hear_supervisor(data: bytes) -> None:
        for _ in data or b"..":
            hear()

    async def serve() -> None:
        listener = serving.Listener(_problem, head_s=head_s, limit_connections=_limit_connections(), gathers=True)
        async with serving.listening(app, listening_socket, listener):
            if is_worker:
                serving.read_stdin(hear_supervisor)
            gc.freeze()  # what was loaded so far stays: the collector need not walk through it again and again,
            gc.set_threshold(10_000, 2, 2)  # nor after each request: only failed ones leave cycles, a few
            ready()
            await draining.wait()
            app.drain()
            listener.leaving = True
            finishing = asyncio.create_task(_finish(app, listener, drain_timeout_s))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait((finishing, stopped), return_when=asyncio.FIRST_COMPLETED)
            listener.stop_s = PATIENCE_S
            if finishing.done():
                listener.patience_s = PATIENCE_S
                finishing.result()

    serving.run(serve(), draining.set if is_worker else hear, is_last=True)


async def _finish(app: App, listener: serving.Listener, drain_timeout_s: float) -> None:
    """Wait for what is being answered now, then end what still is."""
    if listener.tasks:
        await asyncio.wait(set(listener.tasks), timeout=drain_timeout_s)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.finish(), FINISH_S)


def _problem(status: HTTPStatus, words: str) -> bytes:
    problem = Problem(status=status, code=CODES[status], message=words)
    return msgspec.json.encode(error_object(problem))


def _limit_connections() -> int | None:
    """How many connections there are descriptors for, each with one to the upstream; as many as the system allows."""
    if sys.platform == "win32":
        return None
    import resource

    given, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(given, LIMIT_DESCRIPTORS) if most == resource.RLIM_INFINITY else most
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        given = wanted
    return max(1, (given - RESERVED_DESCRIPTORS) // 2)
