"""The gateway's settings: one table, with what each means. Argument > `[gateway]` in the file > default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Self

from .. import config
from ..addresses import parse_origin
from ..errors import InvalidRequestError


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError("a positive number of seconds")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise ValueError("a list of strings")
    return tuple(value)


def _hosts(value: object) -> tuple[str, ...]:
    hosts = _texts(value)
    written = [f"[{host.strip('[]')}]" if host.count(":") > 1 else host for host in hosts]  # IPv6, bare or not
    if not all(_is_origin(f"http://{host}") for host in written):
        raise ValueError("a list of host names or addresses, without scheme or path")
    return hosts


def _origins(value: object) -> tuple[str, ...]:
    origins = _texts(value)
    if not all(_is_origin(origin) and parse_origin(origin) == origin for origin in origins):
        raise ValueError("a list of origins as browsers write them: https://app.example, without a path")
    return origins


def _is_origin(text: str) -> bool:
    try:
        return bool(parse_origin(text))
    except InvalidRequestError:
        return False


def _names(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in [*value, *value.values()]):
        raise ValueError("a table of strings")
    return dict(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _setting(default: Any, check: Callable[[object], Any], words: str) -> Any:
    facts = {"check": check, "help": words}
    return field(default_factory=default, metadata=facts) if default is dict else field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a gateway behaves. Limits count for each worker by itself."""

    model_names: Mapping[str, str] = _setting(
        dict, _names, "foreign model names and the models that answer for them, as gpt-4o-mini=gpt-3.5-turbo"
    )
    any_model: str = _setting("", _text, "the model that answers for every name that nobody knows; empty: 404")
    allow_hosts: tuple[str, ...] = _setting((), _hosts, "Host names to answer to besides loopback's and the bound one")
    allow_origins: tuple[str, ...] = _setting((), _origins, "web origins whose pages may ask, as https://app.example")
    insecure_no_auth: bool = _setting(False, _flag, "ask nobody for a key, on whatever address")
    max_streams: int = _setting(2000, _count, "answers under way at once, at most; more are refused with 503")
    max_streams_per_key: int = _setting(200, _count, "answers under way at once for one key; more are refused with 429")
    requests_per_minute: int = _setting(6000, _count, "requests of one key in a minute; more are refused with 429")
    hold_s: float = _setting(20.0, _seconds, "how long a stream's status waits for the first text")
    heartbeat_s: float = _setting(10.0, _seconds, "how long a stream is silent before a comment is sent")
    body_s: float = _setting(30.0, _seconds, "how long a request's body may take")
    write_s: float = _setting(30.0, _seconds, "how long a client may leave its answer unread")
    retention_days: float = _setting(30.0, _seconds, "how long a stored response is kept, in days")

    @classmethod
    def resolve(cls, **arguments: Any) -> Self:
        """Check the arguments, and fill in what the file says. Raises: InvalidRequestError with file and key (I22)."""
        table, path = config.gateway_table()
        values: dict[str, Any] = {}
        given = [(name, value, f"{path}: gateway.") for name, value in table.items()]
        given += [(name, value, "") for name, value in arguments.items() if value is not None]
        for name, value, source in given:
            if name not in SETTINGS:
                raise InvalidRequestError(f"{source}{name}: there is no such setting; they are {', '.join(SETTINGS)}")
            try:
                values[name] = SETTINGS[name].metadata["check"](value)
            except ValueError as error:
                raise InvalidRequestError(f"{source}{name} must be {error}, not {value!r}") from None
        return cls(**values)


SETTINGS: Mapping[str, Field[Any]] = {setting.name: setting for setting in fields(Settings)}
