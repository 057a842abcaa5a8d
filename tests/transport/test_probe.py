"""One attempt, watched: how far it came, and that it was one."""

from __future__ import annotations

import asyncio
import email.utils
import time
from typing import Any

import pytest

from flowgpt.transport.probe import Outcome, probe
from tests.transport.calls import call, limits
from tests.upstream import CHUNKED, FIN, HUNG_UP, LAST, Step, Upstream, answer, chunk, event, head


def watch(script: list[Step], **options: Any) -> Outcome:
    """The outcome of one probe; the service heard one request, and the connection is closed or idle."""
    with Upstream(script) as upstream:
        outcome = asyncio.run(probe(call(upstream.url, **({"timeout": limits(), "max_retries": 5} | options))))
        upstream.wait_for(lambda: upstream.open == 0)
        assert (len(upstream.requests), upstream.connections) == (1, 1)
    return outcome


def date(ahead_s: float) -> str:
    return f"Date: {email.utils.formatdate(time.time() + ahead_s, usegmt=True)}"


def test_a_whole_reply_has_its_times_and_figures() -> None:
    lines = chunk(event("a")) + chunk(event("A title", "title")) + chunk(event("b"))
    outcome = watch([CHUNKED, lines, LAST])

    assert outcome.failure is None
    assert outcome.head_s is not None
    assert outcome.total_s is not None
    assert 0 < outcome.head_s <= outcome.total_s
    assert (outcome.verified, outcome.events, dict(outcome.unknown_events)) == (True, 3, {"'title'": 1})
    assert outcome.offset_s == 0.0


def test_an_end_without_proof_is_not_verified() -> None:
    assert not watch([head(200, "Connection: close"), event("a"), FIN]).verified


@pytest.mark.parametrize("ahead_s", [-540, 0, 600, 200_000])
@pytest.mark.parametrize("status", [200, 401, 429, 500])
def test_the_service_s_clock_is_read_whatever_the_answer(status: int, ahead_s: int) -> None:
    """Date has whole seconds: it is up to one behind, and the answer was on its way."""
    outcome = watch([answer(status, event("a") if status == 200 else b"", date(ahead_s))])

    assert (outcome.failure is None) == (status == 200)
    assert ahead_s - 20 < outcome.offset_s <= ahead_s + 0.1
    assert outcome.head_s is not None


@pytest.mark.parametrize(
    ("script", "code", "phase"),
    [
        ([answer(503, b"", "Retry-After: 0")], "service_unavailable", "head"),
        ([answer(401, b"", date(-540))], "clock_skew", "head"),
        ([FIN], "stream_interrupted", "head"),
        ([CHUNKED, chunk(event("a")), FIN], "stream_truncated", "body"),
    ],
    ids=["503", "clock_skew", "closed", "cut"],
)
def test_what_a_call_would_send_again_is_sent_once(script: list[Step], code: str, phase: str) -> None:
    outcome = watch(script)

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.phase) == (code, phase)


def test_the_limit_of_the_whole_reply_holds() -> None:
    outcome = watch([CHUNKED, chunk(event("a")), HUNG_UP], timeout=limits(total_s=0.1))

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.events) == ("deadline_exceeded", 1)
