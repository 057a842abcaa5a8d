"""How many bytecode instructions of ours the hot paths take, against committed figures: `make check` runs it.

No seconds: the same code gives the same counts on every machine. Only flowgpt's own frames are counted, so neither a
library nor the event loop's mood is in the figures; what C does within one instruction is not seen either (the room
`instructions` sees that). Figures differ between versions of Python: each has its own column.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import msgspec

import flowgpt
from flowgpt import FlowGpt
from flowgpt.formats.openai.chat_request import ChatRequest
from flowgpt.formats.openai.chunks import ChatEncoder
from flowgpt.formats.pieces import End, Facts
from flowgpt.gateway import Gateway, create_app
from flowgpt.gateway.auth import digest, new_key
from flowgpt.messages import Event
from flowgpt.protocol.events import Decoder, encode
from flowgpt.store import Store

MODEL = "gpt-3.5-turbo"
TEXTS = 1_000
WITHIN = 0.10

OURS = str(Path(flowgpt.__file__).parent)


def counted(run: Callable[[], object]) -> int:
    """How many instructions of flowgpt's own code `run` executes in this thread."""
    count = 0

    def frame_begins(frame: FrameType, _event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    def step(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return step

    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for the wish when tracing begins, and not later
    sys.settrace(frame_begins)
    try:
        run()
        count = 0  # Python 3.13 instruments what runs when the wish is told for its next run
        run()
    finally:
        sys.settrace(None)
    return count


def decoder() -> int:
    """The decoder, in one read."""
    data = b"".join(encode(Event("text", f"text {number}")) for number in range(TEXTS))

    def run() -> None:
        assert len(Decoder().feed(data).texts) == TEXTS

    return counted(run)


def sse_encoder() -> int:
    """The encoder of a streamed chat completion, in batches of ten texts."""
    facts = Facts(new_id=lambda prefix: f"{prefix}1", created=1, model=MODEL, prompt_characters=1)
    request = msgspec.convert({"model": MODEL, "messages": [{"role": "user", "content": "?"}]}, ChatRequest)
    batch = [f"text {number}" for number in range(10)]

    def run() -> None:
        encoder = ChatEncoder(facts, request)
        written = [encoder.start(), *(encoder.pieces(batch) for _ in range(TEXTS // 10))]
        written += [encoder.pieces([End()]), encoder.end()]
        assert b"".join(written).count(b'"content":"text') == TEXTS

    return counted(run)


@contextmanager
def answering() -> Iterator[str]:
    """The origin of a server that gives each request of one connection twenty texts, in one write."""
    chunks = [encode(Event("text", f"text {number}")) for number in range(20)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):  # a request of this size comes in one piece
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def reply() -> int:
    """One library reply: sent, read text by text from a socket, and ended with its verdict."""
    with answering() as origin, asyncio.Runner() as runner:

        async def ask() -> None:
            reply = FlowGpt.stream(messages=[{"role": "user", "content": "?"}], base_url=origin)
            assert len([text async for text in reply]) == 20
            assert reply.verdict == "complete"

        return counted(lambda: runner.run(ask()))


def gateway() -> int:
    """One streamed chat of the gateway: a key asked for, limits, metrics; no log, which is the command's."""
    key = new_key()
    headers = {"host": "localhost", "content-type": "application/json", "authorization": f"Bearer {key}"}
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}
    scope |= {"scheme": "http", "client": None}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
    body = msgspec.json.encode({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "?"}]})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    with answering() as origin, asyncio.Runner() as runner, contextlib.closing(Store()) as store:
        store.add_key("counts", digest(key), 0.0)

        async def start() -> Gateway:
            return create_app(base_url=origin, store=store)

        app = runner.run(start())

        async def ask() -> None:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            await app(scope, receive, send)
            assert sent[0]["status"] == 200
            written = b"".join(message["body"] for message in sent[1:])
            assert written.count(b'"content":"text') == 20
            assert written.endswith(b"data: [DONE]\n\n")

        return counted(lambda: runner.run(ask()))


PATHS: dict[str, tuple[Callable[[], int], dict[tuple[int, int], int]]] = {
    "decoder, 1,000 texts": (decoder, {(3, 11): 15_239, (3, 12): 15_214, (3, 13): 15_219}),
    "SSE encoder, 1,000 texts": (sse_encoder, {(3, 11): 6_701, (3, 12): 6_028, (3, 13): 5_925}),
    "library reply, 20 texts": (reply, {(3, 11): 3_859, (3, 12): 3_567, (3, 13): 3_639}),
    "gateway stream, 20 texts": (gateway, {(3, 11): 8_005, (3, 12): 7_271, (3, 13): 7_367}),
}
"""Each path, and what it took when it was last looked at, by version of Python. A count that leaves that by more than
WITHIN, up or down, fails: then say in the commit why, and write the new figure down here."""


def main() -> int:
    """Print and compare. Returns the exit code."""
    for name in list(os.environ):
        if name.startswith("FLOWGPT_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    version, failed = sys.version_info[:2], False
    for name, (path, figures) in PATHS.items():
        with TemporaryDirectory() as home:
            os.environ["FLOWGPT_HOME"] = home
            count = path()
        committed = figures.get(version)
        far = committed is not None and abs(count - committed) > WITHIN * committed
        failed |= far
        against = "no figure for this Python" if committed is None else f"committed {committed:,}"
        print(f"counts: {name}: {count:,} instructions, {against}{': TOO FAR' if far else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
