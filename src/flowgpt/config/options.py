"""The one table of options, and what a call is made with: argument > environment > configuration file > default."""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import warnings
from collections.abc import Callable, Container, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Self

from ..addresses import Proxy, Secret, parse_proxy
from ..errors import InvalidRequestError
from ..protocol.request import PUBLIC_ORIGIN
from . import checks, file
from .checks import SECRETS, Timeouts, conceal
from .environment import environment_proxy


class _Default(float):
    """A number that a signature shows as its default: `Options.resolve` takes this very object as not given."""


TEMPERATURE = _Default(0.7)


def option(
    default: Any, check: Callable[[object], Any], text: str, *, env: str | None = None, read: Callable[[str], Any] = str
) -> Any:
    """A row: default, check, words, and the environment variable with how to read it."""
    facts = {"check": check, "help": text, "env": env, "read": read}
    return field(default_factory=default, metadata=facts) if default is dict else field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that a call can be made with, besides the messages. Each field is an option; None means "as configured"."""

    model: str = option(
        "", checks.text("model"), "model id or alias; empty is the provider's default", env="FLOWGPT_MODEL"
    )
    temperature: float = option(0.7, checks.temperature, "randomness of the reply, 0 to 2")
    api_key: Secret | None = option(
        None, checks.api_key, "sent as bearer token, to /v3/chat; empty is anonymous", env="FLOWGPT_API_KEY"
    )
    base_url: str = option(
        PUBLIC_ORIGIN, checks.base_url, "origin to ask: http(s)://host[:port], or 'public'", env="FLOWGPT_BASE_URL"
    )
    proxy: Proxy | None = option(
        None, parse_proxy, "http://, https:// or socks5://[user:password@]host:port; empty is none", env="FLOWGPT_PROXY"
    )
    timeout: Timeouts = option(
        Timeouts(),
        checks.timeout,
        "seconds for the whole reply; in Python also Timeouts for its parts",
        env="FLOWGPT_TIMEOUT",
        read=float,
    )
    max_retries: int = option(
        2, checks.whole(0, "max_retries"), "how often a request is sent again before its first text"
    )
    safe_retries_only: bool = option(
        False,
        checks.flag("safe_retries_only"),
        "send again only what surely was not processed, and never wait where the service says when",
    )
    max_connections: int = option(
        10_000,
        checks.whole(1, "max_connections"),
        "open connections of an event loop, at most; set before its first call",
        env="FLOWGPT_MAX_CONNECTIONS",
        read=int,
    )
    nsfw: bool = option(False, checks.flag("nsfw"), "the request's nsfw field")
    prompt_id: str = option("", checks.text("prompt_id"), "a character's id; empty is the bare model")
    greeting: str | None = option(None, checks.text("greeting"), "an assistant turn put before the history")
    user_name: str = option("User", checks.text("user_name"), "what a character's texts call the user")
    document_ids: tuple[str, ...] = option((), checks.texts("document_ids"), "the request's documentIds field")
    generate_image: bool = option(False, checks.flag("generate_image"), "the request's generateImage field")
    user_id: str = option("", checks.text("user_id"), "the request's userId field (with an api_key)")
    conversation_id: str = option(
        "", checks.text("conversation_id"), "the request's conversationId field (with an api_key)"
    )
    extra_models: tuple[str, ...] = option(
        (), checks.texts("extra_models"), "model ids to take besides the catalogue's"
    )
    allow_unknown_model: bool = option(False, checks.flag("allow_unknown_model"), "send any model id as it is")
    extra_body: Mapping[str, Any] = option(dict, checks.mapping("extra_body"), "further fields of the request's body")

    @classmethod
    def resolve(cls, **arguments: Any) -> Self:
        """Check the arguments and fill in what is configured. A keyword that nobody knows gives one UserWarning.

        Raises: InvalidRequestError, naming the argument, the variable, or the file and key.
        """
        conceal(arguments)
        for name in arguments.keys() - OPTIONS.keys():
            _warn_unknown(name)
        values: dict[str, Any] = {}
        for name, value in arguments.items():
            if value is not None and value is not TEMPERATURE and name in OPTIONS:
                values[name] = OPTIONS[name].metadata["check"](value)
        for name, (value, source) in configuration(besides=values).items():
            try:
                values[name] = OPTIONS[name].metadata["check"](value)
            except InvalidRequestError as error:
                raise InvalidRequestError(f"{source}: {error}", code=error.code, hint=error.hint) from None
        if "proxy" not in values:
            values["proxy"] = environment_proxy(values.get("base_url", PUBLIC_ORIGIN))
        return cls(**values)


OPTIONS: Mapping[str, Field[Any]] = {row.name: row for row in fields(Options)}

_NAMES = frozenset(OPTIONS)
_VARIABLES = tuple(
    (name, row.metadata["env"], row.metadata["read"]) for name, row in OPTIONS.items() if row.metadata["env"]
)


def written() -> Mapping[str, Any]:
    """The configuration file's table, empty when there is none. Raises: InvalidRequestError."""
    return file.written(_NAMES)


def configuration(besides: Container[str] = ()) -> dict[str, tuple[Any, str]]:
    """What environment and file say: option -> (raw value, where it stands). An empty variable is not set.

    `besides`: the options that need no looking up; each variable that is not set takes a call a microsecond or two.
    """
    values: dict[str, tuple[Any, str]] = {}
    if table := file.written(_NAMES):
        path = file.path()
        names = [name for name in table if name not in file.TABLES and name not in besides]
        values = {name: (table[name], f"{path}: {name}") for name in names}
    for name, variable, read in _VARIABLES:
        if name not in besides and (text := os.environ.get(variable)):
            value: Any = checks.concealed(text) if name in SECRETS else text
            with contextlib.suppress(ValueError):  # what cannot be read stays a string, and the check says so
                value = value if read is str else read(text)
            values[name] = (value, variable)
    return values


@functools.cache  # once per name
def _warn_unknown(name: str) -> None:
    near = difflib.get_close_matches(name, OPTIONS, 1, 0.7)
    meant = f"; did you mean {near[0]!r}?" if near else "; the request goes without it"
    warnings.warn(f"flowgpt knows no option {name!r}{meant}", UserWarning, stacklevel=2)
