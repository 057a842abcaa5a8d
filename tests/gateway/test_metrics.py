"""The figures: what is counted, that no client can make them grow, and one account of several workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from flowgpt.embedded import Server
from flowgpt.gateway.app import create_app
from flowgpt.gateway.metrics import LIMIT_CODES, Metrics, worker_ended
from flowgpt.gateway.visit import Visit
from tests.gateway.conftest import Served

Figures = dict[tuple[str, ...], float]


def visited(**facts: Any) -> Visit:
    """An answer of two texts, unless said otherwise."""
    told: dict[str, Any] = {
        "route": "chat",
        "status": 200,
        "model": "gpt-3.5-turbo",
        "attempts": 1,
        "texts": 2,
        "characters": 11,
    }
    times = {"first_text_s": 0.02, "total_s": 3.0}
    return Visit(method="POST", started_s=0.0, **({"request_id": "req_1"} | told | times | facts))


def figures(text: bytes) -> Figures:
    """The samples: name and label values, by the labels' names → value, without the times at which they began."""
    families = text_string_to_metric_families(text.decode())
    return {
        (
            sample.name.removeprefix("flowgpt_gateway_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def counted(metrics: Metrics, *visits: Visit) -> Figures:
    for visit in visits:
        metrics.begin()
        metrics.count(visit)
    return figures(metrics.render()[0])


def test_an_answer_is_counted_with_its_times_texts_and_attempts() -> None:
    shown = counted(Metrics(["gpt-3.5-turbo"]), visited(attempts=2), visited(ignored=("seed", "top_p")))

    assert shown["requests_total", "chat", "200"] == 2
    assert shown["texts_total", "gpt-3.5-turbo"] == 4
    assert shown["characters_total", "gpt-3.5-turbo"] == 22
    assert shown["upstream_attempts_total", "gpt-3.5-turbo"] == 3
    assert shown["ignored_parameters_total", "seed"] == 1
    assert (shown["request_seconds_sum", "chat"], shown["request_seconds_count", "chat"]) == (6, 2)
    assert shown["request_seconds_bucket", "2.5", "chat"] == 0
    assert shown["request_seconds_bucket", "5.0", "chat"] == 2
    assert shown["first_text_seconds_bucket", "0.01", "gpt-3.5-turbo"] == 0
    assert shown["first_text_seconds_bucket", "0.025", "gpt-3.5-turbo"] == 2
    assert shown[("requests_open",)] == 0


def test_a_failure_is_counted_by_its_code_and_what_never_came_is_not() -> None:
    refused = visited(status=401, code="invalid_api_key", attempts=0, first_text_s=None, texts=0, characters=0)
    cut = visited(code="stream_interrupted")

    shown = counted(Metrics(["gpt-3.5-turbo"]), refused, cut)

    assert shown["failures_total", "invalid_api_key", "chat"] == 1
    assert shown["failures_total", "stream_interrupted", "chat"] == 1
    assert shown["first_text_seconds_count", "gpt-3.5-turbo"] == 1


def test_a_client_that_left_before_its_answer_has_no_status() -> None:
    shown = counted(Metrics(), visited(status=None, code="client_left", first_text_s=None))

    assert shown["requests_total", "chat", "0"] == 1


def test_requests_that_are_being_answered_are_open() -> None:
    metrics = Metrics()
    metrics.begin()
    metrics.begin()
    metrics.count(visited())

    assert figures(metrics.render()[0])[("requests_open",)] == 1


def test_k10_no_client_makes_the_figures_grow() -> None:
    def storm(number: int) -> Visit:
        name = f"name-{number}"
        return visited(model=name, requested_model=name, owner=name, request_id=name, ignored=(name,), code=name)

    metrics = Metrics(["gpt-3.5-turbo"])
    shown = counted(metrics, *(storm(number) for number in range(1000)))
    text = metrics.render()[0].decode()

    assert shown["texts_total", "other"] == 2000
    assert shown["ignored_parameters_total", "other"] == 1000
    assert shown["failures_total", "other", "chat"] == 1000 - LIMIT_CODES
    assert len([key for key in shown if key[0] == "failures_total"]) == LIMIT_CODES + 1
    assert {line.partition("{")[0] for line in text.splitlines() if "name-" in line} == {
        "flowgpt_gateway_failures_total",
        "flowgpt_gateway_failures_created",
    }


def test_each_gateway_has_figures_of_its_own() -> None:
    first, second = Metrics(), Metrics()
    counted(first, visited())

    assert ("requests_total", "chat", "200") not in figures(second.render()[0])


def test_the_gateway_tells_models_apart_and_counts_ignored_parameters(upstream: Server) -> None:
    with Served(lambda: create_app(base_url=upstream.base_url)) as gateway:
        gateway.chat(seed=1, model="gemini")
        gateway.chat(seed=1, nobody_knows_this=2)

    shown = figures(gateway.app._metrics.render()[0])

    assert shown["upstream_attempts_total", "google-gemini"] == 1
    assert shown["upstream_attempts_total", "gpt-3.5-turbo"] == 1
    assert shown["ignored_parameters_total", "seed"] == 2
    assert shown["ignored_parameters_total", "other"] == 1
    assert shown[("requests_open",)] == 0


# --- several workers ----------------------------------------------------------------------------------------------

WORKER = """
import os, sys
from flowgpt.gateway.metrics import Metrics
from flowgpt.gateway.visit import Visit

metrics = Metrics()
metrics.begin()
metrics.begin()
if "count" in sys.argv:
    metrics.count(Visit(request_id="", method="GET", started_s=0.0, route="models", status=200, total_s=0.1))
    print(os.getpid())
else:
    sys.stdout.buffer.write(metrics.render()[0])
"""


def worker(folder: Path, *arguments: str) -> bytes:
    """A worker from its beginning to its end, and what it prints."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    ran = subprocess.run(
        [sys.executable, "-c", WORKER, *arguments], env=environment, stdout=subprocess.PIPE, timeout=60, check=True
    )
    return ran.stdout


def test_the_figures_of_all_workers_are_one_account(tmp_path: Path) -> None:
    pids = [int(worker(tmp_path, "count")) for _ in range(2)]

    before = figures(worker(tmp_path, "show"))
    for pid in pids:
        worker_ended(pid, str(tmp_path))
    after = figures(worker(tmp_path, "show"))

    assert (before["requests_total", "models", "200"], before[("requests_open",)]) == (2, 1 + 1 + 2)
    assert (after["requests_total", "models", "200"], after[("requests_open",)]) == (2, 2 + 2)


def test_i21_figures_that_cannot_be_written_hurt_no_request(tmp_path: Path) -> None:
    """The folder is gone when the first request of a kind is counted, which makes a file."""
    script = f"""
import shutil
from flowgpt.gateway.metrics import Metrics
from flowgpt.gateway.visit import Visit

metrics = Metrics()
shutil.rmtree({str(tmp_path)!r})
metrics.begin()
metrics.count(Visit(request_id="", method="GET", started_s=0.0, route="models", status=200, total_s=0.1))
print("served")
"""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)

    assert (ran.stdout, ran.stderr, ran.returncode) == ("served\n", "", 0)
