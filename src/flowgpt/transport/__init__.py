"""The way to a service and back: the pool, the deadlines, the retry loop, the table of foreign errors.

Only this package imports the HTTP client, and it does so at the first call, off the event loop: the import takes long
enough to stall one. Nothing here knows a protocol; bytes become batches in the decoder that a `Call` brings.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..addresses import Secret
from ..config import Options
from ..errors import FlowGPTError, InvalidRequestError
from ..limits.retry import GiveUp, Policy
from ..messages import Batch
from ..reply import closed_early

if TYPE_CHECKING:
    from .exchange import Exchange


T = TypeVar("T")
log = logging.getLogger(__name__)


class Decoder(Protocol):
    """What makes batches of a body's bytes."""

    events: int
    unknown_events: dict[str, int]

    @property
    def tail(self) -> bytes: ...

    def feed(self, data: bytes) -> Batch: ...

    def close(self) -> Batch: ...

    def cut(self) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as often as it has to be sent.

    `headers`: called for each send, since a signature holds for one. `decoder`: a fresh one for each reply.
    `options`: proxy, timeout, max_retries, safe_retries_only and max_connections count here.
    """

    url: str
    body: bytes
    headers: Callable[[], Mapping[str, str]]
    decoder: Callable[[], Decoder]
    options: Options

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


class Stream:
    """The batches of one call (a `reply.Source`): sends, and sends again while nothing has come."""

    def __init__(self, call: Call) -> None:
        self.attempts = 0
        self.verified = False
        self._call = call
        self._policy = Policy(call.options.max_retries, call.options.safe_retries_only)
        self._exchange: Exchange | None = None
        self._scope: asyncio.Timeout | None = None
        self._deadline_s: float | None = None
        self._started = self._closed = False

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
                    self._exchange = await self._until_closed(self._open())
                batch = await self._exchange.read()
            except FlowGPTError as error:
                failure = error
            else:
                if batch is None:
                    self.verified = self._exchange.framed
                    return None
                if batch.failure is None or batch.texts or batch.others or self._started:
                    self._started = True
                    return batch
                failure = batch.failure
            await self._until_closed(self._wait_after(failure))

    async def _until_closed(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what `close`, called by another task, is to end at once."""
        try:
            async with asyncio.timeout(None) as self._scope:
                return await work
        except TimeoutError:
            pass
        finally:
            self._scope = None
        raise closed_early()

    async def _open(self) -> Exchange:
        loop = asyncio.get_running_loop()
        if self.attempts == 0 and (total_s := self._call.options.timeout.total_s) is not None:
            self._deadline_s = loop.time() + total_s
        self.attempts += 1
        exchange = await load("exchange")
        opened: Exchange = await exchange.open_exchange(self._call, deadline_s=self._deadline_s)
        return opened

    async def _wait_after(self, failure: FlowGPTError) -> None:
        """Wait until the call may be sent again. Raises: the failure, when it may not."""
        time_left_s = None
        if self._deadline_s is not None:
            time_left_s = self._deadline_s - asyncio.get_running_loop().time()
        decision = self._policy.after(failure, attempt=self.attempts, time_left_s=time_left_s, jitter=random.random())
        if self._started or self._closed or isinstance(decision, GiveUp):
            log.debug("%s; not sent again: %s", failure.code, decision)
            raise failure
        self._exchange = None  # a failed one has closed itself
        await asyncio.sleep(decision.seconds)

    def close(self) -> None:
        self._closed = True
        if self._exchange is not None:
            self._exchange.close()
        if self._scope is not None:
            self._scope.reschedule(0)
            self._scope = None


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
