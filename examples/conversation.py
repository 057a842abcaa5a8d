"""A conversation with a system prompt and a history, and the full form of a reply: its verdict and its figures."""

import asyncio

from flowgpt import FlowGpt
from flowgpt.embedded import Server


async def main(base_url: str) -> None:
    messages = [
        {"role": "system", "content": "You are a friendly and informative chatbot."},
        {"role": "user", "content": "Name a river."},
    ]
    answer = await FlowGpt.create_async("gemini", messages, base_url=base_url)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And a longer one?"}]
    async with FlowGpt.stream("gemini", messages, temperature=0.2, base_url=base_url) as reply:
        async for text in reply:
            print(text, end="", flush=True)
    print(f"\n{reply.model}: {reply.verdict}, {reply.attempts} attempt, {len(reply.text)} characters")


with Server() as server:
    asyncio.run(main(server.base_url))
