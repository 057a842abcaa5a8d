"""A gateway for a test: served on a real socket in a thread, over an embedded server in another."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from flowgpt import config, serving
from flowgpt.embedded import Server
from flowgpt.formats import sse
from flowgpt.gateway.app import Gateway, create_app
from flowgpt.gateway.settings import Settings
from flowgpt.store import Store


@dataclass
class Answer:
    """An HTTP answer. `events`: of an event stream, in order."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[sse.SSEvent]:
        return sse.Decoder().feed(self.body)

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(event.data) for event in self.events if event.data != "[DONE]"]


class Served:
    """A gateway that listens on `port`. `app`, `loop`: it, and where it runs."""

    def __init__(self, make: Callable[[], Gateway]) -> None:
        self.port = 0
        self.app: Gateway
        self.loop: asyncio.AbstractEventLoop
        self._make = make
        self._started = threading.Event()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = self._make()
        listener = serving.Listener(lambda status, words: words.encode(), gathers=True)
        listening_socket = serving.bind("127.0.0.1", 0)
        self.port = listening_socket.getsockname()[1]
        async with serving.listening(self.app, listening_socket, listener):
            self._started.set()
            await self._stopped.wait()

    def call(self, act: Callable[[], Any]) -> Any:
        """Call it on the gateway's loop, and give its result."""

        async def run() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: str
    ) -> Answer:
        """One request; `body`: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            asked = {"content-type": "application/json"} if body is not None else {}
            connection.request(method, path, sent, asked | (headers or {}) | more)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, got, response.read())

    def chat(self, question: str = "Hello", **parameters: Any) -> Answer:
        """Ask by chat completions."""
        messages = [{"role": "user", "content": question}]
        return self.request(
            "POST", "/v1/chat/completions", {"model": "gpt-3.5-turbo", "messages": messages} | parameters
        )

    def connect(self, request: bytes = b"") -> socket.socket:
        """A raw connection, on which `request` was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(request)
        return connection


def post(body: Any, path: str = "/v1/chat/completions", headers: Mapping[str, str] | None = None) -> bytes:
    """A POST as bytes."""
    data = json.dumps(body).encode()
    fields = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(data)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data


@pytest.fixture
def upstream() -> Iterator[Server]:
    """The embedded server that the gateway asks."""
    with Server() as server:
        yield server


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store(Path(config.home()) / "flowgpt.db")) as opened:
        yield opened


Serve = Callable[..., Served]


@pytest.fixture
def serve(upstream: Server, store: Store) -> Iterator[Serve]:
    """`serve(options, **settings)`: a gateway over `upstream`. `options`: `provider` and what else it is made with."""
    with contextlib.ExitStack() as stack:

        def started(options: dict[str, Any] | None = None, **settings: Any) -> Served:
            asking: dict[str, Any] = {"base_url": upstream.base_url, "store": store} | (options or {})
            return stack.enter_context(Served(lambda: create_app(settings=Settings(**settings), **asking)))

        yield started


@pytest.fixture
def gateway(serve: Serve) -> Served:
    """A gateway with the default settings."""
    return serve()
