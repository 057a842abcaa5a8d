"""Short replies one after the other: how many a second of CPU, against plain code with a new session for each."""

from __future__ import annotations

import asyncio
import functools
import time

import aiohttp

from flowgpt import FlowGpt
from flowgpt.messages import Messages

from . import plain
from .figures import expect, in_turn, ratio, show
from .upstream import Upstream, texts

COUNT = 50
ROUNDS = 25
"""Many short rounds: what a connection costs depends on what else the machine does at that moment."""


def run() -> None:
    """Print the comparison for replies of one sentence and of three. Raises: WrongResult."""
    for count in (20, 50):
        _compare(count)


def _compare(length: int) -> None:
    print(f"Replies: {COUNT} in a row, of {length} texts each")
    expected = list(texts(0, length))
    with asyncio.Runner() as runner, Upstream("replay", length) as upstream:

        async def ours() -> list[str]:
            messages: Messages = [{"role": "user", "content": "?"}]
            return [text async for text in FlowGpt.create_async_generator(messages=messages, base_url=upstream.origin)]

        async def plainly() -> list[str]:
            async with aiohttp.ClientSession() as session:
                return await plain.ask(session, upstream.origin, "?")

        async def one_session() -> list[list[str]]:
            async with aiohttp.ClientSession() as session:
                return [await plain.ask(session, upstream.origin, "?") for _ in range(COUNT)]

        async def repeated(name: str) -> list[list[str]]:
            if name == "one session":
                return await one_session()
            return [await (ours() if name == "ours" else plainly()) for _ in range(COUNT)]

        def sample(name: str) -> float:
            started_s = time.process_time()
            found = runner.run(repeated(name))
            spent_s = time.process_time() - started_s
            expect(found, [expected] * COUNT, f"replies, {name}: the texts are not those that were sent")
            return COUNT / spent_s

        names = ("ours", "session each", "one session")
        samples = in_turn({name: functools.partial(sample, name) for name in names}, rounds=ROUNDS)
        show("flowgpt", samples["ours"], "replies a CPU second")
        show("plain, a session each", samples["session each"], "replies a CPU second")
        show("plain, one session", samples["one session"], "replies a CPU second")
        ratio("flowgpt ÷ a session each", samples["ours"], samples["session each"], ("≥", 2))
        ratio("flowgpt ÷ one session", samples["ours"], samples["one session"])
