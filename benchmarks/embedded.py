"""The embedded server: the CPU that an answer and a text of it cost, beside an echo of thirty lines.

It refuses what was sent before, so each question is signed anew, in this process; only the server's CPU counts.
"""

from __future__ import annotations

import functools
import socket
import sys
from contextlib import ExitStack

from .figures import Table, expect
from .floors.request import http
from .native import Served

OURS, FLOOR = "flowgpt embedded", "floor: ASGI echo"
COMMANDS = {
    OURS: [sys.executable, "-m", "flowgpt", "embedded", "--port", "{port}"],
    FLOOR: [sys.executable, "-m", "benchmarks.floors.lines", "{port}"],
}
WORDS = {20: 50, 5_020: 4}
"""Words of a question, each of which comes back as a text, and how often it is asked."""


def ask(served: Served, words: int) -> None:
    """One question over a connection of its own, to the end of the answer."""
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(http(served.origin, "~ " * words))
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += connection.recv(65536)
    expect(answer.count(b"~"), words, f"words that {served.origin} said back")


def run() -> list[Table]:
    """Raises: WrongResult."""
    table = Table("CPU of the server")
    with ExitStack() as stack:

        def sample(served: Served) -> dict[str, float]:
            costs = []
            for words, replies in WORDS.items():
                before_s = served.cpu_s()
                for _ in range(replies):
                    ask(served, words)
                costs.append((served.cpu_s() - before_s) / replies * 1e6)
            few, many = WORDS
            return {"an answer to 20 words, µs": costs[0], "a text, µs": (costs[1] - costs[0]) / (many - few)}

        servers = {name: stack.enter_context(Served(command)) for name, command in COMMANDS.items()}
        table.measure({name: functools.partial(sample, served) for name, served in servers.items()})
    for column in table.columns:
        table.ratio(column, OURS, FLOOR)
    table.notes.append("An answer has some thirty texts more than the question: the mirror says what it received.")
    return [table]
