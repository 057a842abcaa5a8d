"""The other side: a process that answers many streams at once in FlowGPT's protocol, and spoils each twentieth.

The question is the stream's number, and the number decides everything: its texts, and whether and how it fails. The
expectations of the readers come from the same functions. Source of the wire: docs/protocol.md#response.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
SPOILED = 20
"""Of so many streams one fails: 5 %."""
TURN_TEXTS = 4
"""How many texts a stream gets in one write."""
PIECES = (" the", " light", "ción", " über", ", ", "\n", ' "so" ', " …🙂")


class Fault(NamedTuple):
    """How a stream fails. `code`: of the error it must be; `begun`: after some texts, or before the first."""

    code: str
    begun: bool


FAULTS: Mapping[str, Fault] = {
    "closed before the head": Fault("stream_interrupted", False),
    "status 500": Fault("server_error", False),
    "a page": Fault("not_a_stream", False),
    "no text": Fault("empty_reply", False),
    "reset": Fault("stream_interrupted", True),
    "cut within a line": Fault("stream_interrupted", True),
    "ended early": Fault("stream_truncated", True),
    "no event": Fault("bad_event", True),
}


def fault(number: int) -> str | None:
    """How the stream fails, if it does."""
    return None if number % SPOILED else list(FAULTS)[number // SPOILED % len(FAULTS)]


def texts(number: int, count: int) -> list[str]:
    """The texts of a stream. No two of all streams are equal, so that none can be lost, or stand in for another."""
    return [f"{PIECES[place % len(PIECES)]}{number}.{place}" for place in range(count)]


def given(number: int, count: int) -> int:
    """How many of its texts a stream gets before its end."""
    name = fault(number)
    if name is None:
        return count
    turns = count // TURN_TEXTS
    return TURN_TEXTS * (1 + number // SPOILED % (turns - 1)) if FAULTS[name].begun else 0


@contextlib.contextmanager
def running(crowd: int, count: int) -> Iterator[str]:
    """The process, while the block lasts; gives its origin.

    `crowd`: so many streams are begun before one goes on, 0 for none to wait for. `count`: texts of a stream.
    """
    command = [sys.executable, "-m", __name__, str(crowd), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


# --- in the process ---------------------------------------------------------------------------------------------------


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _line(name: str, data: object) -> bytes:
    return json.dumps({"event": name, "data": data}, ensure_ascii=False).encode() + b"\n\n"


class _Crowd:
    """Streams that go on when all are there, turn by turn."""

    def __init__(self, size: int, count: int) -> None:
        self._size, self._count = size, count
        self._begun = 0
        self._complete = asyncio.Event()
        if not size:
            self._complete.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        question = json.loads(await reader.readexactly(int(length.partition(b":")[2])))["question"]
        number = int(question)
        name = fault(number)
        if name is None or FAULTS[name].begun:
            await self._stream(writer, number)
        if name is None:
            writer.write(LAST)
        elif name == "status 500":
            writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno")
        elif name == "a page":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
        elif name == "no text":
            writer.write(HEAD + _chunk(_line("other", 1)) + LAST)
        elif name == "no event":
            writer.write(_chunk(b"nothing\n") + LAST)
        else:
            if name == "cut within a line":
                writer.write(_chunk(_line("text", "lost")[:-9]))
            await writer.drain()
            if name == "reset":
                peer: socket.socket = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            return False
        await writer.drain()
        return True

    async def _stream(self, writer: asyncio.StreamWriter, number: int) -> None:
        said = [_chunk(_line("text", text)) for text in texts(number, self._count)[: given(number, self._count)]]
        writer.write(HEAD)
        for turn in range(0, len(said), TURN_TEXTS):
            writer.write(b"".join(said[turn : turn + TURN_TEXTS]))
            await writer.drain()
            if turn == 0:
                self._begun += 1
                if self._begun >= self._size:
                    self._complete.set()
                await self._complete.wait()
            await asyncio.sleep(0)  # the others' turn


async def _serve(crowd: str, count: str) -> None:
    waiting = sum(1 for number in range(int(crowd)) if (name := fault(number)) is None or FAULTS[name].begun)
    server = await asyncio.start_server(_Crowd(waiting, int(count)).connected, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
