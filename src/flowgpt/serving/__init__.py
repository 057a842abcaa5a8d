"""What both servers stand on: a listening socket that is served and closed, the loop, and what ends a process.

HTTP is connection.py's; what is answered is the application's affair. No routes and no child processes here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from ..errors import InvalidRequestError
from .connection import HEAD_S, LIMIT_HEAD_BYTES, LIMIT_HEADERS, TRANSPORT, Connection, Listener

__all__ = [
    "HEAD_S",
    "LIMIT_HEADERS",
    "LIMIT_HEAD_BYTES",
    "TRANSPORT",
    "Listener",
    "base_url",
    "bind",
    "is_loopback",
    "listening",
    "new_loop",
    "read_stdin",
    "run",
]

Ended = TypeVar("Ended")

KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than clients usually keep theirs."""

BACKLOG = 2048
"""How many connections may wait to be accepted."""

ACCEPT_TURNS = 5
"""How many turns of the loop make a connection that was accepted just now known (asyncio takes three)."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises: InvalidRequestError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        host.encode("idna")  # which Python would complain of without closing its socket
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except UnicodeError:
        raise InvalidRequestError(f"cannot listen on {host!a}: this is no host") from None
    except OSError as error:
        why = (error.strerror or "").partition(" (while ")[0]  # Python adds the address once more
        raise InvalidRequestError(f"cannot listen on {host} port {port}: {why}") from None


def base_url(listening_socket: socket.socket, host: str = "") -> str:
    """Where a client finds it. `host`: the name to use; without one, the bound address."""
    address = listening_socket.getsockname()
    host = host or address[0]
    return f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"


def is_loopback(listening_socket: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listening_socket.getsockname()[0]).is_loopback


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, listening_socket: socket.socket, listener: Listener) -> AsyncIterator[None]:
    """Serve an ASGI application on this loop; at the end close the socket and everything that came through it.

    uvicorn's own Server is not used: it polls, takes the signals, and waits for streams that never end.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(config, listener, loop), sock=listening_socket, backlog=BACKLOG
    )
    try:
        yield
    finally:
        if isinstance(loop, asyncio.SelectorEventLoop):  # asyncio fails on what it accepts in the turn of the close
            loop.remove_reader(listening_socket)
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        server.close()
        await _close(listener)
        await server.wait_closed()


async def _close(listener: Listener) -> None:
    if listener.patience_s:
        for connection in list(listener.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(listener.empty.wait(), listener.patience_s)
    for connection in list(listener.connections):
        connection.transport.abort()
    if listener.tasks:
        await asyncio.wait(listener.tasks, timeout=listener.stop_s)
    await listener.empty.wait()


def run(main: Coroutine[Any, Any, Ended], hear: Callable[[], object], *, is_last: bool = False) -> Ended:
    """Run `main` on a loop in the main thread. `hear` is called on it at each SIGINT and SIGTERM.

    They do nothing else until the loop has closed, for who is impatient must not break its ending; `is_last`: nor after
    it, since the process is about to end.
    """
    before: dict[int, Any] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(
            lambda: [signal.signal(number, signal.SIG_IGN if is_last else then) for number, then in before.items()]
        )
        runner = stack.enter_context(asyncio.Runner(loop_factory=new_loop))
        loop = runner.get_loop()

        def handle(*_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(hear)

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
        return runner.run(main)


def read_stdin(hear: Callable[[bytes], object]) -> None:
    """Call `hear` on the running loop with what comes at standard input, at last with b""."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = b"."
        while data:
            try:
                data = os.read(0, 4096)  # a thread left in sys.stdin.read would hold its lock at the exit
            except OSError:
                data = b""
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(hear, data)

    threading.Thread(target=read, daemon=True).start()


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
