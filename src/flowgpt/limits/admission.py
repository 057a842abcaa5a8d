"""Who may have how much at once: answers under way, in all and for each key, and requests in a minute. Pure.

There is no queue: who cannot be served now is told so at once, and when to come again. Time comes in as an argument.
"""

from __future__ import annotations

import heapq
from collections import Counter
from operator import itemgetter

from ..errors import FlowGPTError, InvalidRequestError, RateLimitError, ServiceUnavailableError

MINUTE_S = 60.0

AGAIN_S = 1.0
"""When to come again after too many at once. Nobody knows when an answer ends; programs make further waits longer."""

LIMIT_KEYS = 10_000
"""How many keys' allowances are remembered. Over it, the half that was used least is forgotten, in the keys' favour."""


class Admission:
    """Counts for one process. `requests_per_minute`: a minute's worth may come at once, then as many as time brings."""

    def __init__(self, max_streams: int, max_streams_per_key: int, requests_per_minute: int) -> None:
        self._max_streams = max_streams
        self._max_streams_per_key = max_streams_per_key
        self._per_minute = requests_per_minute
        self._interval_s = MINUTE_S / requests_per_minute
        self._streams: Counter[str] = Counter()
        self._all_streams = 0
        self._full_s: dict[str, float] = {}  # when a key's allowance is whole again, as in GCRA: one number is a bucket

    def enter(self, key: str, now_s: float, streams: int = 1) -> FlowGPTError | None:
        """Let in one request that has so many answers, or say why not; nothing is counted then.

        `key`: whose it is; "" is nobody's, and counts among all alone. What is refused: RateLimitError for this key,
        ServiceUnavailableError for everybody, both with `retry_after_s`; InvalidRequestError for more answers than
        there ever are.
        """
        if streams > (min(self._max_streams, self._max_streams_per_key) if key else self._max_streams):
            return InvalidRequestError(f"{streams} answers at once are more than this gateway gives", param="n")
        if key and self._streams[key] + streams > self._max_streams_per_key:
            return _too_many(f"at most {self._max_streams_per_key} answers at once for one key", AGAIN_S)
        full_s = max(now_s, self._full_s.get(key, now_s)) + self._interval_s
        early_s = full_s - now_s - MINUTE_S
        if key and early_s > self._interval_s / 2:  # half of one: sums of floats are not exact
            return _too_many(f"at most {self._per_minute} requests in a minute for one key", early_s)
        if self._all_streams + streams > self._max_streams:
            return ServiceUnavailableError(f"{self._all_streams} answers are under way", retry_after_s=AGAIN_S)
        self._remember(key, full_s)
        self._streams[key] += streams
        self._all_streams += streams
        return None

    def leave(self, key: str, streams: int = 1) -> None:
        """The request that was let in is over."""
        self._all_streams -= streams
        self._streams[key] -= streams
        if not self._streams[key]:
            del self._streams[key]

    def _remember(self, key: str, full_s: float) -> None:
        self._full_s[key] = full_s
        if len(self._full_s) > LIMIT_KEYS:
            self._full_s = dict(heapq.nlargest(LIMIT_KEYS // 2, self._full_s.items(), key=itemgetter(1)))


def _too_many(words: str, again_s: float) -> RateLimitError:
    return RateLimitError(words, status_code=429, retry_after_s=again_s)
