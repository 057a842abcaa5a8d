"""The FlowGPT-compatible server as an ASGI application: addresses, checks, and who gets which answer.

It judges requests by protocol.md and by nothing that the client knows; what the service does where that is unknown is
ours to choose, and said so in docs/protocol.md. No sockets, threads or processes here (serving.py has them).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import FlowGPTError, InvalidRequestError
from ..protocol import request as wire
from ..protocol import signing
from ..serving import TRANSPORT
from . import faults
from .exchange import Exchange
from .responders import Responder

TOLERANCE_S = 300.0
"""Ours: how far a request's clock may be from this one."""

LIMIT_NONCES = 100_000
"""How many nonces are remembered at most: about 10 MB. Beyond that the oldest may come again."""

LIMIT_REQUESTS = 1000
"""How many received requests are kept for those who look."""

CHARACTER_ID = "flowgpt-embedded-char"

CHARACTER: Mapping[str, Any] = {
    "id": CHARACTER_ID,
    "title": "The embedded guide",
    "language": "en",
    "description": "A small character that the embedded server brings along",
    "coverURL": "",
    "thumbnailURL": "",
    "type": "CHARACTER",
    "nsfw": False,
    "exampleConversation": [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "I am {{char}}, and you are {{user}}."},
    ],
    "promptTags": [["embedded", 0, "", "guide"]],
    "welcomeMessage": "Hello {{user}}, I am {{char}}.",
    "systemMessage": "You are {{char}}, a guide. Answer {{user}} in one sentence.",
    "model": "gpt-3.5-turbo",
    "temperature": 0.7,
}

RECEIVED = "flowgpt.received"

log = logging.getLogger("flowgpt.embedded")


class HeaderMap(dict[str, str]):
    """Received headers, names in lower case. They are kept as they came; `repr` masks what may be a secret."""

    SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})

    def __repr__(self) -> str:
        return repr({name: "***" if name in self.SECRETS else value for name, value in self.items()})


@dataclass(slots=True)
class Received:
    """One request as it came. `chat`: a chat request's body, decoded. `status`: what was answered, once it was."""

    method: str
    path: str
    headers: HeaderMap
    body: bytes = field(default=b"", repr=False)
    chat: wire.ChatRequest | None = None
    status: int | None = None


class Nonces:
    """The nonces that were used within the last `keep_s` seconds, at most LIMIT_NONCES of them."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._used: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used)

    def use(self, nonce: str, *, now_s: float) -> bool:
        """True when the nonce is fresh; it is not any more."""
        while self._used and (next(iter(self._used.values())) < now_s - self._keep_s or len(self) >= LIMIT_NONCES):
            self._used.popitem(last=False)
        if nonce in self._used:
            return False
        self._used[nonce] = now_s
        return True


class App:
    """The application. `pace_s`: seconds between two texts. `fault`: plays in every chat that names none itself.

    `characters`: those that there are, by id; None: the one of our own. Of each, what the service calls `prompt`.
    `requests`: the last ones, oldest first. `open_streams`: how many chats are being answered.
    Raises: InvalidRequestError for an unknown fault.
    """

    def __init__(
        self,
        responder: Responder,
        *,
        pace_s: float = 0.0,
        fault: str | None = None,
        characters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.requests: deque[Received] = deque(maxlen=LIMIT_REQUESTS)
        self.changed = threading.Condition()
        self._streams: list[asyncio.Transport] = []
        self._responder = responder
        self._pace_s = pace_s
        self._characters = {CHARACTER_ID: CHARACTER} if characters is None else characters
        self._default = Exchange.reply if fault is None else faults.named(fault)
        self._queue: deque[faults.Play] = deque()
        self._nonces = Nonces(2 * TOLERANCE_S)  # a stamp may be that far ahead, and is good for as long after
        self._routes = Starlette(
            routes=[
                Route(wire.ANONYMOUS_PATH, self._chat, methods=["POST"]),
                Route(wire.SIGNED_IN_PATH, self._chat, methods=["POST"]),
                Route(wire.PROMPT_PATH, self._prompt, methods=["GET"]),
                Route(wire.CONVERSATION_PATH, self._conversation, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _refusal, InvalidRequestError: _bad_request, Exception: _failure},
        )
        self._routes.router.redirect_slashes = False

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def fault(self, name: str, times: int = 1) -> None:
        """Play this fault in the next chats. Raises: InvalidRequestError for an unknown one."""
        self._queue.extend([faults.named(name)] * times)

    def reset(self) -> None:
        """Forget the queued faults and the requests."""
        self._queue.clear()
        self.requests.clear()

    def cut_streams(self) -> None:
        """Break the connection of every chat that is being answered. To be called on the loop that answers them."""
        for transport in self._streams:
            transport.abort()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = HeaderMap((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        received = scope[RECEIVED] = Received(scope["method"], scope["path"], headers)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                received.status = message["status"]
            await send(message)

        self.requests.append(received)
        try:
            await self._routes(scope, receive, noting)
        except asyncio.CancelledError:
            pass  # the server stops, and has broken the connection: uvicorn would take this for a failure of ours
        except Exception as error:  # the outer edge; the client has its 500
            log.error("a request failed: %r", error, exc_info=log.isEnabledFor(logging.DEBUG))

    async def _chat(self, request: Request) -> ASGIApp:
        received = await _read(request)
        problem = signing.fault(received.headers, now_s=time.time(), tolerance_s=TOLERANCE_S)
        if problem is not None:
            raise HTTPException(401, problem)
        signed_in = received.path == wire.SIGNED_IN_PATH
        if _names_a_user(received.headers["authorization"]) != signed_in:
            raise HTTPException(
                401, f"{received.path} wants {'a token of a user' if signed_in else 'the authorization Bearer null'}"
            )
        if not self._nonces.use(received.headers["x-nonce"], now_s=time.time()):
            raise HTTPException(401, "header x-nonce was used before")
        received.chat = wire.decode(received.body, signed_in=signed_in)
        return functools.partial(self._stream, received.chat, self._play_for(received.chat))

    def _play_for(self, chat: wire.ChatRequest) -> faults.Play:
        if "fault" in chat.extra:
            return faults.named(chat.extra["fault"])
        return self._queue.popleft() if self._queue else self._default

    async def _prompt(self, request: Request) -> Response:
        character = self._characters.get(request.path_params["id"])
        if character is None:
            raise HTTPException(404, "there is no such character")
        return _json({"prompt": character})

    async def _conversation(self, request: Request) -> Response:
        received = await _read(request)
        if not _names_a_user(received.headers.get("authorization", "")):
            raise HTTPException(401, "header authorization must be the bearer token of a user")
        try:
            body = msgspec.json.decode(received.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidRequestError("the body is not JSON") from None
        if not isinstance(body, dict):
            raise InvalidRequestError("the body is not a JSON object")
        for name, kind, words in (
            ("promptId", str, "a string"),
            ("location", str, "a string"),
            ("messages", list, "a list"),
        ):
            if not isinstance(body.get(name), kind):
                raise InvalidRequestError(f"{name} must be {words}")
        return _json({"id": str(uuid.uuid4())})

    async def _stream(
        self, chat: wire.ChatRequest, play: faults.Play, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one chat, until it has its end or the client leaves: `receive` tells both alike."""
        transport: asyncio.Transport = scope[TRANSPORT]
        texts = self._responder(chat)
        with self._counted(transport):
            playing = asyncio.create_task(self._perform(texts, play, transport, send))
            try:
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)

    async def _perform(
        self, texts: AsyncGenerator[str, None], play: faults.Play, transport: asyncio.Transport, send: Send
    ) -> None:
        """Play the answer. A responder's failure is a status, or a cut when the head has left."""
        async with contextlib.aclosing(texts):
            exchange = Exchange(send, transport, texts, pace_s=self._pace_s)
            try:
                await play(exchange)
                return
            except FlowGPTError as error:
                status, words = 502, str(error)
            except Exception as error:  # the outer edge: a responder is a stranger's code
                log.exception("the responder failed")
                status, words = 500, f"the responder failed: {type(error).__name__}"
            if exchange.started:
                exchange.cut()
            else:
                await exchange.respond(status, faults.problem(words), content_type=faults.JSON)

    @contextlib.contextmanager
    def _counted(self, transport: asyncio.Transport) -> Iterator[None]:
        with self.changed:
            self._streams.append(transport)
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self._streams.remove(transport)
                self.changed.notify_all()


def _names_a_user(authorization: str) -> bool:
    scheme, _, token = authorization.partition(" ")
    return scheme == "Bearer" and token.strip() not in ("", signing.ANONYMOUS)


async def _read(request: Request) -> Received:
    """The request with its whole body. Raises: HTTPException 400, 413, 415."""
    received: Received = request.scope[RECEIVED]
    if received.headers.get("content-type", "").partition(";")[0].strip().lower() != faults.JSON:
        raise HTTPException(415, f"header content-type must be {faults.JSON}")
    given = received.headers.get("content-length", "0").strip()
    if not re.fullmatch(r"[0-9]{1,19}", given):  # Python itself refuses to read a number of thousands of digits
        raise HTTPException(400, "header content-length must be a number of at most 19 digits", {"connection": "close"})
    length = int(given)
    body = bytearray()
    with contextlib.suppress(ClientDisconnect):
        if length <= wire.LIMIT_BODY_BYTES:
            async for piece in request.stream():
                body += piece
                if len(body) > wire.LIMIT_BODY_BYTES:
                    break
    if max(length, len(body)) > wire.LIMIT_BODY_BYTES:
        words = f"the body has more than {wire.LIMIT_BODY_BYTES} bytes"
        raise HTTPException(413, words, headers={"connection": "close"})
    received.body = bytes(body)
    return received


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type=faults.JSON)


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(faults.problem(error.detail), error.status_code, error.headers, faults.JSON)


async def _bad_request(_: Request, error: Exception) -> Response:
    return Response(faults.problem(str(error)), 400, None, faults.JSON)


async def _failure(_: Request, error: Exception) -> Response:
    return Response(faults.problem(f"the server failed: {type(error).__name__}"), 500, None, faults.JSON)
