"""Whether a failed attempt is made again, after how long, and out of which budget. Decided here, waited for in
`transport`.

Clock and randomness come in as arguments. Source of the classes: errors.RETRY_CLASSES.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..errors import FlowGPTError

LIMIT_RETRY_AFTER_S = 120.0
"""A longer wish of the service is told to the caller instead of slept through."""

FIRST_WAIT_S, LIMIT_WAIT_S = 0.5, 8.0

BUDGET_SHARE = 0.1
BUDGET_BURST = 10.0
"""Of all calls so many may be sent again, and so many at once: an outage is not met with a multiple of the calls."""

FREE = frozenset({"connection_closed_idle", "clock_skew"})
"""What is sent again at once, and costs nothing: it happens once a call at most, and was surely not processed."""


class Budget:
    """What an endpoint's calls may spend on being sent again; each call brings BUDGET_SHARE of one."""

    def __init__(self) -> None:
        self._left = BUDGET_BURST

    def earn(self) -> None:
        """A call is made."""
        self._left = min(BUDGET_BURST, self._left + BUDGET_SHARE)

    def spend(self) -> bool:
        """Take one, if there is one."""
        if self._left < 1 - BUDGET_SHARE / 2:  # sums of tenths are not exact
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One was taken, and nothing sent."""
        self._left = min(BUDGET_BURST, self._left + 1)


@dataclass(frozen=True, slots=True)
class Wait:
    """Send it again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Hand the failure on; `reason` is why it is not tried again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """How often to send again: `max_retries` times what was surely not processed, once what may have been.

    `safe_only`: never what may have been, and where the service says or wants a wait (429) that is the caller's affair.
    """

    max_retries: int = 2
    safe_only: bool = False

    def after(self, failure: FlowGPTError, *, attempt: int, time_left_s: float | None, jitter: float) -> Wait | GiveUp:
        """The decision after attempt number `attempt` (from 1). `jitter`: a random number in [0, 1)."""
        if failure.retry_class == "never":
            return GiveUp(f"{failure.code} is not retried")
        if self.safe_only and failure.retry_class == "ambiguous":
            return GiveUp(f"{failure.code} may have been processed")
        if self.safe_only and (failure.code == "rate_limited" or failure.retry_after_s is not None):
            return GiveUp("the wait is the caller's affair")
        allowed = self.max_retries if failure.retry_class == "safe" else min(1, self.max_retries)
        if attempt > allowed:
            return GiveUp(f"sent {attempt} times")
        if failure.code in FREE:
            return Wait(0.0)
        if failure.retry_after_s is not None:
            return _asked(failure.retry_after_s * (1 + jitter / 10), failure.retry_after_s, time_left_s)
        seconds = jitter * min(LIMIT_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 9))
        return _in_time(seconds, time_left_s)

    def during(self, turn_s: float, *, time_left_s: float | None) -> Wait | GiveUp:
        """The decision before an attempt, while the endpoint wants a pause of all calls. `turn_s`: when it may go."""
        if self.safe_only:
            return GiveUp("the wait is the caller's affair")
        return _asked(turn_s, turn_s, time_left_s)


def _asked(seconds: float, asked_s: float, time_left_s: float | None) -> Wait | GiveUp:
    if asked_s > LIMIT_RETRY_AFTER_S:
        return GiveUp(f"the service asks to wait {asked_s:.0f} s")
    return _in_time(seconds, time_left_s)


def _in_time(seconds: float, time_left_s: float | None) -> Wait | GiveUp:
    if time_left_s is not None and seconds >= time_left_s:
        return GiveUp("there is no time left")
    return Wait(seconds)


def retry_after_s(value: str | None, *, date: str | None = None) -> float | None:
    """Read a Retry-After header: seconds, or an HTTP date less the reply's own `Date` (never the local clock).

    None for what is missing, past, junk or not finite: the caller then waits by its own rule.
    """
    if value is None or len(value) > 64:
        return None
    digits = value.strip(" \t")  # HTTP's blanks only: str.strip takes more of them away than float does
    if re.fullmatch("[0-9]+", digits):
        seconds = float(digits)
    else:
        until, now = http_date(value), http_date(date)
        if until is None or now is None:
            return None
        seconds = (until - now).total_seconds()
    return seconds if 0 < seconds < math.inf else None


def http_date(value: str | None) -> datetime | None:
    """A date in one of HTTP's forms; None for anything else."""
    try:
        read = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
