"""Streams at once, through the library and through a gateway process: each text, each ending, and the memory.

A delivered reply is exact; one that fails is an exact prefix, with the error that its fault must be.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from flowgpt import FlowGpt, FlowGPTError, Timeouts

from . import gateway, upstream

PATIENCE = Timeouts(connect_s=300, head_s=300, first_event_s=300, idle_s=300, pool_s=300)
"""Ten thousand connections on two cores take their time; no deadline is what is looked at here."""


@dataclass
class Outcome:
    """What one stream came to. `code`: the error's; `done`: whether it said that it was whole."""

    texts: list[str]
    code: str | None
    done: bool


Ask = Callable[[int], Coroutine[Any, Any, Outcome]]


def wrong(number: int, count: int, outcome: Outcome) -> str | None:
    """What is wrong with a stream's outcome, if anything."""
    name = upstream.fault(number)
    expected = upstream.texts(number, count)[: upstream.given(number, count)]
    if name == "reset":  # what a reset overtakes is lost on the way, and no reader could have it
        expected = expected[: len(outcome.texts)]
    code = upstream.FAULTS[name].code if name else None
    if outcome != Outcome(expected, code, done=name is None):
        return f"{number} ({name}): {len(outcome.texts)} of {len(expected)} texts, {outcome.code}, done={outcome.done}"
    return None


def run(surface: str, streams: int, count: int) -> bool:
    """Print the figures of one crowd. Returns whether every stream was right."""
    print(f"{surface}: {streams:,} streams at once, {count} texts each, one in {upstream.SPOILED} fails")
    with upstream.running(streams, count) as origin:
        if surface == "library":
            faults = asyncio.run(_library(origin, streams, count))
        else:
            with gateway.running(origin) as (process, base_url):
                faults = asyncio.run(_gateway(base_url, streams, count, process))
    for words in faults[:10]:
        print(f"  WRONG: {words}")
    return not faults


async def _library(origin: str, streams: int, count: int) -> list[str]:
    async def ask(number: int) -> Outcome:
        outcome = Outcome([], None, done=False)
        messages = [{"role": "user", "content": str(number)}]
        reply = FlowGpt.stream(messages=messages, base_url=origin, max_retries=0, timeout=PATIENCE)
        try:
            async for text in reply:
                outcome.texts.append(text)
        except FlowGPTError as error:
            outcome.code = error.code if error.partial_text == "".join(outcome.texts) else "other partial_text"
        outcome.done = reply.verdict == "complete"
        return outcome

    with _figures(streams, count, None):
        return await _all(ask, streams, count)


async def _gateway(base_url: str, streams: int, count: int, process: int) -> list[str]:
    async def ask(number: int) -> Outcome:
        outcome = Outcome([], None, done=False)
        asked = {"model": "", "stream": True, "messages": [{"role": "user", "content": str(number)}]}
        async with session.post(f"{base_url}/chat/completions", json=asked) as response:
            if response.status != 200:
                outcome.code = json.loads(await response.read())["error"]["code"]
                return outcome
            async for line in response.content:
                if line == b"data: [DONE]\n":
                    outcome.done = True
                elif line.startswith(b"data: "):
                    data = json.loads(line[6:])
                    if "error" in data:
                        outcome.code = data["error"]["code"]
                    elif text := data["choices"][0]["delta"].get("content"):
                        outcome.texts.append(text)
        return outcome

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        with _figures(streams, count, process):
            return await _all(ask, streams, count)


async def _all(ask: Ask, streams: int, count: int) -> list[str]:
    outcomes = await asyncio.gather(*map(ask, range(streams)))
    faults = [words for number, outcome in enumerate(outcomes) if (words := wrong(number, count, outcome))]
    endings = Counter(outcome.code or "complete" for outcome in outcomes)
    print("  " + ", ".join(f"{code} {found:,}" for code, found in sorted(endings.items())))
    return faults


@contextmanager
def _figures(streams: int, count: int, process: int | None) -> Iterator[None]:
    before, started_s = gateway.memory_bytes(process, "VmHWM"), time.monotonic()
    yield
    took_s, grown = time.monotonic() - started_s, gateway.memory_bytes(process, "VmHWM") - before
    whose = "the gateway's" if process else "this process's, with what is kept for the comparison"
    print(f"  {took_s:.1f} s, {streams * count / took_s:,.0f} texts a second; peak memory ({whose}):", end=" ")
    print(f"{grown / streams / 1024:.1f} KiB a stream over {before / 2**20:.0f} MiB")
