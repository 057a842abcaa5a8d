"""Many callers of one failing service, on a virtual clock: how much is sent, shed, and how soon it is well again.

The real Policy, Budget, Breaker and Pause decide; the clock is a heap of events, chance a seeded generator. Nothing is
waited for and nothing is sent, so the same seed gives the same figures on every machine.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from itertools import count

from flowgpt.errors import FlowGPTError, RateLimitError, ServiceUnavailableError
from flowgpt.limits.breaker import Breaker
from flowgpt.limits.pause import Pause
from flowgpt.limits.retry import Budget, GiveUp, Policy

from .figures import Claim, Table

REPLY_S = 0.05
"""How long the service takes to answer, or to fail."""

SEEDS = 5

Fate = Callable[[float, random.Random], FlowGPTError | None]
"""What becomes of an attempt that is sent at that second."""


class Fleet:
    """One process with one endpoint, and what happened: times of the sends and of the good replies, and counts."""

    def __init__(self, fate: Fate, *, seed: int, breaker: bool = True) -> None:
        self.now_s = 0.0
        self.calls = self.good = self.opened = 0
        self.sent_s: list[float] = []
        self.good_s: list[float] = []
        self.refused_s: list[float] = []
        self.random = random.Random(seed)
        self._fate = fate
        self._policy, self._budget, self._pause = Policy(), Budget(), Pause()
        self._breaker = Breaker() if breaker else None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._number), act))

    def run(self, until_s: float) -> Fleet:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        return self

    def call(self, done: Callable[[], None] = lambda: None) -> None:
        """A call begins; `done` when its caller has a reply or an error."""
        self.calls += 1
        self._attempt(1, done)

    def _attempt(self, attempt: int, done: Callable[[], None]) -> None:
        """As transport.Stream: the pause, the circuit, the send."""
        if self._pause.left(self.now_s) is not None:
            decision = self._policy.during(self._pause.turn(self.now_s, self.random.random()), time_left_s=None)
            if isinstance(decision, GiveUp):
                return done()
            return self.after(decision.seconds, lambda: self._attempt(attempt, done))
        ticket = self._breaker.admit(self.now_s) if self._breaker else 0
        if ticket is None:
            self.refused_s.append(self.now_s)
            return done()
        if attempt == 1:
            self._budget.earn()
        self.sent_s.append(self.now_s)
        failure = self._fate(self.now_s, self.random)
        return self.after(REPLY_S, lambda: self._ended(failure, ticket, attempt, done))

    def _ended(self, failure: FlowGPTError | None, ticket: int, attempt: int, done: Callable[[], None]) -> None:
        if self._breaker is not None:
            was = self._breaker.health(self.now_s).working
            self._breaker.note(ticket, failure.code if failure else None, self.now_s, self.random.random())
            self.opened += was and not self._breaker.health(self.now_s).working
        if failure is None:
            self.good += 1
            self.good_s.append(self.now_s)
            return done()
        self._pause.note(failure, self.now_s)
        decision = self._policy.after(failure, attempt=attempt, time_left_s=None, jitter=self.random.random())
        if isinstance(decision, GiveUp) or not self._budget.spend():
            return done()
        return self.after(decision.seconds, lambda: self._attempt(attempt + 1, done))


def stream(fleet: Fleet, rate: float) -> None:
    """Calls come at random, so many a second, whatever becomes of them."""

    def come() -> None:
        fleet.call()
        fleet.after(fleet.random.expovariate(rate), come)

    fleet.after(fleet.random.expovariate(rate), come)


def clients(fleet: Fleet, number: int, think_s: float) -> None:
    """So many that ask, wait for the end of their call, think for about so long, and ask again."""

    def think() -> None:
        fleet.after(fleet.random.expovariate(1 / think_s), lambda: fleet.call(think))

    for _ in range(number):
        think()


def down(_now_s: float, _chance: random.Random) -> FlowGPTError:
    return ServiceUnavailableError("down", code="service_unavailable")


def failing(share: float) -> Fate:
    return lambda now_s, chance: down(now_s, chance) if chance.random() < share else None


def outage(begin_s: float, end_s: float) -> Fate:
    return lambda now_s, chance: down(now_s, chance) if begin_s <= now_s < end_s else None


def flapping(half_s: float) -> Fate:
    return lambda now_s, chance: down(now_s, chance) if now_s % (2 * half_s) >= half_s else None


def limiting(begin_s: float, pause_s: float) -> Fate:
    """A 429 for whatever comes in the pause that begins then, with the time that is left."""

    def fate(now_s: float, _chance: random.Random) -> FlowGPTError | None:
        left_s = begin_s + pause_s - now_s
        return RateLimitError("slowly", retry_after_s=left_s) if 0 < left_s <= pause_s else None

    return fate


# --- the figures ----------------------------------------------------------------------------------------------------


def amplification(calls: int, seed: int) -> float:
    """Sends for each call, when that many meet a full outage and only the budget holds them back."""
    fleet = Fleet(down, seed=seed, breaker=False)
    for _ in range(calls):
        fleet.after(fleet.random.random(), fleet.call)
    return len(fleet.run(1000).sent_s) / calls


def sustained(seed: int) -> float:
    """Sends for each call in an outage of ten minutes at 100 calls a second, after its first ten seconds."""
    fleet = Fleet(down, seed=seed)
    stream(fleet, 100)
    calls, sent = fleet.run(10).calls, len(fleet.sent_s)
    fleet.run(600)
    return (len(fleet.sent_s) - sent) / (fleet.calls - calls)


def success(seed: int) -> float:
    """The share of good replies in ten minutes, when each send fails with a chance of 10 %."""
    fleet = Fleet(failing(0.1), seed=seed)
    stream(fleet, 100)
    fleet.run(600)
    return fleet.good / fleet.calls


def openings(share: float, rate: float, seed: int) -> float:
    """How often the circuit opens in ten minutes, when that share of the sends fails."""
    fleet = Fleet(failing(share), seed=seed)
    stream(fleet, rate)
    return fleet.run(600).opened


def recovery_s(rate: float, seed: int) -> float:
    """From the end of an outage of 30 to 40 seconds to the first good reply."""
    end_s = 50 + 10 * random.Random(seed).random()
    fleet = Fleet(outage(20, end_s), seed=seed)
    stream(fleet, rate)
    return next(at for at in fleet.run(90).good_s if at > end_s) - end_s


def peak(fate: Fate, after_s: float, think_s: float, seed: int) -> float:
    """The busiest second within a minute of `after_s`, in multiples of the steady rate, of 1,000 clients."""
    fleet = Fleet(fate, seed=seed)
    clients(fleet, 1000, think_s)
    fleet.run(after_s + 60)
    busy = Counter(int(at - after_s) for at in fleet.sent_s if at >= after_s)
    return max(busy.values()) * (think_s + REPLY_S) / 1000


def shed(seed: int) -> float:
    """Of the calls in the good halves of a service that is up and down for 10 s each, the share that was refused."""
    fleet = Fleet(flapping(10), seed=seed)
    stream(fleet, 100)
    fleet.run(600)
    good_half = [at for at in fleet.refused_s if at % 20 < 10]
    return len(good_half) / (fleet.calls / 2)


STEADY = outage(0, 0)


def run(seeds: int = SEEDS) -> list[Table]:
    """The figures: the worst of all seeds against the target."""
    table = Table(f"Callers of a failing service on a virtual clock: the worst of {seeds} seeds")
    rows: list[tuple[str, str, Callable[[int], float], float | None]] = [
        ("outage, 100 calls, budget", "sends a call", lambda seed: amplification(100, seed), 1.20),
        ("outage, 1,000 calls, budget", "sends a call", lambda seed: amplification(1000, seed), 1.11),
        ("outage, sustained", "sends a call", sustained, 0.02),
        ("10 % failures: not served", "of the calls", lambda seed: 1 - success(seed), 0.015),
        ("50 % failures, 20 a second", "openings in 10 min", lambda seed: openings(0.5, 20, seed), 0),
        ("50 % failures, 5 a second", "openings in 10 min", lambda seed: openings(0.5, 5, seed), 0),
        ("50 % failures, 2 a second", "openings in 10 min", lambda seed: openings(0.5, 2, seed), None),
        ("30 % failures, 2 a second", "openings in 10 min", lambda seed: openings(0.3, 2, seed), 0),
        ("recovery, 100 a second", "s", lambda seed: recovery_s(100, seed), 5),
        ("recovery, 10 a second", "s", lambda seed: recovery_s(10, seed), 5),
        ("flapping 10 s: shed", "of what could be", shed, 0.25),
        ("peak, no fault", "× steady", lambda seed: peak(STEADY, 60, 5, seed), None),
        ("peak after an outage", "× steady", lambda seed: peak(outage(20, 60), 60, 5, seed), 1.5),
        ("peak after a pause of 3 s", "× steady", lambda seed: peak(limiting(20, 3), 23, 5, seed), 1.5),
        ("peak after a pause of 30 s", "× steady", lambda seed: peak(limiting(20, 30), 50, 5, seed), 1.5),
    ]
    for name, unit, figure, most in rows:
        worst = max(figure(seed) for seed in range(seeds))
        table.claims.append(Claim(name, [worst], unit, None if most is None else ("≤", most)))
    return [table]
