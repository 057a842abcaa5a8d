"""The clients among the peers: `python -m benchmarks.peers.programs.client NAME ORIGIN`, in a peer's environment.

Each is used as its documentation says, one client for all questions if it has clients. Those that know no FlowGPT ask
the upstream for OpenAI's events, with the same texts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator

from benchmarks.clients import Ask, serve

MODEL = "gpt-3.5-turbo"
LINES = "/v3/chat-anonymous"


def openai(origin: str) -> Ask:
    """OpenAI's SDK."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{origin}/v1", api_key="none", max_retries=0)

    async def ask(question: str) -> AsyncGenerator[str, None]:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], stream=True
        )
        async with stream:
            async for chunk in stream:
                if text := chunk.choices[0].delta.content:
                    yield text

    return ask


def litellm(origin: str) -> Ask:
    """LiteLLM's SDK."""
    from litellm import acompletion

    async def ask(question: str) -> AsyncGenerator[str, None]:
        stream = await acompletion(
            model=f"openai/{MODEL}",
            messages=[{"role": "user", "content": question}],
            api_base=f"{origin}/v1",
            api_key="none",
            stream=True,
            num_retries=0,
        )
        async for chunk in stream:
            if text := chunk.choices[0].delta.content:
                yield text

    return ask


def g4f(origin: str) -> Ask:
    """g4f's own provider for OpenAI's protocol."""
    from g4f.Provider import Custom

    async def ask(question: str) -> AsyncGenerator[str, None]:
        lost = " "  # it takes off the space before the first text
        reply = Custom.create_async_generator(
            MODEL,
            [{"role": "user", "content": question}],
            base_url=f"{origin}/v1",
            api_key="none",
            stream=True,
            yield_request=False,
        )
        async for part in reply:
            if isinstance(part, str):  # other parts are other facts: a reason to end, usage
                yield lost + part
                lost = ""

    return ask


def g4f_lines(origin: str) -> Ask:
    """FlowGPT's lines as a provider for g4f would read them: its session, a new one for each question, line by line."""
    from g4f.requests import StreamSession

    async def ask(question: str) -> AsyncGenerator[str, None]:
        async with StreamSession() as session, session.post(f"{origin}{LINES}", json={"question": question}) as reply:
            async for line in reply.iter_lines():
                if line.strip():
                    event = json.loads(line)
                    if event["event"] == "text":
                        yield event["data"]

    return ask


def httpx(origin: str) -> Ask:
    """FlowGPT's lines by httpx."""
    from httpx import AsyncClient, Limits

    unlimited = Limits(max_connections=None, max_keepalive_connections=None)
    client = AsyncClient(base_url=origin, timeout=None, limits=unlimited)

    async def ask(question: str) -> AsyncGenerator[str, None]:
        async with client.stream("POST", LINES, json={"question": question}) as reply:
            async for line in reply.aiter_lines():
                if line:
                    event = json.loads(line)
                    if event["event"] == "text":
                        yield event["data"]

    return ask


CLIENTS = {"openai": openai, "litellm": litellm, "g4f": g4f, "g4f-lines": g4f_lines, "httpx": httpx}

if __name__ == "__main__":
    name, origin = sys.argv[1:]
    serve(CLIENTS[name](origin))
