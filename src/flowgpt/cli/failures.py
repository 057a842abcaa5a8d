"""What a failure is in the terminal: an exit code, one line on stderr, and a hint.

The one table from error class to exit code is here; program.py, the edge, looks it up. The library's hints are for
Python; STEPS has the terminal's words where those would not help.
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
TERMINATED = 143

WORDS: Mapping[int, str] = {
    0: "the answer is complete",
    UNEXPECTED: "something unexpected; the answer cannot be written; rows of a batch failed",
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
    TERMINATED: "ended by SIGTERM (chat, batch)",
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

_CUT = "ask again; what came is on stdout"
_PATIENCE = "try later, or raise {} under [timeout] in the configuration"

STEPS: Mapping[str, str] = {
    "model_not_found": "`flowgpt models` lists them; extra_models in the configuration adds to the list",
    "header_injection": "fix the value: often a newline at its end",
    "payload_too_large": "send less",
    "proxy_connect_error": "check the proxy's address and credentials, or use --proxy '' for none",
    "deadline_exceeded": "try later, or give it more time with --timeout",
    "authentication_failed": "check FLOWGPT_API_KEY, or api_key in the configuration, and this machine's clock",
    "request_timeout": "ask again",
    "too_early": "ask again",
    "connect_timeout": _PATIENCE.format("connect_s"),
    "header_timeout": _PATIENCE.format("head_s"),
    "first_event_timeout": _PATIENCE.format("first_event_s"),
    "idle_timeout": _PATIENCE.format("idle_s"),
    "consumer_stalled": "ask again and read on, or raise consumer_s under [timeout] in the configuration",
    "stream_interrupted": _CUT,
    "stream_truncated": _CUT,
    "connection_closed_idle": _CUT,
}
"""The next step by an error's code, in words for the terminal. Any other code has the library's hint, or none."""


def exit_code(error: FlowGPTError) -> int:
    """The exit code of an error, by its class or the nearest class above it."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def hint(error: FlowGPTError) -> str | None:
    """The next step for whoever sits at a terminal."""
    return STEPS.get(error.code, error.hint)


def tell(error: FlowGPTError) -> None:
    """An error as people are told it."""
    step = hint(error)
    say(error.message, step if error.retry_after_s is None else f"{step or 'ask again'} (in {error.retry_after_s:g} s)")


def say(message: str, hint: str | None = None) -> None:
    """The line of a failure on stderr, and the next step under it."""
    streams.note(f"flowgpt: {message}")
    if hint:
        streams.note(f"hint: {hint}")
