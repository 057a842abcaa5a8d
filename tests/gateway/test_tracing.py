"""Traces: one span a question, by OpenTelemetry's conventions, below the caller's; nothing of what was said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flowgpt.embedded import Server
from flowgpt.gateway import tracing
from flowgpt.gateway.app import create_app
from flowgpt.gateway.visit import Visit
from tests.conftest import API_KEY
from tests.gateway.conftest import Served

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
PARENT_ID = 0x00F067AA0BA902B7
TRACEPARENT = f"00-{TRACE_ID:032x}-{PARENT_ID:016x}-01"


class Recorded:
    """A provider that keeps its spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def span(self) -> tuple[ReadableSpan, dict[str, Any]]:
        """The only one, and its attributes."""
        (span,) = self.spans()
        return span, dict(span.attributes or {})


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorder = Recorded()
    yield recorder
    recorder.provider.shutdown()


def visited(**facts: Any) -> Visit:
    told: dict[str, Any] = {"request_id": "req_1", "method": "POST", "route": "chat", "started_s": 0.0}
    return Visit(**(told | facts))


def test_an_answer_is_a_span_of_the_genai_conventions(recorded: Recorded) -> None:
    visit = visited(traceparent=TRACEPARENT)
    begun = tracing.begin(recorded.tracer, visit)
    visit.requested_model, visit.model, visit.stream = "gemini", "google-gemini", True
    visit.status, visit.reason, visit.attempts, visit.first_text_s = 200, "stop", 1, 0.25
    visit.prompt_characters, visit.characters = 9, 8
    tracing.end(begun, visit)
    span, attributes = recorded.span()

    assert (span.name, span.kind) == ("chat gemini", SpanKind.SERVER)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "flowgpt",
        "gen_ai.request.model": "gemini",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "google-gemini",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "flowgpt.request_id": "req_1",
        "flowgpt.upstream_attempts": 1,
    }
    assert span.context is not None
    assert span.context.trace_id == TRACE_ID
    assert span.parent is not None
    assert span.parent.span_id == PARENT_ID
    assert span.status.status_code is StatusCode.UNSET


def test_a_failure_is_an_error_with_its_code(recorded: Recorded) -> None:
    visit = visited(status=401, code="invalid_api_key")
    tracing.end(tracing.begin(recorded.tracer, visit), visit)
    span, attributes = recorded.span()

    assert (span.name, span.status.status_code) == ("POST chat", StatusCode.ERROR)
    assert attributes["error.type"] == "invalid_api_key"
    assert "gen_ai.request.model" not in attributes


@pytest.mark.parametrize("given", [None, "", "nonsense", "00-0-0-01", "é" * 1000])
def test_a_traceparent_that_is_none_begins_a_trace(recorded: Recorded, given: str | None) -> None:
    visit = visited(traceparent=given)
    tracing.end(tracing.begin(recorded.tracer, visit), visit)

    assert recorded.span()[0].parent is None


def test_what_a_request_causes_is_below_its_span(recorded: Recorded) -> None:
    visit = visited()
    begun = tracing.begin(recorded.tracer, visit)
    recorded.tracer.start_span("upstream").end()
    tracing.end(begun, visit)
    upstream, request = recorded.spans()

    assert upstream.parent == request.context
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE"])
def test_only_questions_are_traced(recorded: Recorded, method: str) -> None:
    visit = visited(method=method)
    tracing.end(tracing.begin(recorded.tracer, visit), visit)

    assert recorded.spans() == ()


def test_a_long_name_of_a_client_is_cut(recorded: Recorded) -> None:
    visit = visited(requested_model="x" * 1_000_000)
    tracing.end(tracing.begin(recorded.tracer, visit), visit)
    span, attributes = recorded.span()

    assert (len(span.name), len(attributes["gen_ai.request.model"])) == (105, 100)


def test_k3_the_gateway_traces_its_answers_and_nothing_of_what_was_said(
    upstream: Server, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "tracer", lambda: recorded.tracer)
    with Served(lambda: create_app(base_url=upstream.base_url)) as gateway:
        gateway.request("GET", "/healthz")
        answer = gateway.request(
            "POST",
            "/v1/chat/completions",
            {"model": "gemini", "messages": [{"role": "user", "content": "secret-word"}]},
            headers={"traceparent": TRACEPARENT, "authorization": f"Bearer {API_KEY}"},
        )
    span, attributes = recorded.span()

    assert b"secret-word" in answer.body
    assert span.name == "chat gemini"
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["gen_ai.usage.output_tokens"] == answer.json["usage"]["completion_tokens"]
    assert span.parent is not None
    assert span.parent.span_id == PARENT_ID
    assert [word for word in ("secret-word", API_KEY) if word in span.to_json()] == []


def test_without_the_package_there_is_no_tracer_and_no_error() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None
from flowgpt.gateway import tracing
from flowgpt.gateway.visit import Visit

visit = Visit(request_id="req_1", method="POST", started_s=0.0)
tracing.end(tracing.begin(tracing.tracer(), visit), visit)
print(tracing.tracer())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.stdout, ran.stderr) == ("None\n", "")


def test_with_the_package_alone_nothing_is_traced_until_somebody_says_where_spans_go() -> None:
    script = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from flowgpt.gateway import tracing

print(tracing.tracer())
trace.set_tracer_provider(TracerProvider())
print(type(tracing.tracer()).__name__, tracing.tracer() is tracing.tracer())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.stdout, ran.stderr) == ("None\nTracer True\n", "")
