"""One HTTP request and its answer: the body in; held, streamed with heartbeats or whole out; and who ends it early.

ASGI messages only; no dialect in here.

The status of a stream is held until there is something to say, or `hold_s` is over; then comments keep it alive.
A client that leaves its answer unread for `write_s` is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from ..serving import TRANSPORT
from .failures import Refusal
from .guard import Fields
from .settings import Settings
from .visit import Visit

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
PIECE_BYTES = 64 * 1024
"""How much of a whole answer is written at once, so that a client that does not read is noticed."""

HEARTBEAT = b": heartbeat\n\n"

LOOK_S = 0.1
"""How long an answer is under way before somebody waits for its client to leave: most refusals and many answers are
over by then, and need no task for it."""

Headers = Sequence[tuple[str, str]]


class Exchange:
    """The answer to one request. `fields`: the request's headers. `fixed`: what its answer carries in any case.

    `started`: its head has left. A block `with exchange:` is left, with the reason, when somebody calls `break_off`,
    and not entered once somebody has.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        settings: Settings,
        visit: Visit,
        fields: Fields,
        fixed: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self.started = False
        self.fields = fields
        self._scope = scope
        self._receive = receive
        self._send = send
        self._settings = settings
        self._visit = visit
        self._fixed = fixed
        self._loop = asyncio.get_running_loop()
        self._headers: Headers = ()
        self._writing = asyncio.Lock()
        self._is_whole = False
        self._last_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._reason: Exception | None = None

    # --- a block that can be ended: as by asyncio.timeout, which costs more, and cannot say why -----------------------

    def __enter__(self) -> None:
        if self._reason is not None:
            raise self._reason
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        if self._reason is None or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:  # nobody else cancelled it too
            raise self._reason from None

    def break_off(self, reason: Exception) -> None:
        """Raise the reason out of this block, or the next one, unless another reason was first."""
        if self._reason is None:
            self._reason = reason
            if self._task is not None:
                self._task.cancel()

    # --- what comes from the client ---------------------------------------------------------------------------------

    async def body(self, limit_bytes: int) -> bytes:
        """The request's body. Raises: Refusal 400, 408, 413; ClientLeft."""
        given = self.fields.get(b"content-length", ("0",))[-1]
        if not (given.isdecimal() and given.isascii() and len(given) < 20):
            raise Refusal(400, "invalid_request", "content-length must be a number", headers=CLOSE)
        if int(given) > limit_bytes:
            raise _too_large(limit_bytes)
        pieces: list[bytes] = []
        size_bytes, more = 0, True
        late = self._loop.call_later(self._settings.body_s, self._body_is_late)
        try:
            with self:
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    pieces.append(message.get("body", b""))
                    size_bytes += len(pieces[-1])
                    if size_bytes > limit_bytes:
                        raise _too_large(limit_bytes)
                    more = message.get("more_body", False)
        finally:
            late.cancel()
        return b"".join(pieces)

    def _body_is_late(self) -> None:
        words = f"the body took more than {self._settings.body_s:g} s"
        self.break_off(Refusal(408, "request_timeout", words, headers=CLOSE))

    def notice_leaving(self) -> None:
        """Soon, and until it is closed: end the block with ClientLeft once the client has left.

        Closed, reset or half-closed, which HTTP servers cannot tell apart (I7).
        """
        self._look = self._loop.call_later(LOOK_S, self._begin_to_look)

    def _begin_to_look(self) -> None:
        self._looking = self._loop.create_task(self._wait_until_left())

    async def _wait_until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.break_off(ClientLeft())

    # --- what goes to the client ------------------------------------------------------------------------------------

    async def whole(self, status: int, body: bytes, headers: Headers = (), *, content_type: str = JSON) -> None:
        """Send an answer that is no stream."""
        self._be_still()  # a beat may be about to begin a stream
        self.started = True
        length = [("content-length", str(len(body)))]
        async with self._writing:
            self._last_s = self._loop.time()
            self._set_timer(self._settings.write_s)
            await self._head(status, content_type, [*length, *headers])
            body = b"" if self._scope["method"] == "HEAD" else body
            for start in range(0, len(body) or 1, PIECE_BYTES):
                end = start + PIECE_BYTES
                message = {"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)}
                await self._send(message)
                self._last_s = self._loop.time()

    def hold(self, headers: Headers) -> None:
        """An event stream is to come, with these headers: from now on silence is watched."""
        self._headers = headers
        self._last_s = self._loop.time()
        self._set_timer(self._settings.hold_s)

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the stream, after its head; waits for a client that reads slowly."""
        async with self._writing:
            if self._is_whole:  # a beat, which the last piece has overtaken
                return
            self._is_whole = not more
            self._last_s = self._loop.time()
            if not self.started:
                self.started = True
                await self._head(200, EVENT_STREAM, self._headers)
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
            self._last_s = self._loop.time()
            if not more:
                self._task = None  # all is said: from now on a server tells of a "disconnect", though nobody has left

    def close(self) -> None:
        """Nothing more is sent, and nobody is waited for."""
        self._be_still()
        if self._look is not None:
            self._look.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _be_still(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()

    async def _head(self, status: int, content_type: str, headers: Headers) -> None:
        visit = self._visit
        visit.status = status
        request_id = visit.request_id.encode()
        took_ms = round((time.monotonic() - visit.started_s) * 1000)
        fields = [
            (b"content-type", content_type.encode()),
            *[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            (b"x-request-id", request_id),
            (b"request-id", request_id),
            (b"openai-processing-ms", b"%d" % took_ms),
            *self._fixed,
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})

    def _set_timer(self, due_s: float) -> None:
        """Look again when something may be due, and not later than what may be due by then otherwise."""
        due_s = min(due_s, self._settings.heartbeat_s, self._settings.write_s)
        self._timer = self._loop.call_later(due_s, self._tick)

    def _tick(self) -> None:
        """The stream's one timer: it beats when nothing was sent for a while, and drops who does not read."""
        silent_s = self._loop.time() - self._last_s
        patience_s = self._settings.heartbeat_s if self.started else self._settings.hold_s
        if self._writing.locked():
            patience_s = self._settings.write_s
            if silent_s >= patience_s:
                self.abort()
                return
        elif silent_s >= patience_s:
            self._beat = self._loop.create_task(self.write(HEARTBEAT))
            silent_s, patience_s = 0.0, self._settings.heartbeat_s
        self._set_timer(patience_s - silent_s)

    def abort(self) -> None:
        """Break the connection, where our own server shows it; others do so when an answer ends too early."""
        transport = self._scope.get(TRANSPORT)
        if transport is not None:
            transport.abort()


CLOSE = (("connection", "close"),)


class ClientLeft(Exception):
    """Nobody is there to be answered."""


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal(413, "payload_too_large", f"the body has more than {limit_bytes:,} bytes", headers=CLOSE)
