"""The way to a service and back: pool, deadlines, retry loop, the health of endpoints, the table of foreign errors.

Only this package imports the HTTP client, and it does so at the first call, off the event loop: the import takes long
enough to stall one. Nothing here knows a protocol; bytes become batches in the decoder that a `Call` brings.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..addresses import Secret
from ..config import Options
from ..errors import FlowGPTError, InvalidRequestError
from ..limits.retry import FREE, GiveUp, Policy, Wait
from ..messages import Batch
from ..reply import closed_early
from ..version import __version__
from .health import endpoint

if TYPE_CHECKING:
    from .exchange import Exchange


log = logging.getLogger(__name__)

USER_AGENT = f"flowgpt-python/{__version__}"


class Decoder(Protocol):
    """What makes batches of a body's bytes."""

    events: int
    unknown_events: dict[str, int]

    @property
    def proven(self) -> bool:
        """Whether the bytes themselves have said that this is the end."""

    @property
    def done(self) -> bool:
        """Whether nothing that may follow counts."""

    @property
    def tail(self) -> bytes: ...

    def feed(self, data: bytes) -> Batch: ...

    def close(self) -> Batch: ...

    def cut(self) -> Batch: ...


class Call(msgspec.Struct, frozen=True):
    """One request, as often as it has to be sent. `body`: b"" is none.

    `headers`: called for each send, since a signature holds for one, with the Unix time by the service's clock; a value
    that is secret is a `Secret`.
    `decoder`: a fresh one for each reply. `options`: base_url, api_key, proxy, timeout, max_retries, safe_retries_only
    and max_connections count here. `signed`: by the time, so that a wrong clock may be why it is rejected.
    """

    url: str
    body: bytes
    headers: Callable[[float], Mapping[str, str]]
    decoder: Callable[[], Decoder]
    options: Options
    method: str = "POST"
    signed: bool = True

    @property
    def origin(self) -> str:
        """Who is asked, as messages name it."""
        return "/".join(self.url.split("/", 3)[:3])

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What no message may repeat, though the service might."""
        proxy = self.options.proxy
        of_proxy = (proxy.username, proxy.password, proxy.authorization) if proxy else ()
        return tuple(secret for secret in (self.options.api_key, *of_proxy) if secret)

    def sent_headers(self, now_s: float) -> dict[str, str]:
        """All headers of one send but those that the HTTP client makes itself: Host, Accept, Content-Length."""
        headers = {**self.headers(now_s), "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        proxy = self.options.proxy
        if proxy and proxy.authorization and proxy.scheme != "socks5" and self.url.startswith("http:"):
            headers["Proxy-Authorization"] = proxy.authorization  # no tunnel: the proxy reads the request's own headers
        return headers


class Stream:
    """The batches of one call (a `reply.Source`): sends, and sends again while nothing has come.

    `deadline_s`: when the whole reply has to be there, on the loop's clock; without it, the call's timeout counts from
    the first read. It is known from then on.
    """

    def __init__(self, call: Call, *, deadline_s: float | None = None) -> None:
        self.attempts = 0
        self.deadline_s = deadline_s
        self.verified = False
        self._call = call
        self._endpoint = endpoint(call.options)
        self._policy = Policy(call.options.max_retries, call.options.safe_retries_only)
        self._exchange: Exchange | None = None
        self._scope: asyncio.Timeout | None = None
        self._started = self._closed = False
        self._ticket: int | None = None  # of the attempt whose end is not told yet
        self._paid = False  # for an attempt that is not made yet

    @property
    def skipped_events(self) -> Mapping[str, int]:
        return self._exchange.decoder.unknown_events if self._exchange else {}

    async def next(self) -> Batch | None:
        """The next batch, or None after the proper end. Raises: FlowGPTError."""
        if self._exchange is None:
            _check_loop()
        while True:
            try:
                if self._exchange is None:
                    await self._until_closed(self._open())
                    assert self._exchange is not None
                batch = await self._exchange.read()
            except FlowGPTError as error:
                failure = error
            else:
                if batch is None:
                    self._note(None)
                    self.verified = self._exchange.framed or self._exchange.decoder.proven
                    return None
                if batch.failure is None or batch.texts or batch.others or self._started:
                    self._note(None)
                    self._started = True
                    return batch
                failure = batch.failure
            if self._ticket is None:  # it was refused before it was sent
                raise failure
            self._note(failure)
            await self._until_closed(self._wait_after(failure))

    async def _until_closed(self, work: Coroutine[Any, Any, Exchange | None]) -> None:
        """Await what `close`, called by another task, is to end at once; what it gives is the exchange from then on."""
        try:
            async with asyncio.timeout(None) as self._scope:
                self._exchange = await work
            if not self._closed:
                return
        except TimeoutError:
            pass
        finally:
            self._scope = None
        self.close()  # again: of what has ended in the same turn of the loop it knew nothing
        raise closed_early()

    async def _admission(self) -> None:
        """Wait until the endpoint may be asked. Raises: RateLimitError, ServiceUnavailableError (circuit_open)."""
        while (pause := self._endpoint.pause()) is not None:
            limited, turn_s = pause
            decision = self._policy.during(turn_s, time_left_s=self._time_left_s())
            if isinstance(decision, GiveUp):
                raise limited
            await asyncio.sleep(decision.seconds)
        self._ticket = self._endpoint.admit(again=self.attempts > 0)
        self._paid = False

    def _note(self, failure: FlowGPTError | None) -> None:
        """Tell the endpoint's health how this attempt ended, once."""
        if self._ticket is not None:
            self._endpoint.note(failure, self._ticket)
            self._ticket = None

    async def _open(self) -> Exchange:
        if self.deadline_s is None and (total_s := self._call.options.timeout.total_s) is not None:
            self.deadline_s = asyncio.get_running_loop().time() + total_s
        await self._admission()
        self.attempts += 1
        exchange = await load("exchange")
        opened: Exchange = await exchange.open_exchange(
            self._call, deadline_s=self.deadline_s, offset_s=self._endpoint.offset_s
        )
        return opened

    def _time_left_s(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - asyncio.get_running_loop().time()

    async def _wait_after(self, failure: FlowGPTError) -> None:
        """Wait until the call may be sent again; a failed exchange has closed itself. Raises: the failure."""
        decision = self._policy.after(
            failure, attempt=self.attempts, time_left_s=self._time_left_s(), jitter=random.random()
        )
        if self._started or self._closed:
            decision = GiveUp("somebody has seen it, or left")
        elif isinstance(decision, Wait) and failure.code not in FREE:
            self._paid = self._endpoint.spend()
            decision = decision if self._paid else GiveUp("the budget for retries is spent")
        if isinstance(decision, GiveUp):
            with contextlib.suppress(Exception):  # a handler's own fault is not the reply's
                log.debug("%s; not sent again: %s", failure.code, decision)
            raise failure
        await asyncio.sleep(decision.seconds)

    def close(self) -> None:
        self._closed = True
        if self._ticket is not None:
            self._endpoint.forget(self._ticket)
            self._ticket = None
        if self._paid:
            self._endpoint.give_back()
            self._paid = False
        if self._exchange is not None:
            self._exchange.close()
        if self._scope is not None:
            self._scope.reschedule(0)
            self._scope = None

    def __del__(self) -> None:
        if self._exchange is not None and not self._closed:  # dropped by its reader, in whatever thread (H5, H21)
            self._exchange.abandon()


def _check_loop() -> None:
    """Raises: InvalidRequestError (forked_process) where asyncio does not run, as in the child of a fork."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return
    raise InvalidRequestError(
        "no asyncio event loop of this process is running",
        code="forked_process",
        hint="after a fork, start a loop of its own: asyncio.run",
    )


async def load(room: str) -> Any:
    """A room of this package that imports the HTTP client; at first in another thread, so that the loop goes on."""
    module = globals().get(room)  # the import system binds it here when, and only when, the import is done
    return module or await asyncio.to_thread(importlib.import_module, f"{__name__}.{room}")
