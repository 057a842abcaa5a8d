"""Whether an endpoint is asked at all: a circuit breaker over the rate of failures. Pure: time and chance come in.

closed → open at FAILURE_SHARE of at least LEAST_CALLS in WINDOW_S → after a while one probe → closed, or open again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 10.0
"""What is older does not count."""

LEAST_CALLS = 20
FAILURE_SHARE = 0.8

FIRST_OPEN_S, LIMIT_OPEN_S = 1.0, 5.0
"""How long nothing is sent, at first and at most; it doubles with each probe that fails."""

FAILURES = frozenset(
    {
        "dns_error",
        "connect_error",
        "connect_timeout",
        "tls_error",
        "proxy_connect_error",
        "header_timeout",
        "first_event_timeout",
        "idle_timeout",
        "stream_interrupted",
        "stream_truncated",
        "bad_http",
        "server_error",
        "service_unavailable",
    }
)
"""The codes that speak against an endpoint. A refusal with reason (4xx, a browser check) is an answer (O5)."""

NEUTRAL = frozenset(
    {
        "connection_closed_idle",
        "pool_timeout",
        "deadline_exceeded",
        "overloaded",
        "client_closed",
        "invalid_request",
        "header_injection",
        "bad_base_url",
        "bad_proxy",
        "payload_too_large",
        "wrong_loop",
        "forked_process",
    }
)
"""The codes that say nothing about it: our own limits and refusals, or an idle connection's end. Any other is a sign
of life."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint. `working`: False while its circuit is open.

    Then `since_s` and `reason` (an error's code) say since when and why, and `again_s` in how many seconds a call may
    be sent to see: 0.0 when the next one is.
    """

    working: bool = True
    since_s: float | None = None
    reason: str | None = None
    again_s: float | None = None

    @property
    def asked(self) -> bool:
        """Whether a call would be sent."""
        return self.working or self.again_s == 0


class Breaker:
    """Of one endpoint. An attempt that `admit` lets in is told of by `note` or `forget`, once, with its ticket.

    A ticket is good until the circuit opens or closes: what was sent before tells of another time.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[int, list[int]]] = deque()  # (second, [calls, failures])
        self.ticket = 0
        self._since_s: float | None = None
        self._reason: str | None = None
        self._open_s = 0.0
        self._probe_s = 0.0  # when the next probe may go

    def health(self, now_s: float) -> Health:
        if self._since_s is None:
            return Health()
        return Health(False, self._since_s, self._reason, max(0.0, self._probe_s - now_s))

    def admit(self, now_s: float) -> int | None:
        """A ticket for an attempt, or None; while the circuit is open, one for a probe now and then."""
        if self._since_s is not None:
            if now_s < self._probe_s:
                return None
            self._probe_s = now_s + LIMIT_OPEN_S  # one that hangs does not hold up the next for ever
        return self.ticket

    def forget(self, ticket: int, now_s: float) -> None:
        """An attempt ended without a word about the endpoint; after a probe another may go."""
        if ticket == self.ticket and self._since_s is not None:
            self._probe_s = now_s

    def note(self, ticket: int, code: str | None, now_s: float, jitter: float) -> None:
        """How an attempt ended: an error's code, None for a reply. `jitter`: a random number in [0, 1)."""
        if ticket != self.ticket:
            return
        if code in NEUTRAL:
            self.forget(ticket, now_s)
        elif self._since_s is not None:
            if code in FAILURES:
                self._wait(min(self._open_s * 2, LIMIT_OPEN_S), now_s, jitter)
            else:
                self._since_s = None
                self.ticket += 1
                self._calls.clear()
        else:
            self._count(code in FAILURES, now_s)
            if code in FAILURES and self._fails():
                self._since_s, self._reason = now_s, code
                self.ticket += 1
                self._wait(FIRST_OPEN_S, now_s, jitter)

    def _count(self, failed: bool, now_s: float) -> None:
        """One call more in the window; what has left it is dropped."""
        if not self._calls or self._calls[-1][0] != int(now_s):
            self._calls.append((int(now_s), [0, 0]))
        self._calls[-1][1][0] += 1
        self._calls[-1][1][1] += failed
        while self._calls[0][0] <= now_s - WINDOW_S:
            self._calls.popleft()

    def _fails(self) -> bool:
        """Whether too many of the window's calls failed."""
        calls = sum(calls for _, (calls, _) in self._calls)
        failures = sum(failures for _, (_, failures) in self._calls)
        return calls >= LEAST_CALLS and failures >= FAILURE_SHARE * calls

    def _wait(self, open_s: float, now_s: float, jitter: float) -> None:
        self._open_s, self._probe_s = open_s, now_s + open_s * (1 - jitter / 2)
