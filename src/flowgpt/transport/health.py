"""What is known of each endpoint: its circuit, its pause, what its calls may spend on retries, and its clock.

Process-wide state, by design: calls on the class have no other place for it. Each process has its own, a fork's child
too, and begins with a closed circuit. The decisions are made in `limits`; the clock and chance come in here.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import replace
from time import monotonic

from ..addresses import Proxy, Secret
from ..config import Options
from ..errors import APIStatusError, FlowGPTError, RateLimitError, ServiceUnavailableError
from ..limits.breaker import Breaker, Health
from ..limits.pause import Pause
from ..limits.retry import Budget

LIMIT_ENDPOINTS = 1000
"""How many are remembered; over it, the one that was asked first is forgotten."""

LIMIT_OFFSET_S = 86_400.0
"""A clock that is a day off or more is not made good for (G1)."""

LIMIT_SKEW_S = 60.0
"""A clock that is off by more may be why a signature is rejected (G1)."""


class Endpoint:
    """An origin, with the credentials and the way by which it is asked.

    `offset_s`: how far its clock is ahead of ours, as far as a rejected signature told.
    """

    def __init__(self, origin: str) -> None:
        self.offset_s = 0.0
        self._origin = origin
        self._breaker = Breaker()
        self._budget = Budget()
        self._pause = Pause()
        self._lock = threading.Lock()

    def health(self) -> Health:
        """Whether it is asked; `since_s` is Unix time."""
        now_s = monotonic()
        with self._lock:
            health = self._breaker.health(now_s)
        return health if health.since_s is None else replace(health, since_s=time.time() - now_s + health.since_s)

    def spend(self) -> bool:
        """Whether there is budget to send a call again; it is taken."""
        with self._lock:
            return self._budget.spend()

    def give_back(self) -> None:
        """What was taken to send a call again was not used."""
        with self._lock:
            self._budget.give_back()

    def pause(self) -> tuple[RateLimitError, float] | None:
        """While the service wants all calls to wait: its own 429 with the time that is left, and when a call may go."""
        now_s = monotonic()
        with self._lock:
            failure = self._pause.left(now_s)
            return None if failure is None else (failure, self._pause.turn(now_s, random.random()))

    def admit(self, *, again: bool) -> int:
        """Let an attempt go; tell `note` or `forget` once how it ends, with this ticket. `again`: not a call's first.

        Raises: ServiceUnavailableError (circuit_open) while nothing may be sent.
        """
        with self._lock:
            ticket = self._breaker.admit(monotonic())
            if ticket is not None:
                if not again:
                    self._budget.earn()
                return ticket
        raise self._circuit_open(self.health())

    def _circuit_open(self, health: Health) -> ServiceUnavailableError:
        since = "" if health.since_s is None else f" since {time.strftime('%H:%M:%S', time.localtime(health.since_s))}"
        again_s = health.again_s or 0.0
        return ServiceUnavailableError(
            f"{self._origin} fails{since} ({health.reason}); next try in {again_s:.1f} s",
            code="circuit_open",
            retry_after_s=again_s * (1 + random.random()),  # those who obey it must not come together (O3)
            hint="the service fails; wait, and ask again",
        )

    def note(self, failure: FlowGPTError | None, ticket: int | None = None) -> None:
        """An attempt ended, with a reply if `failure` is None. Without a ticket it counts as one of now."""
        now_s = monotonic()
        with self._lock:
            ticket = self._breaker.ticket if ticket is None else ticket
            self._breaker.note(ticket, failure.code if failure else None, now_s, random.random())
            if failure is not None:
                self._pause.note(failure, now_s)
            if isinstance(failure, APIStatusError) and failure.code == "clock_skew":
                self.offset_s = failure.offset_s

    def forget(self, ticket: int) -> None:
        """An attempt was given up by its caller."""
        with self._lock:
            self._breaker.forget(ticket, monotonic())


_endpoints: dict[tuple[str, Secret | None, Proxy | None], Endpoint] = {}


def endpoint(options: Options) -> Endpoint:
    """What is known of the endpoint of a call."""
    key = (options.base_url, options.api_key, options.proxy)
    known = _endpoints.get(key)
    if known is None:
        for oldest in list(_endpoints)[: 1 - LIMIT_ENDPOINTS]:
            _endpoints.pop(oldest, None)
        known = _endpoints.setdefault(key, Endpoint(options.base_url))
    return known


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_endpoints.clear)  # another thread may have held a lock
