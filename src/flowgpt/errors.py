"""The error tree: what went wrong, said so that a caller can act on it. Nothing else lives here.

A leaf exists only where a caller would act differently; `code` names the exact fault (docs/errors.md lists them).

    FlowGPTError
    ├─ InvalidRequestError (ValueError)   the call is wrong; nothing was sent
    │  └─ ModelNotFoundError              no such model; the message names the nearest ones
    ├─ APIConnectionError                 the way: DNS, refused, TLS
    │  ├─ APITimeoutError                 a deadline passed; `code` says which
    │  ├─ ProxyError                      the proxy, not the service
    │  └─ StreamInterruptedError          the reply was cut; `partial_text` holds what came
    ├─ ProtocolError                      the answer is not the protocol
    ├─ APIStatusError                     the service refused, with an HTTP status
    │  ├─ BadRequestError 400 and other 4xx · AuthenticationError 401 · NotFoundError 404, 410
    │  ├─ PermissionDeniedError 403
    │  │  └─ ChallengeError               a browser check, which this client does not bypass
    │  ├─ RateLimitError 429
    │  │  └─ QuotaExceededError           no credit left: 402, some 429, or the service's in-band text
    │  └─ InternalServerError 5xx
    ├─ ServiceUnavailableError            refused here: circuit open, overloaded, shutting down
    └─ StoreError                         conversations could not be read or written

Cancellation is never wrapped, and no other exception class leaves the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

RetryClass = Literal["safe", "ambiguous", "never"]

RETRY_CLASSES: Mapping[str, RetryClass] = {
    "dns_error": "safe",
    "connect_error": "safe",
    "connection_closed_idle": "safe",
    "connect_timeout": "safe",
    "proxy_connect_error": "safe",
    "pool_timeout": "safe",
    "rate_limited": "safe",
    "service_unavailable": "safe",
    "too_early": "safe",
    "clock_skew": "safe",
    "circuit_open": "safe",
    "overloaded": "safe",
    "shutting_down": "safe",
    "store_busy": "safe",
    "header_timeout": "ambiguous",
    "first_event_timeout": "ambiguous",
    "idle_timeout": "ambiguous",
    "stream_interrupted": "ambiguous",
    "stream_truncated": "ambiguous",
    "empty_reply": "ambiguous",
    "request_timeout": "ambiguous",
    "server_error": "ambiguous",
}
"""What may be sent again: `safe` was surely not processed, `ambiguous` maybe. All other codes: never."""


class FlowGPTError(Exception):
    """The base of all errors of this library.

    `code`: the exact fault, stable, snake_case. `retry_class`: what RETRY_CLASSES says of it, unless the fault's own
    row says otherwise. `retriable`: whether the same call may succeed later.
    `retry_after_s`: how long the service asked to wait. `attempts`: how many were made.
    `phase`: where it failed: `pool`, `connect`, `head`, `body` (None: refused here, before the network).
    `partial_text`: the text that had arrived. `request_id`: the service's, when it gave one. `hint`: the next step.
    `causes`: of a Fallback, what each provider that was asked said, in order; the error itself is the last of them.
    """

    code: str = "error"
    hint: str | None = None
    retry_after_s: float | None = None
    phase: str | None = None
    request_id: str | None = None
    attempts: int = 0
    partial_text: str = ""
    causes: tuple[FlowGPTError, ...] = ()

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        for name, value in facts.items():
            if value is not None:  # what is not known stays as the class has it
                setattr(self, name, value)
        self.retry_class: RetryClass = facts.get("retry_class") or RETRY_CLASSES.get(self.code, "never")

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def retriable(self) -> bool:
        """True when nothing of the reply was delivered and the fault may pass."""
        return self.retry_class != "never" and not self.partial_text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code}: {self.message!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class InvalidRequestError(FlowGPTError, ValueError):
    """The call is wrong; nothing was sent. Fix the call. `param`: which part of a request's body is at fault."""

    code = "invalid_request"
    param: str | None = None


class ModelNotFoundError(InvalidRequestError):
    """The model is not in the catalogue; the message names the nearest ids and how to use it anyway."""

    code = "model_not_found"
    param = "model"


class APIConnectionError(FlowGPTError):
    """The service could not be reached: DNS, refused, TLS."""

    code = "connect_error"


class APITimeoutError(APIConnectionError):
    """A deadline passed; `code` says which, `Timeouts` sets them."""

    code = "deadline_exceeded"
    hint = "try later, or raise `timeout`"


class ProxyError(APIConnectionError):
    """The proxy refused, failed, or wants other credentials."""

    code = "proxy_connect_error"


class StreamInterruptedError(APIConnectionError):
    """The reply was cut; `partial_text` is what came, `tail` the bytes of the line that was cut."""

    code = "stream_interrupted"
    hint = "ask again: the text that came is in partial_text"
    tail: bytes = b""


class ProtocolError(FlowGPTError):
    """The answer is not FlowGPT's protocol. If it lasts, the service has changed: report it."""

    code = "bad_event"
    hint = "check base_url; if it is right, and this lasts, the protocol has changed: report it"


class APIStatusError(FlowGPTError):
    """The service answered with a status that is not a reply. `offset_s`: how far its clock is ahead; 0: unknown."""

    code = "bad_status"
    status_code: int = 0
    offset_s: float = 0.0


class BadRequestError(APIStatusError):
    """The service refuses the request as it is (400 and other 4xx)."""

    code = "bad_request"
    hint = "change the request; if it is right, the protocol may have changed"


class AuthenticationError(APIStatusError):
    """The service rejected the key (401). Change the key."""

    code = "authentication_failed"


class PermissionDeniedError(APIStatusError):
    """The key is valid but not allowed to do this (403)."""

    code = "permission_denied"


class ChallengeError(PermissionDeniedError):
    """The service asks for a browser check; this client does not bypass it."""

    code = "challenge"


class NotFoundError(APIStatusError):
    """The address is gone (404, 410): the API may have changed."""

    code = "not_found"


class RateLimitError(APIStatusError):
    """Too many requests (429). Wait `retry_after_s`."""

    code = "rate_limited"


class QuotaExceededError(RateLimitError):
    """No credit left. Waiting a moment does not help."""

    code = "quota_exceeded"


class InternalServerError(APIStatusError):
    """The service failed (5xx)."""

    code = "server_error"
    hint = "try later"


class ServiceUnavailableError(FlowGPTError):
    """Refused here, not by the service: circuit open, overloaded, shutting down."""

    code = "overloaded"


class StoreError(FlowGPTError):
    """Conversations could not be read or written."""

    code = "store_error"
