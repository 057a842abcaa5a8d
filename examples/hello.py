"""One question, its answer text by text: over real HTTP, from the embedded server on this machine."""

import asyncio

from flowgpt import FlowGpt
from flowgpt.embedded import Server


async def main(base_url: str) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    async for text in FlowGpt.create_async_generator(messages=messages, base_url=base_url):
        print(text, end="", flush=True)


with Server() as server:
    asyncio.run(main(server.base_url))
