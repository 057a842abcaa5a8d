"""Programs that ask, each in a process of its own: `python clients.py VARIANT ORIGIN`, or a peer's that calls `serve`.

A line of stdin is [texts, streams, together, question]: ask so many times for so many texts, one after the other or all
at once, and print what native.Told reads. With texts 0, the streams are kept open after their first text until the
next line. Only the standard library is imported before a variant says otherwise: peers run this by their interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

GROUP = 100

Ask = Callable[[str], AsyncGenerator[str, None]]
"""Asks a question, and gives the texts one by one."""

PIECES = (" the", " light", "ción", " über", ", ", "\n", ' "so" ', " …")


def texts(count: int) -> list[str]:
    """The texts of every stream, in order; `~` is in each of them once, and in nothing else that travels."""
    return [f"{PIECES[number % len(PIECES)]}~{number}" for number in range(count)]


class Crowd:
    """Streams that are asked together, and the CPU seconds at which the last of them had its first text."""

    def __init__(self, ask: Ask, size: int) -> None:
        self._ask, self._missing = ask, size
        self.flows_s = 0.0
        self.first_us: list[float] = []
        self.open = asyncio.Event()

    async def read(self, question: str) -> list[str]:
        """One whole reply."""
        asked_s = time.perf_counter()
        async with contextlib.aclosing(self._ask(question)) as reply:
            found = [await anext(reply)]
            self.first_us.append((time.perf_counter() - asked_s) * 1e6)
            self._missing -= 1
            if not self._missing:
                self.flows_s = time.process_time()
                self.open.set()
            async for text in reply:
                found.append(text)  # noqa: PERF401 (a comprehension is quicker, and no caller streams by one)
        return found


async def measure(ask: Ask, count: int, streams: int, together: bool, question: str) -> dict[str, float]:
    """What native.Told says."""
    crowd = Crowd(ask, streams)
    began_s = time.process_time()
    if together:
        replies = await asyncio.gather(*(crowd.read(question) for _ in range(streams)))
    else:
        replies = [await crowd.read(question) for _ in range(streams)]
    ended_s = time.process_time()
    expected = "".join(texts(count))  # a program may join texts that came together
    return {
        "wrong": sum("".join(reply) != expected for reply in replies),
        "texts": streams * count,
        "cpu_s": ended_s - began_s,
        "flow_cpu_s": ended_s - crowd.flows_s,
        "first_us": statistics.median(crowd.first_us),
    }


async def hold(ask: Ask, streams: int, question: str) -> None:
    """Keep streams open until the next line; both are answered by a line. Opened GROUP by GROUP, as servers.py does."""
    tasks = []
    for begun in range(0, streams, GROUP):
        crowd = Crowd(ask, min(GROUP, streams - begun))
        tasks += [asyncio.create_task(crowd.read(question)) for _ in range(min(GROUP, streams - begun))]
        await crowd.open.wait()
    print("{}", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    print("{}", flush=True)


def serve(ask: Ask) -> None:
    """Do as the lines say."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            count, streams, together, question = json.loads(line)
            if count:
                print(json.dumps(runner.run(measure(ask, count, streams, together, question))), flush=True)
            else:
                runner.run(hold(ask, streams, question))
        os._exit(0)  # a floor closes nothing, and aiohttp would say so


def flowgpt(origin: str) -> Ask:
    """The library through its whole interface."""
    from flowgpt import FlowGpt

    return lambda question: FlowGpt.create_async_generator(
        messages=[{"role": "user", "content": question}], base_url=origin
    )


def main(variant: str, origin: str) -> None:
    """Be the variant."""
    from benchmarks.floors import generator, protocol, sockets

    variants: dict[str, Callable[[], Any]] = {
        "flowgpt": lambda: serve(flowgpt(origin)),
        "generator": lambda: serve(generator.asking(origin)),
        "protocol": lambda: serve(protocol.asking(origin)),
        "socket": lambda: sockets.serve(origin),
    }
    variants[variant]()


if __name__ == "__main__":
    main(*sys.argv[1:])
