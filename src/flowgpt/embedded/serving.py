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
from http import HTTPStatus
from typing import Self

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
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

LIMIT_HEAD_BYTES = 64 * 1024
LIMIT_HEADERS = 100
HEAD_S = 10.0
"""How long a request's head may take, from its first byte on; and a refused client, to read why and leave."""

PIECE_BYTES = 4096
"""How much is parsed at once: so exact is the count of a head's bytes."""

ACCEPT_TURNS = 5
"""How many turns of the loop make a connection that was accepted just now known (asyncio takes three)."""


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, with bounds on what is no body yet, and refusals in JSON.

    It shows itself to the application, takes a request to upgrade for a plain one, and tells every request that waits
    here when the client has left (uvicorn tells the last one only).
    """

    def __init__(self, config: uvicorn.Config, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {}, loop)
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._refused = False

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for start in range(0, len(data), PIECE_BYTES):
            if self._refused:
                return
            self._parse(data[start : start + PIECE_BYTES])

    def _parse(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:  # it stops here: another reads the same head without that wish
            version = self.parser.get_http_version().encode()
            head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
            head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(b"".join(head) + b"\r\n" + piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
        else:
            self._head_bytes += len(piece)
            if self._head_bytes > LIMIT_HEAD_BYTES:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head has more than {LIMIT_HEAD_BYTES} bytes"
                )

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(
            HEAD_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, f"the head took more than {HEAD_S:g} s"
        )
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]  # our own key

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == LIMIT_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"there are more than {LIMIT_HEADERS} headers")
            raise ValueError("refused")  # stops the parser
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        super().on_headers_complete()
        if not self._should_upgrade():
            while self._unanswered and self._unanswered[0].response_complete:
                self._unanswered.popleft()
            self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0  # what is no body counts as a head: trailers, and what is said of chunks
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._disconnect()
        super().connection_lost(exc)

    def _should_upgrade(self) -> bool:
        """uvicorn asks this to leave a request alone: _parse comes back with it."""
        return bool(self.parser.should_upgrade())

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        """Answer what never reaches the application, unless another answer is under way, and close.

        What still comes is thrown away: closing on unread bytes is a reset, which takes the answer along.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_head_timer()
        if not any(cycle.response_started and not cycle.response_complete for cycle in self._unanswered):
            body = faults.problem(words)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {faults.JSON}\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self._disconnect()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _disconnect(self) -> None:
        for cycle in self._unanswered:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


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
        listener = await loop.create_server(lambda: Connection(config, state, loop), host, port, backlog=2048)
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

    `pace_s`: seconds between two texts. `fault`: plays in every chat (see faults.FAULTS). Port 0: any free one.
    Raises: InvalidRequestError for an unknown fault, or an address that cannot be listened on.
    """

    def __init__(
        self,
        responder: Responder = mirror,
        *,
        pace_s: float = 0.0,
        fault: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._host = host
        self._port = port
        self._base_url = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], object] | None = None
        self._thread: threading.Thread | None = None
        self._app = App(responder, pace_s=pace_s, fault=fault)

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
        """Break off what is being answered, and forget the queued faults and the requests. Raises: TimeoutError."""

        def idle() -> bool:
            if self.open_streams and self._loop is not None:  # again at each change: some begin only now
                self._loop.call_soon_threadsafe(self._app.cut_streams)
            return self.open_streams == 0

        with self._app.changed:
            if not self._app.changed.wait_for(idle, STOP_S):
                raise TimeoutError(f"{self.open_streams} streams do not end")
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
            self._loop = loop = asyncio.get_running_loop()
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
    pace_s: float = 0.0,
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
    app = App(responder, pace_s=pace_s, fault=fault)

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
