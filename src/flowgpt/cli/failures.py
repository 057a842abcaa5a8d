"""What a failure is in the terminal: an exit code, one line on stderr, and a hint.

The one table from error class to exit code is here; program.py, the edge, looks it up.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChallengeError,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    ProxyError,
    QuotaExceededError,
    RateLimitError,
    ServiceUnavailableError,
    StoreError,
    StreamInterruptedError,
)
from . import streams

UNEXPECTED = 1
INTERRUPTED = 130
CLOSED_PIPE = 141

WORDS: Mapping[int, str] = {
    0: "the answer is complete",
    UNEXPECTED: "something unexpected; or the answer cannot be written",
    2: "the call is wrong: fix it",
    3: "the key is rejected or not allowed; a browser check",
    4: "too many requests, or no credit left",
    5: "the service or the proxy cannot be reached, or fails",
    6: "a time limit passed",
    7: "the answer was cut; what came is on stdout",
    8: "the answer is not FlowGPT's protocol",
    9: "conversations cannot be read or written",
    INTERRUPTED: "Ctrl-C",
    CLOSED_PIPE: "the reader of stdout has gone",
}
"""All exit codes, in the words of --help."""

EXIT_CODES: Mapping[type[FlowGPTError], int] = {
    FlowGPTError: UNEXPECTED,
    InvalidRequestError: 2,
    ModelNotFoundError: 2,
    BadRequestError: 2,
    AuthenticationError: 3,
    PermissionDeniedError: 3,
    ChallengeError: 3,
    RateLimitError: 4,
    QuotaExceededError: 4,
    APIConnectionError: 5,
    ProxyError: 5,
    APIStatusError: 5,
    InternalServerError: 5,
    ServiceUnavailableError: 5,
    APITimeoutError: 6,
    StreamInterruptedError: 7,
    ProtocolError: 8,
    NotFoundError: 8,
    StoreError: 9,
}


def exit_code(error: FlowGPTError) -> int:
    """The exit code of an error, by its class or the nearest class above it."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def tell(error: FlowGPTError) -> None:
    """An error as people are told it."""
    hint = error.hint or f"docs/errors.md has a row for {error.code}"
    say(error.message, hint if error.retry_after_s is None else f"{hint} (in {error.retry_after_s:g} s)")


def say(message: str, hint: str | None = None) -> None:
    """The line of a failure on stderr, and the next step under it."""
    streams.note(f"flowgpt: {message}")
    if hint:
        streams.note(f"hint: {hint}")
