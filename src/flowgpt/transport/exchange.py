"""One attempt: a request sent, its head judged, its body read to batches, each part within its deadline.

No deadline is a cancel scope across a read: while a body is read, one timer per exchange closes the connection when
its time is over (PEP 789 tells why). A failure never keeps the HTTP client's exception: its frames hold the headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import time
import weakref
from typing import Any

import aiohttp
from yarl import URL

from ..errors import APITimeoutError, FlowGPTError, ProtocolError
from ..messages import Batch
from ..reply import closed_early
from . import Call
from .failures import FOREIGN, clock_offset_s, refusal, request_id, translate
from .pool import PHASES, current_pool

END_S = 1.0
"""How long the body's end is waited for when the reply is there: it would free the connection for another."""

LIMIT_REPLY_BYTES = 128 * 1024 * 1024
"""A reply's bytes on the wire, at most. A million texts fit; an endless stream ends here."""


class _Head:
    """Where a request is before its head has come; each phase has a deadline of its own."""

    def __init__(self, call: Call, deadline_s: float | None) -> None:
        timeouts = call.options.timeout
        self._call = call
        self.phase = "connect"
        self.reused = True
        self._limits_s = {"pool": timeouts.pool_s, "connect": timeouts.connect_s, "head": timeouts.head_s}
        self._deadline_s = math.inf if deadline_s is None else deadline_s
        self._loop = asyncio.get_running_loop()
        self.scope = asyncio.timeout_at(None)

    def enter(self, phase: str) -> None:
        self.phase = phase
        limit_s = self._limits_s[phase]
        until = min(self._deadline_s, math.inf if limit_s is None else self._loop.time() + limit_s)
        self.scope.reschedule(None if until == math.inf else until)

    def timed_out(self) -> APITimeoutError:
        if (self.scope.when() or 0) >= self._deadline_s:  # not by the clock: a timer may fire a tick early
            return _deadline_exceeded(self._call, self.phase)
        limit_s = self._limits_s[self.phase]
        words, code = {
            "pool": ("no connection was free for", "pool_timeout"),
            "connect": ("no connection after", "connect_timeout"),
            "head": ("no answer for", "header_timeout"),
        }[self.phase]
        return APITimeoutError(f"{words} {limit_s:g} s: {self._call.origin}", code=code, phase=self.phase)


def _deadline_exceeded(call: Call, phase: str) -> APITimeoutError:
    words = f"the reply took longer than {call.options.timeout.total_s:g} s: {call.origin}"
    return APITimeoutError(words, code="deadline_exceeded", phase=phase)


LARGE_BYTES = 1024 * 1024
"""The HTTP client warns of a larger body that it is to write in one go; what can be read it writes piece by piece."""


async def open_exchange(call: Call, *, deadline_s: float | None, offset_s: float = 0.0) -> Exchange:
    """Send the request and judge the head. `deadline_s`: the whole reply's, on the loop's clock.

    `offset_s`: how far the service's clock is ahead of ours.

    Raises: FlowGPTError. Cancelled: the connection is closed.
    """
    pool = await current_pool(call.options.max_connections)
    session, sent = pool.session(call.options.proxy), _sent(call, time.time() + offset_s)
    head = _Head(call, deadline_s)
    failure: FlowGPTError
    try:
        async with head.scope:
            PHASES.set(weakref.proxy(head))  # the context lives on: in its task, and in a connection made here
            response = await session.request(
                call.method,
                URL(call.url, encoded=True),
                data=io.BytesIO(call.body) if len(call.body) > LARGE_BYTES else call.body or None,
                allow_redirects=False,
                **sent,
            )
    except TimeoutError as error:
        expired = head.scope.expired()
        failure = head.timed_out() if expired else translate(error, phase=head.phase, call=call, reused=head.reused)
    except FOREIGN as error:
        failure = translate(error, phase=head.phase, call=call, reused=head.reused)
    else:
        refused = await refusal(response, call, deadline_s=deadline_s, offset_s=offset_s)
        if refused is None:
            exchange = Exchange(call, response, deadline_s)
            pool.exchanges.add(exchange)
            return exchange
        failure = refused
    raise failure  # outside the handlers: no context, no frames of the HTTP client with the headers in them


def _sent(call: Call, now_s: float) -> dict[str, Any]:
    """Headers and proxy as the HTTP client takes them; its frames may be shown: what is secret is wrapped."""
    proxy = call.options.proxy
    sent: dict[str, Any] = {"headers": call.sent_headers(now_s)}
    if proxy is None or proxy.scheme == "socks5":
        return sent
    sent["proxy"] = proxy.url
    if proxy.authorization is not None:
        # For the tunnel; and other credentials never share a connection.
        sent["proxy_headers"] = {"Proxy-Authorization": proxy.authorization}
    return sent


class Exchange:
    """An answer that has begun. `framed`: its end is provable (chunked, or a length)."""

    def __init__(self, call: Call, response: aiohttp.ClientResponse, deadline_s: float | None) -> None:
        self.decoder = call.decoder()
        self.framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        self._call = call
        self._response = response
        self._content = response.content
        self._received = 0
        self._ended = False
        self._failure: FlowGPTError | None = None
        # The timer fires when the shortest limit may have passed, and looks whether one has.
        timeouts = call.options.timeout
        self._timeouts = timeouts
        limits = [timeouts.first_event_s, timeouts.idle_s, timeouts.consumer_s]
        self._tick_s = min((limit for limit in limits if limit is not None), default=math.inf)
        self._loop = asyncio.get_running_loop()
        self._last_s = math.inf if deadline_s is None else deadline_s
        self._reading = self._hurried = False
        self._until_s = math.inf
        self._ripe_bytes: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leave()
        self._watch()

    def clock_offset_s(self) -> float:
        """How far the service's clock is ahead of ours, in seconds, when asked at once; 0: it didn't say."""
        return clock_offset_s(self._response.headers)

    async def read(self) -> Batch | None:
        """The next batch that is not empty, or None after the proper end. A failure comes inside its last batch."""
        decoder = self.decoder
        if self._ended:
            return None
        events = decoder.events
        self._enter()
        while True:
            try:
                data = await self._content.readany()
            except FOREIGN as error:
                return self._cut(error)
            if not data:
                return self._end(Batch())
            self._received += len(data)
            batch = decoder.feed(data)
            if self._received > LIMIT_REPLY_BYTES and batch.failure is None:
                batch.failure = ProtocolError(
                    f"the reply has more than {LIMIT_REPLY_BYTES} bytes", code="response_too_large"
                )
            if decoder.done and not self._hurried:
                self._hurry()
            if batch.texts or batch.others or batch.failure:
                self._leave()
                if batch.failure is not None:
                    return self._failed(batch)
                return batch
            if decoder.events != events:
                events = decoder.events
                self._enter()

    def _end(self, batch: Batch) -> Batch | None:
        batch.extend(self.decoder.close())
        self._ended = True
        self.close()
        return self._failed(batch) if batch.failure else batch if batch.texts or batch.others else None

    def _cut(self, error: BaseException) -> Batch | None:
        """The body broke off: every complete line that had arrived counts, and then the failure."""
        # aiohttp raises a stream's exception before it hands out the bytes that came earlier; they are in its buffer.
        batch = self.decoder.feed(b"".join(self._content._buffer))
        if batch.failure is None and self.decoder.proven:
            return self._end(batch)  # after the end that the bytes themselves named: what broke is not the reply
        if batch.failure is None:
            batch.extend(self.decoder.cut())
            batch.failure = self._failure or translate(error, phase="body", call=self._call, tail=self.decoder.tail)
        return self._failed(batch)

    def _failed(self, batch: Batch) -> Batch:
        assert batch.failure is not None
        batch.failure.phase = "body"
        batch.failure.request_id = request_id(self._response, self._call)
        self._ended = True
        self.close()
        return batch

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it is back in the pool already."""
        if not self._ended:
            self._failure = self._failure or closed_early()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()

    def abandon(self) -> None:
        """`close`, from any thread, and when nobody waits for it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its pool with it
            self._loop.call_soon_threadsafe(self.close)

    # --- time ---------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """From now on the service is waited for."""
        limit_s = self._timeouts.idle_s if self.decoder.events else self._timeouts.first_event_s
        self._until_s = math.inf if limit_s is None else self._loop.time() + limit_s
        self._ripe_bytes = None
        self._reading = True

    def _leave(self) -> None:
        """From now on the reader of the reply is waited for."""
        limit_s = self._timeouts.consumer_s
        self._until_s = math.inf if limit_s is None else self._loop.time() + limit_s
        self._reading = False

    def _hurry(self) -> None:
        """From now on nothing but the body's end is waited for."""
        self._hurried = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(END_S, self._expire, closed_early())

    def _watch(self) -> None:
        """Look at the time: end what is over, or look again when the next limit may have passed."""
        now = self._loop.time()
        if now >= self._last_s:
            self._expire(_deadline_exceeded(self._call, "body"))
        elif now >= self._until_s and not self._has_unread():
            self._expire(self._stalled())
        else:
            until = min(self._last_s, max(self._until_s, now + self._tick_s / 16), now + self._tick_s)
            if until < math.inf:
                self._timer = self._loop.call_at(until, self._watch)

    def _has_unread(self) -> bool:
        """Whether bytes that came in time wait to be read: then it was the loop that was busy (H17)."""
        if self._ripe_bytes is None:
            self._ripe_bytes = self._content.total_bytes
        return self._reading and self._ripe_bytes > self._received

    def _stalled(self) -> APITimeoutError:
        timeouts, origin = self._timeouts, self._call.origin
        if not self._reading:
            words, code = f"the reply was not read on for {timeouts.consumer_s:g} s", "consumer_stalled"
            return APITimeoutError(f"{words}: {origin}", code=code, hint="read on, or close the reply")
        if self.decoder.events:
            words, code = f"no event for {timeouts.idle_s:g} s", "idle_timeout"
        else:
            words, code = f"no event in the first {timeouts.first_event_s:g} s", "first_event_timeout"
        return APITimeoutError(f"{words}: {origin}", code=code)

    def _expire(self, failure: FlowGPTError) -> None:
        self._timer = None
        self._failure = failure
        self._content.set_exception(aiohttp.ServerTimeoutError())  # wakes the reader
        self._response.close()
