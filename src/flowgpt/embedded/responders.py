"""What answers: a responder is an async generator function from a request to texts.

`mirror` is built in and has no model; `Upstream` asks any OpenAI-compatible server. Nothing here knows FlowGPT's wire.
A responder fails by raising FlowGPTError: before its first text the client gets a status, after it a cut stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..addresses import Secret
from ..errors import (
    APIConnectionError,
    APIStatusError,
    FlowGPTError,
    InvalidRequestError,
    ProtocolError,
    StreamInterruptedError,
)
from ..formats import sse
from ..protocol.request import ChatRequest

if TYPE_CHECKING:
    import aiohttp

Responder = Callable[[ChatRequest], AsyncGenerator[str, None]]

PIECE = re.compile(r"\S{1,64}\s{0,64}|\s{1,64}")
"""A word with the space after it; bounded, so that no line of the stream is long."""

CONNECT_S = 10.0
SILENCE_S = 300.0
"""How long an upstream may say nothing: a model that is loaded from a slow disk takes minutes to its first token."""

WATCH_S = 0.5
"""How often a silent upstream's connection is looked at."""

LIMIT_ERROR_BYTES = 64 * 1024
LIMIT_SHOWN = 200
"""How many characters of an upstream's own words an error repeats."""


async def mirror(request: ChatRequest) -> AsyncGenerator[str, None]:
    """Says that this is the embedded server, and what it received. The same request gives the same words."""
    for piece in PIECE.findall(reflection(request)):
        yield piece


def reflection(request: ChatRequest) -> str:
    """The whole text of `mirror`."""
    prompt = request.prompt
    turns = len(prompt.history)
    return (
        "This is flowgpt's embedded server on your own machine. No model answers here; "
        "this is what it received:\n"
        f"model: {request.model}\n"
        f"temperature: {request.temperature:g}\n"
        f"system prompt: {prompt.system or '(none)'}\n"
        f"earlier turns: {turns}\n"
        f"question: {prompt.question}\n"
    )


class Upstream:
    """Answers from an OpenAI-compatible server, such as Ollama, llama.cpp or vLLM.

    `base_url`: what stands before `/chat/completions`, as `http://127.0.0.1:11434/v1`. `model`: the upstream's own name
    for it; None: the one that was asked for. Raises: InvalidRequestError for a bad address or key.
    """

    def __init__(self, base_url: str, model: str | None = None, api_key: str | None = None) -> None:
        self.base_url = ""
        self.model = model
        self._api_key = api_key
        if not _is_address(base_url):
            del base_url  # no traceback shows the credentials in it
            raise InvalidRequestError(
                "the upstream must be an http or https address without credentials or query",
                hint="as in http://127.0.0.1:11434/v1",
            )
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            del api_key
            raise InvalidRequestError("the upstream's key has characters that no header may have")
        self.base_url = base_url.rstrip("/")

    def __repr__(self) -> str:
        return f"<Upstream {self.base_url}, model={self.model!r}{', with a key' if self._api_key else ''}>"

    async def __call__(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        """The upstream's answer as it comes.

        Raises: APIConnectionError, APIStatusError, ProtocolError; StreamInterruptedError when it ends unfinished.
        """
        import aiohttp  # only those who have an upstream pay for it
        from aiohttp.http_exceptions import HttpProcessingError

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.post(
                    f"{self.base_url}/chat/completions",
                    json=self._body(request),
                    headers=self._headers(),
                    allow_redirects=False,
                ) as response,
            ):
                await self._check(response)
                async with contextlib.aclosing(self._texts(response)) as texts:
                    async for text in texts:
                        yield text
            return
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            failure = self._translated(error)
        raise failure  # out here, where the original, whose traceback shows the key, is no longer its context

    def _translated(self, error: Exception) -> FlowGPTError:
        import aiohttp
        from aiohttp.http_exceptions import HttpProcessingError

        if isinstance(error, TimeoutError):
            return APIConnectionError(f"the upstream {self.base_url} does not answer")
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error.strerror or "connection failed"
            return APIConnectionError(f"cannot reach the upstream {self.base_url}: {cause}")
        if isinstance(error, aiohttp.ClientPayloadError | HttpProcessingError | ConnectionError):
            return StreamInterruptedError(f"the upstream {self.base_url} broke off its answer")
        return APIConnectionError(f"the upstream {self.base_url} failed: {type(error).__name__}")

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self._api_key:
            headers["Authorization"] = Secret("Bearer " + self._api_key)  # aiohttp's frames hold it
        return headers

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        prompt = request.prompt
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages += [{"role": turn.role, "content": turn.content} for turn in prompt.history]
        messages.append({"role": "user", "content": prompt.question})
        return {
            "model": self.model or request.model,
            "messages": messages,
            "temperature": request.temperature,
            "stream": True,
        }

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises: APIStatusError, ProtocolError for an answer that is no stream."""
        if response.status != 200:
            words = self._words(await response.content.read(LIMIT_ERROR_BYTES))
            raise APIStatusError(
                f"the upstream {self.base_url} answered {response.status}{words}", status_code=response.status
            )
        if response.content_type != "text/event-stream":
            raise ProtocolError(
                f"the upstream {self.base_url} answered {self._shown(response.content_type)}, not an event stream",
                code="not_a_stream",
            )

    async def _texts(self, response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
        decoder = sse.Decoder()
        finished = False
        while data := await self._read(response):
            for event in decoder.feed(data):
                if event.data == "[DONE]":
                    return
                text, reason = self._delta(event.data)
                finished = finished or reason
                if text:
                    yield text
        if not finished:
            raise StreamInterruptedError(f"the upstream {self.base_url} ended its answer without finishing it")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """What has arrived; b"" at the proper end. aiohttp tells nobody of a bad chunk: the closed connection does."""
        while True:
            try:
                async with asyncio.timeout(WATCH_S):
                    return await response.content.readany()
            except TimeoutError as error:
                if type(error) is not TimeoutError:
                    raise  # aiohttp's own: SILENCE_S is over
            if response.connection is None or response.connection.closed:
                raise StreamInterruptedError(f"the upstream {self.base_url} broke off its answer")

    def _delta(self, data: str) -> tuple[str, bool]:
        """The text of one chunk, and whether it says that the answer is finished. Raises: ProtocolError."""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, Mapping):
            raise ProtocolError(f"the upstream {self.base_url} sent an event that is no JSON object")
        if chunk.get("error"):
            raise ProtocolError(f"the upstream {self.base_url} failed{self._words(data.encode(errors='replace'))}")
        match chunk.get("choices"):
            case [{"delta": {"content": str(text)}, **choice}, *_]:
                return text, choice.get("finish_reason") is not None
            case [{**choice}, *_]:
                return "", choice.get("finish_reason") is not None
            case _:  # the chunk with the usage has no choice
                return "", False

    def _words(self, body: bytes) -> str:
        """What a failing upstream says, as the end of a sentence; nothing when it is no JSON."""
        try:
            error = json.loads(body)["error"]
            words = error["message"] if isinstance(error, Mapping) else error
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        return f": {self._shown(words)}" if isinstance(words, str) and words else ""

    def _shown(self, words: str) -> str:
        if self._api_key:
            words = words.replace(self._api_key, "***")
        return ascii(words[:LIMIT_SHOWN])[1:-1] + ("…" if len(words) > LIMIT_SHOWN else "")


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(whole) and base_url.isprintable() and not (parts.query or parts.fragment or "@" in parts.netloc)
