"""Whose fault a failure is, which decides whether the row fails, waits or ends the batch. Decisions only."""

from __future__ import annotations

from typing import Literal

from ..errors import (
    AuthenticationError,
    BadRequestError,
    FlowGPTError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    QuotaExceededError,
    StoreError,
)

CAPTIVE = ("tls_error", "not_a_stream", "redirect_refused", "compression_refused")
"""What a network answers with that wants a login first, or a service under repair."""

Cause = Literal["row", "doubt", "service", "batch"]


def cause(error: FlowGPTError) -> Cause:
    """Whose fault it is: the row's, for certain or maybe; the service's or the way's, which may pass; or the batch's.

    The last is what no row will be answered with: a key, the credit, an address.
    """
    if isinstance(error, InvalidRequestError | BadRequestError) or error.code in ("empty_reply", "response_too_large"):
        return "row"
    if isinstance(error, AuthenticationError | PermissionDeniedError | QuotaExceededError | NotFoundError | StoreError):
        return "batch"
    if isinstance(error, ProxyError) and error.retry_class == "never":
        return "batch"
    if (error.retry_class == "safe" or error.code in CAPTIVE) and not error.partial_text:
        return "service"
    return "doubt"
