"""A scripted upstream: raw sockets that say what the test wrote down, byte for byte, and note what they heard.

It knows neither flowgpt nor any HTTP library: an independent witness. It runs in a thread of its own, so that one test
body serves every event loop, also a blocked one. Nothing here sleeps: a script waits for a `Gate`, or for the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

BOUND_S = 10.0
"""How long anything is waited for before the test fails."""


# --- bytes ----------------------------------------------------------------------------------------------------------


def event(text: str, name: str = "text") -> bytes:
    """One event as FlowGPT sends it."""
    return json.dumps({"event": name, "data": text}).encode() + b"\n\n"


def head(status: int | str = "200 OK", *headers: str) -> bytes:
    """A response head. `headers`: whole lines."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


CHUNKED = head("200 OK", "Transfer-Encoding: chunked")
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def reply(*texts: str) -> bytes:
    """A whole good response: one event and one chunk for each text."""
    return CHUNKED + b"".join(chunk(event(text)) for text in texts) + LAST


def answer(status: int | str, body: bytes = b"", *headers: str) -> bytes:
    """A whole response with a length."""
    return head(status, f"Content-Length: {len(body)}", *headers) + body


# --- scripts --------------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """What the upstream heard: one request. `headers`: names in lower case; `connection`: counted from 0."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Gate:
    """Stops scripts until the test opens it, and tells the test when one has come so far."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        self._opened.set()
        for loop, opened in self._waiting:
            loop.call_soon_threadsafe(opened.set)

    async def reached(self) -> None:
        """Wait, in the test, until a script stands here."""
        assert await asyncio.to_thread(self._reached.wait, BOUND_S), "no script came to the gate"

    async def __call__(self, _peer: Peer) -> None:
        opened = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), opened))
        self._reached.set()
        if not self._opened.is_set():
            async with asyncio.timeout(BOUND_S):
                await opened.wait()


class Peer:
    """One connection, as a script sees it. Works as the steps FIN, RST, HUNG_UP do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Step = bytes | Gate | Callable[[Peer], Awaitable[Any]]
Script = Sequence[Step]


async def FIN(peer: Peer) -> None:  # noqa: N802  # a constant word of the scripts
    """Close the connection in order."""
    peer.writer.close()


async def RST(peer: Peer) -> None:  # noqa: N802
    """Reset the connection, after all that was written is out."""
    while peer.writer.transport.get_write_buffer_size():
        await asyncio.sleep(0)
    peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


async def HUNG_UP(peer: Peer) -> None:  # noqa: N802
    """Wait until the peer has closed the connection."""
    with contextlib.suppress(ConnectionError):
        while await peer.reader.read(65536):
            pass


def endless(data: bytes) -> Step:
    """Send the same bytes until the peer hangs up."""

    async def send(peer: Peer) -> None:
        while True:
            await peer.send(data)

    return send


def one_by_one(data: bytes) -> Step:
    """Send single bytes, each with a turn of the loop between."""

    async def send(peer: Peer) -> None:
        for place in range(len(data)):
            await peer.send(data[place : place + 1])
            await asyncio.sleep(0)

    return send


# --- the server -----------------------------------------------------------------------------------------------------


class Upstream:
    """A server on loopback; `with Upstream([step, ...], [step, ...]) as upstream: upstream.url`.

    `scripts`: one for each request in the order of their coming; the last is for all that come after. A script that
    ends without FIN or RST leaves the connection open for the next request. `greeting`: a script played at each
    connection before any request is read. `requests`, `connections`, `closed` (numbers): what happened.
    """

    def __init__(
        self,
        *scripts: Script,
        greeting: Script = (),
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.scripts, self.greeting, self.tls, self.host = scripts or ([FIN],), greeting, tls, host
        self.requests: list[Request] = []
        self.connections = self.port = 0
        self.closed: set[int] = set()
        self._changed = threading.Condition()
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return self.connections - len(self.closed)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="upstream")
        self._thread.start()
        self.wait_for(lambda: self.port, "the upstream to listen")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive(), "the upstream does not end"

    def wait_for(self, fact: Callable[[], Any], words: str = "it") -> None:
        """Wait until `fact()` is true. It is looked at whenever something has happened here."""
        with self._changed:
            assert self._changed.wait_for(fact, BOUND_S), f"waited in vain for {words}"

    async def until(self, fact: Callable[[], Any], words: str = "it") -> None:
        """`wait_for`, for a test inside an event loop."""
        await asyncio.to_thread(self.wait_for, fact, words)

    async def hung_up(self, count: int = 1) -> None:
        """Wait until `count` connections are closed."""
        await self.until(lambda: len(self.closed) >= count, f"{count} closed connections")

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        # What a broken peer does to the transports here is no news: the scripts mean it.
        self._loop.set_exception_handler(lambda _loop, _facts: None)
        server = await asyncio.start_server(self._connected, self.host, 0, ssl=self.tls, backlog=4096, limit=1 << 20)
        with self._changed:
            self.port = server.sockets[0].getsockname()[1]
            self._changed.notify_all()
        await self._end.wait()
        await _turns()
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())  # what is being accepted when it closes, asyncio would lose
        await _turns()
        server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # asyncio's own too, in a TLS handshake
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        for writer in self._tasks.values():
            writer.transport.abort()
        await asyncio.sleep(0)  # they close their sockets in the loop's next turn

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Called at once for each connection, so that none of them is unknown when all are to be closed."""
        with self._changed:
            peer = Peer(reader, writer, self.connections)
            self.connections += 1
            self._changed.notify_all()
        self._tasks[asyncio.create_task(self._talk(peer))] = writer

    async def _talk(self, peer: Peer) -> None:
        reader, writer = peer.reader, peer.writer
        try:
            await self._play(self.greeting, peer)
            while not writer.is_closing() and (request := await _read(reader, peer.number)) is not None:
                with self._changed:
                    script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
                    self.requests.append(request)
                    self._changed.notify_all()
                await self._play(script, peer)
        except (ConnectionError, ssl.SSLError):
            pass  # the peer went away: noted below
        finally:
            with self._changed:
                self.closed.add(peer.number)
                self._changed.notify_all()
            if not writer.is_closing():
                writer.transport.abort()

    @staticmethod
    async def _play(script: Script, peer: Peer) -> None:
        for step in script:
            if isinstance(step, bytes):
                await peer.send(step)
            else:
                await step(peer)


async def _turns() -> None:
    """Let what knocked a moment ago become a connection."""
    for _ in range(5):
        await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """The next request of a connection, or None when the peer has closed it."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body, connection)


def texts_in(parts: Iterable[bytes]) -> list[str]:
    """The texts of the complete lines in these bytes: what any honest client must deliver of them."""
    lines = b"".join(parts).split(b"\n")[:-1]
    return [json.loads(line)["data"] for line in lines if line.strip()]
