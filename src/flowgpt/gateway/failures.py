"""What a failure is for a gateway's client: an HTTP status, a stable code, and whether asking again may help.

The one table from error class to status is here. Each dialect puts a `Problem` into its own error object.
"""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Mapping, Sequence

from ..errors import (
    APITimeoutError,
    FlowGPTError,
    InvalidRequestError,
    ModelNotFoundError,
    RateLimitError,
    ServiceUnavailableError,
    StoreError,
)
from ..formats.pieces import Problem

log = logging.getLogger(__name__)

STATUSES: Mapping[type[FlowGPTError], tuple[int, str | None]] = {
    InvalidRequestError: (400, None),
    ModelNotFoundError: (404, "GET /v1/models lists them; who runs this gateway can add names with --model-name"),
    RateLimitError: (429, None),
    APITimeoutError: (504, "try later"),
    ServiceUnavailableError: (503, None),
    StoreError: (503, None),
    FlowGPTError: (502, None),
}
"""By the nearest class: the status, and the next step where the library's own is for Python.

All that the service did wrong, its own 401 and 5xx too, is a bad gateway's 502.
"""


ADDRESS = re.compile(r"https?://[^\s,;)]+")


class Refusal(Exception):
    """Refused by the gateway itself, with its status. Never leaves this package."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.problem = Problem(
            status=status,
            code=code,
            message=message,
            param=param,
            retry_after_s=retry_after_s,
            retriable=status in (408, 429, 503),
        )
        self.headers = headers


def problem(error: Exception) -> Problem:
    """The failure as HTTP tells it; what is none of ours is a fault of the gateway, whose words are not shown."""
    if isinstance(error, Refusal):
        return error.problem
    if not isinstance(error, FlowGPTError):
        place = traceback.extract_tb(error.__traceback__)[-1:]  # where, and none of the values (K1)
        where = "".join(f" in {frame.name}, {frame.filename}:{frame.lineno}" for frame in place)
        with contextlib.suppress(Exception):  # a strange handler's fault is not the request's
            log.error("unexpected %s%s", type(error).__name__, where, exc_info=log.isEnabledFor(logging.DEBUG))
        return Refusal(500, "internal_error", f"the gateway failed: {type(error).__name__}").problem
    status, step = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    hint = step or error.hint
    return Problem(
        status=413 if error.code == "payload_too_large" else status,
        code=error.code,
        message=f"{_words(error)} ({hint})" if hint else _words(error),
        param=getattr(error, "param", None),
        retry_after_s=error.retry_after_s,
        retriable=error.retriable and error.attempts <= 1,  # who has tried again already asks for no more of it
        partial_text=error.partial_text,
    )


def _words(error: FlowGPTError) -> str:
    """The error's words, less what only the operator is to know: the upstream's address, the store's place."""
    if isinstance(error, StoreError):
        return "keys and stored responses cannot be read or written now"
    return error.message if isinstance(error, InvalidRequestError) else ADDRESS.sub("the service", error.message)
