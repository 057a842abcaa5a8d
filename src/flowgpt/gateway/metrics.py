"""What Prometheus is told: each request is counted once, when it is over, from its `Visit`. Nothing for each text.

Labels come from fixed sets only: routes, statuses, the provider's models, the dialects' parameters, and a bounded
number of codes (K10). No key's name, no path, nothing that a client wrote. With PROMETHEUS_MULTIPROC_DIR set (the
client library reads it, `--workers` sets it) the figures are those of all workers together.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ..formats.parameters import rows
from .dialects import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from .visit import Visit

LIMIT_CODES = 100
"""How many codes are told apart."""

PARAMETERS = frozenset(name for dialect in (CHAT, COMPLETIONS, MESSAGES, RESPONSES) for name in rows(dialect.request))

OTHER = "other"

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    """The figures of one gateway. `models`: which models are told apart; the rest is "other".

    The files under PROMETHEUS_MULTIPROC_DIR may fail, on a full disk: that hurts no request (I21).
    """

    def __init__(self, models: Collection[str] = ()) -> None:
        self._models = frozenset(models)
        self._codes: set[str] = set()
        self._registry = CollectorRegistry()
        self._open = Gauge(
            "flowgpt_gateway_requests_open",
            "Requests that are being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._requests = self._counter("requests", "Requests answered.", "route", "status")
        self._failures = self._counter("failures", "Requests refused, failed or left.", "route", "code")
        self._texts = self._counter("texts", "Texts and tool calls given out.", "model")
        self._characters = self._counter("characters", "Characters that came from the service.", "model")
        self._attempts = self._counter("upstream_attempts", "Requests made to the service.", "model")
        self._parameters = self._counter("ignored_parameters", "Parameters without effect.", "parameter")
        self._request_s = self._histogram("request_seconds", "From a request's head to its answer's end.", "route")
        self._first_text_s = self._histogram("first_text_seconds", "From a request's head to its first text.", "model")

    def _counter(self, name: str, words: str, *labels: str) -> Callable[..., Counter]:
        """A counter, by the values of its labels: remembered, since they are few, and finding it is what costs."""
        return functools.cache(Counter(f"flowgpt_gateway_{name}", words, labels, registry=self._registry).labels)

    def _histogram(self, name: str, words: str, *labels: str) -> Callable[..., Histogram]:
        name = f"flowgpt_gateway_{name}"
        return functools.cache(Histogram(name, words, labels, registry=self._registry, buckets=SECONDS).labels)

    def begin(self) -> None:
        """A request has come."""
        with contextlib.suppress(OSError):
            self._open.inc()

    def count(self, visit: Visit) -> None:
        """Its answer has ended, well or not."""
        with contextlib.suppress(OSError):
            self._open.dec()
            self._count(visit)

    def _count(self, visit: Visit) -> None:
        self._requests(visit.route, visit.status or 0).inc()
        if visit.total_s is not None:
            self._request_s(visit.route).observe(visit.total_s)
        if visit.code is not None:
            self._failures(visit.route, self._bounded(visit.code)).inc()
        for name in visit.ignored:
            self._parameters(name if name in PARAMETERS else OTHER).inc()
        if visit.attempts:
            model = visit.model if visit.model in self._models else OTHER
            self._attempts(model).inc(visit.attempts)
            self._texts(model).inc(visit.texts)
            self._characters(model).inc(visit.characters)
            if visit.first_text_s is not None:
                self._first_text_s(model).observe(visit.first_text_s)

    def _bounded(self, code: str) -> str:
        """The code; "other" once there are too many: a provider may bring its own."""
        if code not in self._codes and len(self._codes) >= LIMIT_CODES:
            return OTHER
        self._codes.add(code)
        return code

    def render(self) -> tuple[bytes, str]:
        """The figures in Prometheus' text format, and its content type."""
        return generate_latest(_shared() or self._registry), CONTENT_TYPE_LATEST


def worker_ended(pid: int, directory: str) -> None:
    """A worker has ended: its requests are open no more. `directory`: its PROMETHEUS_MULTIPROC_DIR."""
    mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]


def _shared() -> CollectorRegistry | None:
    """The figures of all workers, when there are several."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # no PROMETHEUS_MULTIPROC_DIR: this process is all there is
        return None
    return registry
