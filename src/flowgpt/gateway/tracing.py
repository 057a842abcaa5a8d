"""Traces, for those who install `flowgpt[otel]`: a span for each question, in OpenTelemetry's GenAI conventions.

Only the API package is used: whether and where spans go is its configuration's (OTEL_* variables, read by the SDK, as
under `opentelemetry-instrument flowgpt serve`). Without the package, and without a provider of spans, there is nothing
and no cost. What was asked and answered is never recorded (K3). Source: OpenTelemetry's semantic conventions, "GenAI
spans".
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

from ..formats.estimate import tokens
from ..version import __version__
from .visit import Visit

context: Any = None
trace: Any = None
propagator: Any = None
with contextlib.suppress(ImportError):
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()

LIMIT_MODEL = 100
"""How much of the asked model's name is recorded: it is what a client wrote."""


class Span(NamedTuple):
    """A span under way, and what makes it current."""

    span: Any
    token: Any


def tracer() -> Any | None:
    """OpenTelemetry's tracer, or None where its API is not installed or nobody has said where spans go."""
    provider = trace and trace.get_tracer_provider()
    return None if provider is None or isinstance(provider, trace.ProxyTracerProvider) else _tracer(provider)


@functools.cache  # there is one provider in a process
def _tracer(provider: Any) -> Any:
    return provider.get_tracer("flowgpt.gateway", __version__)


def begin(tracer: Any | None, visit: Visit) -> Span | None:
    """Open the request's span, below its `traceparent`; what the request causes is below it. Questions are POSTs."""
    if tracer is None or visit.method != "POST":
        return None
    carrier = {"traceparent": visit.traceparent} if visit.traceparent else {}
    parent = propagator.extract(carrier)
    span = tracer.start_span("POST", context=parent, kind=trace.SpanKind.SERVER)
    return Span(span, context.attach(trace.set_span_in_context(span, parent)))


def end(begun: Span | None, visit: Visit) -> None:
    """Close the span with what came of the request."""
    if begun is None:
        return
    span, token = begun
    context.detach(token)
    span.set_attributes({name: value for name, value in _attributes(visit).items() if value not in (None, "")})
    span.update_name(f"chat {visit.requested_model[:LIMIT_MODEL]}" if visit.requested_model else f"POST {visit.route}")
    if visit.code is not None:
        span.set_status(trace.Status(trace.StatusCode.ERROR, visit.code))
    span.end()


def _attributes(visit: Visit) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "http.request.method": visit.method,
        "http.response.status_code": visit.status,
        "error.type": visit.code,
        "flowgpt.request_id": visit.request_id,
    }
    if not visit.requested_model:
        return facts
    return facts | {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "flowgpt",
        "gen_ai.request.model": visit.requested_model[:LIMIT_MODEL],
        "gen_ai.request.choice.count": visit.n if visit.n > 1 else None,
        "gen_ai.request.stream": visit.stream or None,
        "gen_ai.response.model": visit.model,
        "gen_ai.response.finish_reasons": [visit.reason] if visit.reason else None,
        "gen_ai.response.time_to_first_chunk": visit.first_text_s,
        "gen_ai.usage.input_tokens": tokens(visit.prompt_characters) if visit.attempts else None,
        "gen_ai.usage.output_tokens": tokens(visit.characters) if visit.attempts else None,
        "flowgpt.upstream_attempts": visit.attempts,
    }
