"""One pause for all calls of an endpoint, after it asked one of them to wait. Pure: time comes in as an argument."""

from __future__ import annotations

import copy

from ..errors import QuotaExceededError, RateLimitError

LIMIT_PAUSE_S = 3600.0
"""A longer wish is believed for an hour; then somebody asks again."""

SPREAD_SHARE = 3.0
SPREAD_S = 0.3
"""Who waited goes within so many times the pause after it, and within so many seconds for each that waits: all of them
at its end would be a herd, and one alone needs no more delay."""


class Pause:
    """Of one endpoint. Of several wishes the latest end counts."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._failure: RateLimitError | None = None
        self._since_s = 0.0
        self._waiting = 0

    def note(self, failure: Exception, now_s: float) -> None:
        """A call failed. Only a 429 that says how long begins a pause; missing credit is no matter of waiting."""
        if not isinstance(failure, RateLimitError) or isinstance(failure, QuotaExceededError):
            return
        if failure.retry_after_s is not None:
            until_s = now_s + min(failure.retry_after_s, LIMIT_PAUSE_S)
            if now_s >= self._until_s:
                self._since_s, self._waiting = now_s, 0
            if self._failure is None or until_s > self._until_s:
                self._until_s = until_s
                self._failure = RateLimitError(  # not the failure itself: its traceback holds what the call held
                    failure.message,
                    code=failure.code,
                    hint=failure.hint,
                    status_code=failure.status_code,
                    request_id=failure.request_id,
                )

    def left(self, now_s: float) -> RateLimitError | None:
        """What a call gets while the pause lasts: the service's own 429, with the time that is left. Else None."""
        if self._failure is None or now_s >= self._until_s:
            return None
        failure = copy.copy(self._failure)
        failure.retry_after_s = self._until_s - now_s
        return failure

    def turn(self, now_s: float, jitter: float) -> float:
        """In how many seconds a call that comes in the pause may go. `jitter`: a random number in [0, 1)."""
        self._waiting += 1
        spread_s = min(SPREAD_SHARE * (self._until_s - self._since_s), SPREAD_S * self._waiting)
        return max(0.0, self._until_s - now_s) + jitter * spread_s
