"""CPU per text of a long reply, each text an HTTP chunk, many of them in one read: from the socket to the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from flowgpt import FlowGpt
from flowgpt.messages import Messages

from . import plain
from .figures import expect, in_turn, ratio, show
from .upstream import Upstream, texts

COUNT = 50_000


def run() -> None:
    """Print the comparison. Raises: WrongResult."""
    print(f"Delivery: replies of {COUNT:,} texts, each its own HTTP chunk")
    expected = list(texts(0, COUNT))
    with asyncio.Runner() as runner, Upstream("replay", COUNT) as upstream:

        async def ours() -> list[str]:
            messages: Messages = [{"role": "user", "content": "?"}]
            return [text async for text in FlowGpt.create_async_generator(messages=messages, base_url=upstream.origin)]

        async def plainly() -> list[str]:
            async with aiohttp.ClientSession() as session:
                return await plain.ask(session, upstream.origin, "?")

        def read(ask: Callable[[], Coroutine[Any, Any, list[str]]]) -> float:
            started_s = time.process_time()
            found = runner.run(ask())
            spent_s = time.process_time() - started_s
            expect(found, expected, f"delivery, {ask.__name__}: the texts are not those that were sent")
            return spent_s / COUNT * 1e6

        def bare() -> float:
            started_s, found = time.process_time(), 0
            for lines in plain.split_lines(upstream.origin):
                for line in lines:
                    if line[:1] == b"{":
                        found += 1
            spent_s = time.process_time() - started_s
            expect(found, COUNT, "delivery, bare socket: lines are missing")
            return spent_s / COUNT * 1e6

        def split() -> float:
            started_s, found = time.process_time(), 0
            for lines in plain.split_lines(upstream.origin):
                found += len(lines)
            spent_s = time.process_time() - started_s
            expect(found, 4 * COUNT + 6, "delivery, split alone: lines are missing")  # 4 a chunk; the head, the end
            return spent_s / COUNT * 1e6

        samples = in_turn({"ours": lambda: read(ours), "plain": lambda: read(plainly), "bare": bare, "split": split})
        show("flowgpt", samples["ours"], "µs a text")
        show("plain aiohttp and json", samples["plain"], "µs a text")
        show("bare socket, each line", samples["bare"], "µs a text")
        show("bare socket, split alone", samples["split"], "µs a text")
        ratio("flowgpt ÷ plain", samples["ours"], samples["plain"], ("≤", 0.5))
        ratio("flowgpt ÷ each line", samples["ours"], samples["bare"], ("≤", 7))
        ratio("flowgpt ÷ split alone", samples["ours"], samples["split"], ("≤", 7))
