"""What one writes first: Starlette, httpx to the upstream, json, a write for each text.

`python -m benchmarks.peers.programs.starlette_app PORT ORIGIN`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None))
origin = ""


async def events(question: str) -> AsyncGenerator[str, None]:
    """The answer."""
    async with client.stream("POST", f"{origin}/v3/chat-anonymous", json={"question": question}) as reply:
        async for line in reply.aiter_lines():
            if line:
                event = json.loads(line)
                if event["event"] == "text":
                    delta = {"index": 0, "delta": {"content": event["data"]}, "finish_reason": None}
                    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "choices": [delta]}
                    yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


async def chat(request: Request) -> StreamingResponse:
    """A streamed chat completion."""
    asked = await request.json()
    return StreamingResponse(events(asked["messages"][-1]["content"]), media_type="text/event-stream")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])

if __name__ == "__main__":
    origin = sys.argv[2]
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, timeout_graceful_shutdown=1)
