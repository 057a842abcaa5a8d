"""What a value must be: a raw one to a clean one, or an InvalidRequestError; and which values are secrets.

Nothing is converted in silence, and nothing is read here. What the options are is `options`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..addresses import Proxy, Secret, parse_origin
from ..errors import InvalidRequestError

EMBEDDED = "embedded"
"""What stands for the embedded server where an origin could stand; only the terminal knows how to start it."""

LIMIT_TIMEOUT_S = 1e9
"""Thirty years: an event loop can still count so far. Who wants no limit says None."""

LIMIT_DAYS = 36_525
"""A hundred years: a clock can still count so far back."""

SECRETS = {"api_key", "proxy", "base_url"}  # a base_url has one by mistake


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each part of a reply may take, in seconds; None is no limit.

    `connect_s`: DNS, TCP, TLS and the proxy's handshake together. `head_s`: from there to the response's head.
    `first_event_s`, `idle_s`: to the first event, and between events (blank lines don't count). `total_s`: the whole
    reply with all its retries. `pool_s`: waiting for a free connection. `consumer_s`: how long the reader of the
    reply may leave it alone before the connection is given up. A limit closes the connection; a reader that is behind
    still gets what had arrived by then, before the error.
    Raises: InvalidRequestError for anything but positive numbers.
    """

    connect_s: float | None = 10
    head_s: float | None = 60
    first_event_s: float | None = 60
    idle_s: float | None = 60
    total_s: float | None = None
    pool_s: float | None = 60
    consumer_s: float | None = 600

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and not (is_number(value) and 0 < value <= LIMIT_TIMEOUT_S):
                raise InvalidRequestError(f"timeout {part.name} must be a positive number of seconds, not {value!r}")


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def api_key(value: object) -> Secret | None:
    if not isinstance(value, str):
        raise InvalidRequestError("api_key must be a string")
    if not all(" " <= char <= "~" for char in value):  # J6; and a key is signed, so that its bytes must be beyond doubt
        raise InvalidRequestError("api_key has a character outside printable ASCII", code="header_injection")
    if value and not value.strip():
        raise InvalidRequestError("api_key is blank", hint="leave it out to ask anonymously")
    return Secret(value) if value else None


def base_url(value: object) -> str:
    return EMBEDDED if value == EMBEDDED else parse_origin(value)


def timeout(value: object) -> Timeouts:
    if isinstance(value, Timeouts):
        return value
    if isinstance(value, Mapping):  # [timeout] in the file
        known = {part.name for part in fields(Timeouts)}
        if unknown := set(value) - known:
            name = min(map(str, unknown))
            raise InvalidRequestError(f"timeout has no part {name!r}; the parts are {', '.join(sorted(known))}")
        return Timeouts(**value)
    if not is_number(value):
        raise InvalidRequestError(f"timeout must be a number of seconds or Timeouts, not {type(value).__name__}")
    return Timeouts(total_s=value)  # type: ignore[arg-type]  # it is a number


def whole(low: int, name: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise InvalidRequestError(f"{name} must be a whole number of at least {low}, not {value!r}")
        return value

    return check


def days(name: str) -> Callable[[object], float]:
    def check(value: object) -> float:
        if not is_number(value) or not 0 < value <= LIMIT_DAYS:  # type: ignore[operator]  # it is a number
            raise InvalidRequestError(f"{name} must be a positive number of days, not {value!r}")
        return float(value)  # type: ignore[arg-type]  # it is a number

    return check


def temperature(value: object) -> float:
    if not is_number(value) or not 0 <= value <= 2:  # type: ignore[operator]  # it is a number
        raise InvalidRequestError(f"temperature must be a number from 0 to 2, not {value!r}")
    return abs(float(value))  # type: ignore[arg-type]  # abs: no -0.0 on the wire


def text(name: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name} must be a string, not {type(value).__name__}")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidRequestError(f"{name} has a lone surrogate")
        return value

    return check


def flag(name: str) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{name} must be true or false, not {value!r}")
        return value

    return check


def texts(name: str) -> Callable[[object], tuple[str, ...]]:
    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise InvalidRequestError(f"{name} must be a list of strings")
        return tuple(value)

    return check


def mapping(name: str) -> Callable[[object], Mapping[str, Any]]:
    def check(value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise InvalidRequestError(f"{name} must be a dict with string keys")
        return dict(value)

    return check


def conceal(options: dict[str, Any], proxy: str | None = None) -> str | None:
    """Wrap the secrets among the options, in place, and give `proxy` wrapped: no traceback shows them then (K1).

    The first line of every public call that takes them.
    """
    for name in SECRETS:
        if name in options:
            options[name] = concealed(options[name])
    wrapped: str | None = concealed(proxy)
    return wrapped


def concealed(value: Any) -> Any:
    """The value as a Secret. What cannot be one is shown by its type alone."""
    if value is None or type(value) is Secret:  # each layer of a call comes here
        return value
    if isinstance(value, str):
        return Secret(value)
    # What is no string is no secret that works, but may hold one; its check needs its type, to say so.
    return value if isinstance(value, (Proxy, type)) else type(value)
