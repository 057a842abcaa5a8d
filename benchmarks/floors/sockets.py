"""The bare socket: no event loop but epoll, no HTTP, nothing decoded. It reads, and looks at each line."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

from .request import http

READ_BYTES = 256 * 1024
"""As much as asyncio asks a socket for."""


def serve(origin: str) -> None:
    """Do as the lines of stdin say (clients.py), all streams at once."""
    for line in sys.stdin:
        count, streams, _, question = json.loads(line)
        print(json.dumps(_measure(origin, count, streams, question)), flush=True)


def _measure(origin: str, count: int, streams: int, question: str) -> dict[str, float]:
    host, _, port = origin.removeprefix("http://").partition(":")
    began_s = flows_s = time.process_time()
    asked_s, first_us = time.perf_counter(), 0.0
    rests: dict[socket.socket, bytes] = {}
    found: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            connection = socket.create_connection((host, int(port)))
            connection.sendall(http(origin, question))
            selector.register(connection, selectors.EVENT_READ, connection)
            rests[connection] = b""
        while rests:
            for key, _ in selector.select():
                connection = key.data
                lines = (rests[connection] + connection.recv(READ_BYTES)).split(b"\n")
                rests[connection] = lines.pop()
                texts = 0
                for line in lines:
                    if line[:1] == b"{":
                        texts += 1
                if texts and connection not in found:
                    found[connection] = 0
                    first_us = first_us or (time.perf_counter() - asked_s) * 1e6
                    if len(found) == streams:
                        flows_s = time.process_time()
                found[connection] = found.get(connection, 0) + texts
                if found[connection] == count:
                    selector.unregister(connection)
                    del rests[connection]
                    connection.close()
    ended_s = time.process_time()
    return {
        "wrong": sum(texts != count for texts in found.values()),
        "texts": streams * count,
        "cpu_s": ended_s - began_s,
        "flow_cpu_s": ended_s - flows_s,
        "first_us": first_us,
    }
