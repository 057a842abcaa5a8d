"""The other side: a process that writes bytes made beforehand, in as few calls as it can, and reads requests barely.

It checks nothing and waits in `send` most of the time, so that what is measured is the reader. `Upstream` starts it.
Source of the reply's form: docs/protocol.md#response; each text is an HTTP chunk of its own.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
PIECES = (" the", " light", "ción", " über", ", ", "\n", ' "so" ', " …")


def texts(stream: int, count: int) -> Iterator[str]:
    """The texts of a stream, in order; no two of all streams are equal, so that none can be lost or stand in twice."""
    return (f"{PIECES[number % len(PIECES)]}{stream}.{number}" for number in range(count))


def chunk(text: str) -> bytes:
    """A text as its line, the blank line after it, and the chunk around both."""
    line = json.dumps({"event": "text", "data": text}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


class Upstream:
    """The process, while the block lasts. `Upstream("replay", 1000)`: every request is answered by 1000 texts.

    `Upstream("crowd", 2000, 64)`: of 2,000 streams each gets its first text, and only when all are open the other 63,
    one text to each in turn. A question there is the stream's number; other questions are answered at once.
    """

    def __init__(self, workload: str, *counts: int) -> None:
        self.origin = ""
        self._command = [sys.executable, "-m", __name__, workload, *map(str, counts)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.origin = self._process.stdout.readline().strip()
        self._started_s = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_facts: object) -> None:
        lasted_s = time.monotonic() - self._started_s
        said, _ = self._process.communicate()
        if kind is None:
            busy = float(said) / lasted_s
            print(f"  {'the upstream was busy':<26}{busy:>9.1%} of the time")


# --- in the process ----------------------------------------------------------------------------------------------


class _Crowd:
    """Streams that go on only when all are there."""

    def __init__(self, streams: int, count: int) -> None:
        self._size = streams
        self._count = count
        self._open: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def answer(self, connection: socket.socket, body: bytes) -> bool:
        question = json.loads(body)["question"]
        if not question.isdigit():
            connection.sendall(HEAD + chunk("at once") + END)
            return True
        stream = int(question)
        connection.sendall(HEAD + chunk(next(texts(stream, 1))))
        with self._lock:
            self._open[stream] = connection
            complete = len(self._open) == self._size
        if complete:
            streams = [
                (connection, list(map(chunk, texts(stream, self._count)))) for stream, connection in self._open.items()
            ]
            for number in range(1, self._count):
                for one, chunks in streams:
                    one.sendall(chunks[number])
            for one, _ in streams:
                one.sendall(END)
        return False


class _Replay:
    """The same reply to every request."""

    def __init__(self, count: int) -> None:
        self._reply = HEAD + b"".join(map(chunk, texts(0, count))) + END

    def answer(self, connection: socket.socket, _body: bytes) -> bool:
        connection.sendall(self._reply)
        return True


def _serve(connection: socket.socket, workload: _Crowd | _Replay) -> None:
    """Answer the requests of one connection, until the workload keeps it or the other side is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return connection.close()
            data += piece
        head, _, data = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *([0-9]+)", head.lower())
        assert length is not None
        while len(data) < int(length[1]):
            data += connection.recv(65536)
        if not workload.answer(connection, data):
            return None
        data = b""
        if b"connection: close" in head.lower():
            return connection.close()


def _main(kind: str, *counts: str) -> None:
    workload = {"crowd": _Crowd, "replay": _Replay}[kind](*map(int, counts))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, workload), daemon=True).start()

    started_s = time.process_time()
    threading.Thread(target=accept, daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    sys.stdin.read()  # until the one who started this closes it
    print(time.process_time() - started_s, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
