"""What a call is made with: the one table of options, and where their values come from.

Argument > environment > configuration file > default, resolved once for each call. The environment, the file and the
device id are read here and nowhere else; importing this module reads nothing. Secrets never show in a `repr`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import ipaddress
import os
import secrets
import string
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from .addresses import Proxy, Secret, parse_origin, parse_proxy
from .errors import InvalidRequestError
from .protocol.request import PUBLIC_ORIGIN
from .protocol.signing import DEVICE_ID

LIMIT_TIMEOUT_S = 1e9
"""Thirty years: an event loop can still count so far. Who wants no limit says None."""


EMBEDDED = "embedded"
"""What stands for the embedded server where an origin could stand; only the terminal knows how to start it."""


GATEWAY = "gateway"
"""The file's table for `flowgpt serve`."""

PROVIDERS, PROVIDER = "providers", "provider"
"""The file's list of who answers, and its table of them: [provider.NAME]."""

NO_OPTIONS = frozenset({GATEWAY, PROVIDERS, PROVIDER})
"""What the file has besides options; a call takes no notice of it."""


class _Default(float):
    """A number that a signature shows as its default: `Options.resolve` takes this very object as not given."""


TEMPERATURE = _Default(0.7)


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
            if value is not None and not (_is_number(value) and 0 < value <= LIMIT_TIMEOUT_S):
                raise InvalidRequestError(f"timeout {part.name} must be a positive number of seconds, not {value!r}")


# --- the checks: a raw value to a clean one, or an InvalidRequestError -------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _api_key(value: object) -> Secret | None:
    if not isinstance(value, str):
        raise InvalidRequestError("api_key must be a string")
    if not all(" " <= char <= "~" for char in value):  # J6; and a key is signed, so that its bytes must be beyond doubt
        raise InvalidRequestError("api_key has a character outside printable ASCII", code="header_injection")
    if value and not value.strip():
        raise InvalidRequestError("api_key is blank", hint="leave it out to ask anonymously")
    return Secret(value) if value else None


def _base_url(value: object) -> str:
    return EMBEDDED if value == EMBEDDED else parse_origin(value)


def _timeout(value: object) -> Timeouts:
    if isinstance(value, Timeouts):
        return value
    if isinstance(value, Mapping):  # [timeout] in the file
        known = {part.name for part in fields(Timeouts)}
        if unknown := set(value) - known:
            name = min(map(str, unknown))
            raise InvalidRequestError(f"timeout has no part {name!r}; the parts are {', '.join(sorted(known))}")
        return Timeouts(**value)
    if not _is_number(value):
        raise InvalidRequestError(f"timeout must be a number of seconds or Timeouts, not {type(value).__name__}")
    return Timeouts(total_s=value)  # type: ignore[arg-type]  # it is a number


def _whole(low: int, name: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise InvalidRequestError(f"{name} must be a whole number of at least {low}, not {value!r}")
        return value

    return check


def _temperature(value: object) -> float:
    if not _is_number(value) or not 0 <= value <= 2:  # type: ignore[operator]  # it is a number
        raise InvalidRequestError(f"temperature must be a number from 0 to 2, not {value!r}")
    return abs(float(value))  # type: ignore[arg-type]  # abs: no -0.0 on the wire


def _text(name: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name} must be a string, not {type(value).__name__}")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise InvalidRequestError(f"{name} has a lone surrogate")
        return value

    return check


def _flag(name: str) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{name} must be true or false, not {value!r}")
        return value

    return check


def _texts(name: str) -> Callable[[object], tuple[str, ...]]:
    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise InvalidRequestError(f"{name} must be a list of strings")
        return tuple(value)

    return check


def _object(name: str) -> Callable[[object], Mapping[str, Any]]:
    def check(value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise InvalidRequestError(f"{name} must be a dict with string keys")
        return dict(value)

    return check


# --- the table ---------------------------------------------------------------------------------------------------


def _option(
    default: Any, check: Callable[[object], Any], text: str, *, env: str | None = None, read: Callable[[str], Any] = str
) -> Any:
    """A row: default, check, words, and the environment variable with how to read it."""
    facts = {"check": check, "help": text, "env": env, "read": read}
    return field(default_factory=default, metadata=facts) if default is dict else field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that a call can be made with, besides the messages. Each field is an option; None means "as configured"."""

    model: str = _option("", _text("model"), "model id or alias; empty is the provider's default", env="FLOWGPT_MODEL")
    temperature: float = _option(0.7, _temperature, "randomness of the reply, 0 to 2")
    api_key: Secret | None = _option(
        None, _api_key, "sent as bearer token, to /v3/chat; empty is anonymous", env="FLOWGPT_API_KEY"
    )
    base_url: str = _option(
        PUBLIC_ORIGIN, _base_url, "origin to ask: http(s)://host[:port], or 'public'", env="FLOWGPT_BASE_URL"
    )
    proxy: Proxy | None = _option(
        None, parse_proxy, "http://, https:// or socks5://[user:password@]host:port; empty is none", env="FLOWGPT_PROXY"
    )
    timeout: Timeouts = _option(
        Timeouts(),
        _timeout,
        "seconds for the whole reply; in Python also Timeouts for its parts",
        env="FLOWGPT_TIMEOUT",
        read=float,
    )
    max_retries: int = _option(2, _whole(0, "max_retries"), "how often a request is sent again before its first text")
    safe_retries_only: bool = _option(
        False,
        _flag("safe_retries_only"),
        "send again only what surely was not processed, and never wait where the service says when",
    )
    max_connections: int = _option(
        10_000,
        _whole(1, "max_connections"),
        "open connections of an event loop, at most; set before its first call",
        env="FLOWGPT_MAX_CONNECTIONS",
        read=int,
    )
    nsfw: bool = _option(False, _flag("nsfw"), "the request's nsfw field")
    prompt_id: str = _option("", _text("prompt_id"), "a character's id; empty is the bare model")
    greeting: str | None = _option(None, _text("greeting"), "an assistant turn put before the history")
    document_ids: tuple[str, ...] = _option((), _texts("document_ids"), "the request's documentIds field")
    generate_image: bool = _option(False, _flag("generate_image"), "the request's generateImage field")
    user_id: str = _option("", _text("user_id"), "the request's userId field (with an api_key)")
    conversation_id: str = _option("", _text("conversation_id"), "the request's conversationId field (with an api_key)")
    extra_models: tuple[str, ...] = _option((), _texts("extra_models"), "model ids to take besides the catalogue's")
    allow_unknown_model: bool = _option(False, _flag("allow_unknown_model"), "send any model id as it is")
    extra_body: Mapping[str, Any] = _option(dict, _object("extra_body"), "further fields of the request's body")

    @classmethod
    def resolve(cls, **arguments: Any) -> Self:
        """Check the arguments and fill in what is configured. A keyword that nobody knows gives one UserWarning.

        Raises: InvalidRequestError, naming the argument, the variable, or the file and key.
        """
        conceal(arguments)
        for name in arguments.keys() - OPTIONS.keys():
            _warn_unknown(name)
        configured = configuration()
        values: dict[str, Any] = {}
        for name, value in arguments.items():
            if value is not None and value is not TEMPERATURE and name in OPTIONS:
                values[name] = OPTIONS[name].metadata["check"](value)
        for name in configured.keys() - values.keys():
            value, source = configured[name]
            try:
                values[name] = OPTIONS[name].metadata["check"](value)
            except InvalidRequestError as error:
                raise InvalidRequestError(f"{source}: {error}", code=error.code, hint=error.hint) from None
        if "proxy" not in values:
            values["proxy"] = environment_proxy(values.get("base_url", PUBLIC_ORIGIN))
        return cls(**values)


OPTIONS: Mapping[str, Field[Any]] = {option.name: option for option in fields(Options)}

_VARIABLES = tuple(
    (name, option.metadata["env"], option.metadata["read"])
    for name, option in OPTIONS.items()
    if option.metadata["env"]
)
_SECRETS = {"api_key", "proxy", "base_url"}  # a base_url has one by mistake
_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def conceal(options: dict[str, Any], proxy: str | None = None) -> str | None:
    """Wrap the secrets among the options, in place, and give `proxy` wrapped: no traceback shows them then (K1).

    The first line of every public call that takes them.
    """
    for name in _SECRETS & options.keys():
        options[name] = _concealed(options[name])
    concealed: str | None = _concealed(proxy)
    return concealed


def _concealed(value: Any) -> Any:
    if isinstance(value, str):
        return Secret(value)
    # What is no string is no secret that works, but may hold one; its check needs its type, to say so.
    return value if value is None or isinstance(value, (Proxy, type)) else type(value)


@functools.cache  # once per name
def _warn_unknown(name: str) -> None:
    near = difflib.get_close_matches(name, OPTIONS, 1, 0.7)
    meant = f"; did you mean {near[0]!r}?" if near else "; the request goes without it"
    warnings.warn(f"flowgpt knows no option {name!r}{meant}", UserWarning, stacklevel=2)


# --- where values come from --------------------------------------------------------------------------------------


def home() -> Path:
    """Where the configuration file and the device id are: FLOWGPT_HOME, or the platform's place for an app."""
    if configured := os.environ.get("FLOWGPT_HOME"):
        return _home(configured)
    return _home(None, os.environ.get("HOME"), os.environ.get("XDG_CONFIG_HOME"))


@functools.lru_cache(maxsize=4)  # each call asks, and paths are slow to make
def _home(configured: str | None, *_deciding: str | None) -> Path:
    if configured:
        return Path(os.path.expanduser(configured))  # Path's own raises for an unknown user
    import platformdirs  # late: `import flowgpt` loads no third-party module but msgspec

    return platformdirs.user_config_path("flowgpt", appauthor=False)


def configuration() -> dict[str, tuple[Any, str]]:
    """What environment and file say: option -> (raw value, where it stands). An empty variable is not set."""
    values: dict[str, tuple[Any, str]] = {}
    folder = home()
    if table := _written(folder):
        path = folder / "config.toml"
        values = {name: (value, f"{path}: {name}") for name, value in table.items() if name not in NO_OPTIONS}
    for name, variable, read in _VARIABLES:
        if text := os.environ.get(variable):
            value: Any = _concealed(text) if name in _SECRETS else text
            with contextlib.suppress(ValueError):  # what cannot be read stays a string, and the check says so
                value = value if read is str else read(text)
            values[name] = (value, variable)
    return values


def environment(**more: str) -> dict[str, str]:
    """The environment for a program of ours, with these variables besides."""
    return {**os.environ, **more}


def gateway_table() -> tuple[Mapping[str, Any], Path]:
    """The file's `[gateway]` table, empty when there is none, and the file's path. Raises: InvalidRequestError."""
    folder = home()
    path, table = folder / "config.toml", _written(folder).get(GATEWAY, {})
    if not isinstance(table, Mapping):
        raise InvalidRequestError(f"{path}: {GATEWAY} must be a table, not {table!r}")
    return dict(table), path


def provider_names() -> tuple[tuple[str, ...], str]:
    """Who answers, in order, by FLOWGPT_PROVIDER ("a,b") or the file's `providers`, and where that stands.

    No names: nothing is configured. Raises: InvalidRequestError.
    """
    if text := os.environ.get("FLOWGPT_PROVIDER"):
        return tuple(name.strip() for name in text.split(",")), "FLOWGPT_PROVIDER"
    folder = home()
    names, source = _written(folder).get(PROVIDERS, ()), f"{folder / 'config.toml'}: {PROVIDERS}"
    try:
        return _texts(PROVIDERS)(names), source
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{source}: {error}") from None


def provider_tables() -> tuple[Mapping[str, Mapping[str, Any]], Path]:
    """The file's `[provider.NAME]` tables by name, and the file's path. Raises: InvalidRequestError."""
    folder = home()
    path, tables = folder / "config.toml", _written(folder).get(PROVIDER, {})
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise InvalidRequestError(f"{path}: {PROVIDER} must be tables: [{PROVIDER}.NAME]")
    return tables, path


def _written(folder: Path) -> Mapping[str, Any]:
    """The table of the folder's configuration file, empty when there is none. Raises: InvalidRequestError."""
    try:
        status = os.stat(f"{folder}/config.toml")
    except OSError:
        return {}
    return _file(folder / "config.toml", status.st_mtime_ns, status.st_size, bool(status.st_mode & 0o077))


@functools.lru_cache(maxsize=4)
def _file(path: Path, _changed_ns: int, _size: int, others_may_read: bool) -> dict[str, Any]:
    """The configuration file's table, read again when it changed. Raises: InvalidRequestError (I22)."""
    table: dict[str, Any] = {}
    fault = ""
    try:
        if not path.is_file():
            raise OSError("it is no file")
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        fault = str(error)
    theirs = table.get(PROVIDER)
    tables = [
        table,
        *(each for each in (theirs.values() if isinstance(theirs, dict) else ()) if isinstance(each, dict)),
    ]
    for each in tables:
        conceal(each)
    if fault:  # raised out here: the parser's frames hold the whole text
        raise InvalidRequestError(f"{path} cannot be read: {fault}")
    for name in table.keys() - OPTIONS.keys() - NO_OPTIONS:
        near = difflib.get_close_matches(name, [*OPTIONS, *sorted(NO_OPTIONS)], 1, 0.5)
        meant = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(OPTIONS)}"
        raise InvalidRequestError(f"{path}: there is no option {name!r}{meant}")
    if others_may_read and any("api_key" in each for each in tables):
        warnings.warn(f"{path} holds a key, and others may read it: chmod 600", UserWarning, stacklevel=2)
    return table


def environment_proxy(origin: str) -> Proxy | None:
    """The proxy that HTTPS_PROXY/HTTP_PROXY (by the origin's scheme) or ALL_PROXY name, less NO_PROXY and loopback."""
    url = _environment_proxy_url(origin)
    try:
        return parse_proxy(url)
    except InvalidRequestError as error:
        variable = urlsplit(origin).scheme.upper() + "_PROXY or ALL_PROXY"
        raise InvalidRequestError(f"{variable}: {error}", code=error.code, hint=error.hint) from None


def _environment_proxy_url(origin: str) -> Secret:
    """What the environment says of it; "" is none."""
    if is_loopback(origin) or not any(name in os.environ for name in _PROXY_VARIABLES):
        return Secret()
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed; late: 25 ms, which few need

    address = urlsplit(origin)
    proxies = getproxies_environment()
    chosen = proxies.get(address.scheme) or proxies.get("all") or ""
    if not chosen or proxy_bypass_environment(address.netloc, proxies):
        return Secret()
    return Secret(chosen if "://" in chosen else "http://" + chosen)


@functools.lru_cache(maxsize=64)  # calls ask for the same few
def is_loopback(origin: str) -> bool:
    """Whether the origin is this machine."""
    host = urlsplit(origin).hostname or ""
    try:
        return origin == EMBEDDED or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def device_id() -> str:
    """This installation's x-flow-device-id: made once, kept in `home()/device-id`; delete the file to reset it.

    A home that cannot be written is no failure: the id then lasts as long as the process.
    """
    return _device_id(home())


@functools.cache
def _device_id(folder: Path) -> str:
    path = folder / "device-id"
    with contextlib.suppress(OSError, ValueError):
        kept = path.read_text("ascii").strip() if path.is_file() else ""
        if DEVICE_ID.fullmatch(kept):
            return kept
    made = "f-" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(19))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(made + "\n", "ascii")
        path.chmod(0o600)
    return made
