"""Hours in small: good, failing, cancelled and abandoned streams again and again, and whether anything grows.

Round after round through the library and through a gateway process. After each round nothing is under way, so that
memory and descriptors can be compared: the last quarter of the rounds must look like the second.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time

import aiohttp

from flowgpt import FlowGpt, FlowGPTError

from . import gateway, upstream

COUNT = 40
ROUND_STREAMS = 400
GROWTH = 1.03
"""How much more memory the last quarter may have than the second: an allocator breathes."""


def run(seconds: float) -> bool:
    """Print a line for each tenth of the time. Returns whether memory and descriptors stayed flat."""
    print(f"soak: {seconds:.0f} s, rounds of {ROUND_STREAMS} streams of {COUNT} texts, library and gateway")
    with upstream.running(0, COUNT) as origin, gateway.running(origin) as (process, base_url):
        return asyncio.run(_rounds(origin, base_url, process, seconds))


async def _rounds(origin: str, base_url: str, process: int, seconds: float) -> bool:
    samples: list[tuple[int, int, int, int]] = []
    started_s = shown_s = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        while (now_s := time.monotonic()) < started_s + seconds or len(samples) < 8:
            numbers = range(len(samples) * ROUND_STREAMS, (len(samples) + 1) * ROUND_STREAMS)
            await asyncio.gather(*(_library(origin, number) for number in numbers))
            await asyncio.gather(*(_gateway(session, base_url, number) for number in numbers))
            gc.collect()
            samples.append(
                (
                    gateway.memory_bytes(None),
                    gateway.descriptors(None),
                    gateway.memory_bytes(process),
                    gateway.descriptors(process),
                )
            )
            if now_s >= shown_s:
                shown_s += seconds / 10
                mine, my_files, its, its_files = samples[-1]
                print(
                    f"  {now_s - started_s:6.0f} s, {len(samples) * ROUND_STREAMS * 2:>9,} streams:"
                    f" library {mine / 2**20:6.1f} MiB, {my_files:4} descriptors;"
                    f" gateway {its / 2**20:6.1f} MiB, {its_files:4} descriptors",
                    flush=True,
                )
    quarter = len(samples) // 4
    flat = True
    for column, name in enumerate(("library, bytes", "library, descriptors", "gateway, bytes", "gateway, descriptors")):
        second, last = (
            statistics.median(sample[column] for sample in part)
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        grown = last > second * GROWTH + (0 if "bytes" in name else 8)  # some idle connections more or less
        flat = flat and not grown
        print(f"  {name}: {second:,.0f} → {last:,.0f}{'  GROWS' if grown else ''}")
    return flat


async def _library(origin: str, number: int) -> None:
    """One stream: read whole, left after some texts, cancelled, or dropped unread, as its number says."""
    messages = [{"role": "user", "content": str(number)}]
    reply = FlowGpt.stream(messages=messages, base_url=origin, max_retries=0)
    way = number % 7
    if way == 1:
        return
    try:
        if way == 2:
            async for _ in reply:
                break
        elif way == 3:
            task = asyncio.create_task(reply.read())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            await reply.read()
    except FlowGPTError as error:
        name = upstream.fault(number)
        # on a connection that was used before, an end before the head is that of an idle one
        if name is None or error.code not in (upstream.FAULTS[name].code, "connection_closed_idle"):
            raise


async def _gateway(session: aiohttp.ClientSession, base_url: str, number: int) -> None:
    """One request: streamed or whole, and now and then left early."""
    asked = {"model": "", "stream": number % 2 == 0, "messages": [{"role": "user", "content": str(number)}]}
    async with session.post(f"{base_url}/chat/completions", json=asked) as response:
        if number % 7 == 2:
            await response.content.readany()
            response.close()
            return
        body = await response.read()
    whole = response.status == 200 and (b"[DONE]" in body or not asked["stream"])
    assert whole == (upstream.fault(number) is None), (number, response.status, body[-300:])
