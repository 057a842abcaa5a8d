"""The programs that benchmarks measure with: they count right, and take no wrong stream for a good one."""

from __future__ import annotations

import sys

import pytest

from benchmarks.figures import WrongResult
from benchmarks.floors import request
from benchmarks.native import Client, Mode, Upstream, held, load


@pytest.mark.parametrize("mode", ["burst", "each", "cadence"])
@pytest.mark.parametrize(("path", "end"), [(request.PATH, ""), ("/v1/chat/completions", "[DONE]")])
def test_every_text_of_every_stream_is_counted(mode: Mode, path: str, end: str) -> None:
    with Upstream(mode, 30, interval_ms=1) as upstream:
        found = load(upstream.origin, path, {"stream": True}, count=30, streams=40, connections=4, end=end)

    assert (found.streams, found.failed, found.texts) == (40, 0, 1200)
    assert 0 < found.first_p50_us <= found.first_p99_us


@pytest.mark.parametrize(("count", "end"), [(31, ""), (29, ""), (30, "[DONE]")], ids=["few", "many", "no end"])
def test_a_stream_without_all_its_texts_or_its_end_has_failed(count: int, end: str) -> None:
    with Upstream("burst", 30) as upstream, pytest.raises(WrongResult):
        load(upstream.origin, request.PATH, {}, count=count, streams=2, end=end)


def test_streams_are_held_open_after_their_first_text() -> None:
    with Upstream("hold", 2) as upstream, held(upstream.origin, request.PATH, {}, streams=100):
        found = load(upstream.origin, request.PATH, "warm up", count=2, streams=1, end="")

    assert found.texts == 2


@pytest.mark.parametrize("variant", ["flowgpt", "socket"])
def test_a_client_reads_a_crowd_that_goes_on_together(variant: str) -> None:
    with (
        Upstream("cadence", 5, interval_ms=1, crowd=3) as upstream,
        Client([sys.executable, "-m", "benchmarks.clients", variant, upstream.origin]) as client,
    ):
        asked = client.ask(5, streams=3, together=True)

    assert (asked.wrong, asked.texts) == (0, 15)
    assert 0 < asked.flow_cpu_s < asked.cpu_s
