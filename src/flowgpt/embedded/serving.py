"""The embedded server at work: `Server` in a thread of this process, `run` as the whole job of a process.

Sockets, loops, threads and signals, and uvicorn's HTTP protocol; what is answered is decided in server.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from email.utils import formatdate
from typing import Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ..errors import InvalidRequestError
from . import faults
from .exchange import TRANSPORT
from .responders import Responder, mirror
from .server import App, Received

KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than clients usually keep theirs."""

STOP_S = 5.0
"""How long a responder may take to end when the server stops."""


ACCEPT_TURNS = 5
"""How many turns of the loop make a connection that was accepted just now known (asyncio takes three)."""


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, which shows itself to the application, and refuses bad HTTP in JSON."""

    def on_message_begin(self) -> None:
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]  # our own key

    def send_400_response(self, msg: str) -> None:
        body = faults.problem(msg)
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {faults.JSON}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()


@contextlib.asynccontextmanager
async def listening(app: App, *, host: str, port: int) -> AsyncIterator[str]:
    """Serve on this loop, and give the base URL; at the end all connections are closed at once.

    uvicorn's own Server is not used: it polls, takes the signals, and waits for streams that never end.
    Raises: InvalidRequestError when the address cannot be listened on.
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
    state = ServerState()
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(lambda: Connection(config, state, {}, loop), host, port, backlog=2048)
    except OSError as error:
        raise InvalidRequestError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    try:
        address = listener.sockets[0].getsockname()
        yield f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"
    finally:
        if isinstance(loop, asyncio.SelectorEventLoop):  # asyncio fails on what it accepts in the turn of the close
            for listening_socket in listener.sockets:
                loop.remove_reader(listening_socket)
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=STOP_S)
        while state.connections:  # noqa: ASYNC110  # uvicorn has no event for this; it takes a turn or two
            await asyncio.sleep(0)
        await listener.wait_closed()


class Server:
    """The embedded server in a thread of its own, for tests and notebooks: a context manager.

    `pace`: seconds between two texts. `fault`: plays in every chat (see faults.FAULTS). Port 0: any free one.
    Raises: InvalidRequestError for an unknown fault, or an address that cannot be listened on.
    """

    def __init__(
        self,
        responder: Responder = mirror,
        *,
        pace: float = 0.0,
        fault: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._host = host
        self._port = port
        self._base_url = ""
        self._stop: Callable[[], object] | None = None
        self._thread: threading.Thread | None = None
        self._app = App(responder, pace_s=pace, fault=fault)

    @property
    def base_url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`. Raises: InvalidRequestError when it does not."""
        if self._stop is None:
            raise InvalidRequestError("the server is not running", hint="use it in a with statement")
        return self._base_url

    @property
    def requests(self) -> deque[Received]:
        """The last requests, oldest first."""
        return self._app.requests

    @property
    def open_streams(self) -> int:
        """How many chats are being answered now."""
        return self._app.open_streams

    def __repr__(self) -> str:
        if self._stop is None:
            return "<Server stopped>"
        return f"<Server at {self._base_url}, {len(self.requests)} requests, {self.open_streams} open streams>"

    def fault(self, name: str, times: int = 1) -> None:
        """Play this fault in the next `times` chats that name none. Raises: InvalidRequestError for an unknown one."""
        self._app.fault(name, times)

    def reset(self) -> None:
        """Forget the queued faults and the requests received."""
        self._app.reset()

    def wait_until_open(self, streams: int, timeout_s: float = 10.0) -> None:
        """Wait until exactly so many chats are being answered. Raises: TimeoutError."""
        with self._app.changed:
            if not self._app.changed.wait_for(lambda: self.open_streams == streams, timeout_s):
                raise TimeoutError(f"{self.open_streams} streams are open after {timeout_s:g} s, not {streams}")

    def wait_until_idle(self, timeout_s: float = 10.0) -> None:
        """Wait until no chat is being answered: every client has its answer, or has left. Raises: TimeoutError."""
        self.wait_until_open(0, timeout_s)

    def start(self) -> None:
        started: Future[Callable[[], object]] = Future()
        self._thread = threading.Thread(target=self._serve, args=(started,), name="flowgpt-embedded", daemon=True)
        self._thread.start()
        self._stop = started.result()

    def stop(self) -> None:
        """Close everything, and wait for it. May be called again."""
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()
        self._stop = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self, started: Future[Callable[[], object]]) -> None:
        async def serve() -> None:
            stopped = asyncio.Event()
            loop = asyncio.get_running_loop()
            async with listening(self._app, host=self._host, port=self._port) as self._base_url:
                started.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
                await stopped.wait()

        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)


def run(
    responder: Responder = mirror,
    *,
    pace: float = 0.0,
    fault: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], object] = lambda base_url: None,
    until_stdin_closes: bool = False,
) -> None:
    """Serve in the main thread until SIGINT or SIGTERM, or until standard input ends. Prints nothing.

    `ready` is called with the base URL once it listens. `until_stdin_closes`: a child so never outlives its parent.
    Raises: InvalidRequestError for an unknown fault, or an address that cannot be listened on.
    """
    app = App(responder, pace_s=pace, fault=fault)

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(*_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed: it has stopped already
                loop.call_soon_threadsafe(stopped.set)

        with _signals(stop):
            async with listening(app, host=host, port=port) as base_url:
                if until_stdin_closes:
                    threading.Thread(target=_wait_for_stdin, args=(stop,), daemon=True).start()
                ready(base_url)
                await stopped.wait()

    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(serve())


@contextlib.contextmanager
def _signals(stop: Callable[..., None]) -> Iterator[None]:
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_stdin(stop: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # os.read, for a thread left in sys.stdin.read would hold its lock at the exit
        while os.read(0, 4096):
            pass
    stop()


def _loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
