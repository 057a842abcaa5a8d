"""The embedded server at work: `Server` in a thread of this process, `run` as the whole job of a process.

Threads, and when it ends; what is answered is decided in server.py, and HTTP is flowgpt/serving.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from typing import Any, Self

from .. import serving
from ..errors import InvalidRequestError
from . import faults
from .responders import Responder, mirror
from .server import App, Received

RESET_S = 5.0
"""How long the streams may take to end at a reset."""


@contextlib.asynccontextmanager
async def listening(app: App, *, host: str, port: int) -> AsyncIterator[str]:
    """Serve on this loop, and give the base URL; at the end all connections are closed at once.

    Raises: InvalidRequestError when the address cannot be listened on.
    """
    bound = serving.bind(host, port)
    base_url = serving.base_url(bound, host)
    async with serving.listening(app, bound, serving.Listener(lambda _, words: faults.problem(words))):
        yield base_url


class Server:
    """The embedded server in a thread of its own, for tests and notebooks: a context manager.

    `pace_s`: seconds between two texts. `fault`: plays in every chat (see faults.FAULTS). `characters`: by id, what the
    service calls `prompt`, any field left out; None: the one of its own. Port 0: any free one.
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
        characters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._base_url = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], object] | None = None
        self._thread: threading.Thread | None = None
        self._app = App(responder, pace_s=pace_s, fault=fault, characters=characters)

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
            if not self._app.changed.wait_for(idle, RESET_S):
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

    stopped = asyncio.Event()

    async def serve() -> None:
        async with listening(app, host=host, port=port) as base_url:
            if until_stdin_closes:
                serving.read_stdin(lambda data: None if data else stopped.set())
            ready(base_url)
            await stopped.wait()

    serving.run(serve(), stopped.set)
