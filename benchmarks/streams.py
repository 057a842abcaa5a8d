"""Many streams at once in one process: every text in its place, and the memory that an open stream takes.

Each reader is a process of its own (`python -m benchmarks.streams`), so that its peak is this measurement's alone.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from flowgpt import FlowGpt
from flowgpt.messages import Messages

from . import plain
from .figures import WrongResult, expect, verdict
from .upstream import Upstream, texts

STREAMS, TEXTS = 2_000, 64
PATIENCE_S = 120
RSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""What getrusage counts the resident memory in."""


def run() -> None:
    """Print the figures. Raises: WrongResult."""
    print(f"Streams: {STREAMS:,} at once in one process, {TEXTS} texts each; none ends before all are open")
    for name, target in (("flowgpt", 64.0), ("plain", None)):
        with Upstream("crowd", STREAMS, TEXTS) as upstream:
            command = [sys.executable, "-m", __name__, name, upstream.origin]
            ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False)
        if ended.returncode:
            raise WrongResult(f"streams, {name}: the reading process failed")
        found = json.loads(ended.stdout)
        expect(found["wrong"], [], f"streams, {name}: texts lost, doubled or out of order in {found['wrong'][:10]}")
        verdict(f"{name}, memory", [found["kib"]], "KiB a stream", ("≤", target) if target else None)
        verdict(f"{name}, CPU", [found["us"]], "µs a text", None)


# --- in the process ----------------------------------------------------------------------------------------------


async def _ours(origin: str, question: str) -> list[str]:
    messages: Messages = [{"role": "user", "content": question}]
    return [text async for text in FlowGpt.create_async_generator(messages=messages, base_url=origin)]


def _peak_bytes() -> int:
    """The peak of this program. getrusage's also counts what stood in this process before it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_BYTES


async def _read_all(name: str, origin: str) -> dict[str, object]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(question: str) -> list[str]:
            return await (_ours(origin, question) if name == "flowgpt" else plain.ask(session, origin, question))

        async def is_wrong(stream: int) -> bool:
            return await ask(str(stream)) != list(texts(stream, TEXTS))

        await ask("warm up")  # the idle process has its HTTP client loaded
        idle_bytes, started_s = _peak_bytes(), time.process_time()
        wrong = await asyncio.gather(*map(is_wrong, range(STREAMS)))
        spent_s = time.process_time() - started_s
    return {
        "wrong": [stream for stream, is_so in enumerate(wrong) if is_so],
        "kib": (_peak_bytes() - idle_bytes) / STREAMS / 1024,
        "us": spent_s / STREAMS / TEXTS * 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_read_all(*sys.argv[1:]))))
