"""Whose fault a failure is: a row for each class and each code that is told apart."""

from __future__ import annotations

import pytest

from flowgpt.batch.causes import cause
from flowgpt.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    ProxyError,
    QuotaExceededError,
    RateLimitError,
    ServiceUnavailableError,
    StreamInterruptedError,
)


def cut(text: str) -> FlowGPTError:
    error = ServiceUnavailableError("x")
    error.partial_text = text
    return error


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (InvalidRequestError("x"), "row"),
        (BadRequestError("x"), "row"),
        (ProtocolError("x", code="empty_reply"), "row"),
        (ProtocolError("x", code="response_too_large"), "row"),
        (InternalServerError("x"), "doubt"),
        (StreamInterruptedError("x"), "doubt"),
        (APITimeoutError("x"), "doubt"),
        (APITimeoutError("x", code="header_timeout"), "doubt"),
        (ProtocolError("x"), "doubt"),
        (cut("text"), "doubt"),
        (cut(""), "service"),
        (APIConnectionError("x"), "service"),
        (APIConnectionError("x", code="tls_error"), "service"),
        (RateLimitError("x"), "service"),
        (InternalServerError("x", code="service_unavailable"), "service"),
        (ServiceUnavailableError("x", code="circuit_open"), "service"),
        (ProtocolError("x", code="not_a_stream"), "service"),
        (ProxyError("x"), "service"),
        (ProxyError("x", code="proxy_auth_error"), "batch"),
        (AuthenticationError("x"), "batch"),
        (AuthenticationError("x", code="clock_skew"), "batch"),
        (PermissionDeniedError("x"), "batch"),
        (QuotaExceededError("x"), "batch"),
        (NotFoundError("x"), "batch"),
    ],
    ids=lambda value: f"{type(value).__name__} {value.code}" if isinstance(value, FlowGPTError) else value,
)
def test_whose_fault_a_failure_is(error: FlowGPTError, whose: str) -> None:
    assert cause(error) == whose
