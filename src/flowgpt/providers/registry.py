"""Names to providers: the built-in ones, those that packages bring, and what the configuration makes of them.

No provider is in here, and nothing is read or loaded before a name is asked for.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .. import config
from ..config import OPTIONS, TEMPERATURE, conceal
from ..errors import InvalidRequestError
from ..limits.breaker import Health
from ..messages import Messages
from ..reply import Reply
from .base import Provider, health
from .fallback import Fallback
from .flowgpt import FlowGpt

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "flowgpt.providers"
"""The entry points by which a package brings providers: a name, and a class or an instance."""

BUILT_IN = ("flowgpt", "openai")

SERVER = ("base_url", "api_key", "model", "models")
"""The keys of a table of type "openai" that its server is made of; the others are options of its calls."""


def chosen(provider: Provider | None, options: Mapping[str, Any]) -> Provider:
    """Who answers: the one that was given; where `options` have a base_url, FlowGPT there; else the configured one.

    Raises: InvalidRequestError.
    """
    return provider or (FlowGpt if options.get("base_url") else one(named()))


def one(providers: Mapping[str, Provider]) -> Provider:
    """Several as one, in their order."""
    each = [*providers.values()]
    return Fallback(each) if len(each) > 1 else each[0]


def named(names: str | None = None) -> dict[str, Provider]:
    """Who answers, by name and in order: these ("a,b"), or the configured ones, or FlowGpt.

    Raises: InvalidRequestError.
    """
    asked, source = config.provider_names()
    if names is not None:
        asked, source = tuple(name.strip() for name in names.split(",")), "provider"
    try:
        return {name: _named(name) for name in asked} if asked else {"flowgpt": FlowGpt}
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{source}: {error}", code=error.code, hint=error.hint) from None


def check(name: str, table: Mapping[str, Any]) -> None:
    """Whether `[provider.NAME]` could have these keys and values. Raises: InvalidRequestError, naming the key."""
    kind = table.get("type", name)
    if kind in BUILT_IN:
        _check_keys(table, {"type", *OPTIONS, *(SERVER if kind == "openai" else ())})
    if kind == "openai":
        _server(name, {"base_url": "http://localhost"} | {key: table[key] for key in SERVER if key in table})
    for key, value in table.items():
        if key in OPTIONS and not (kind != "flowgpt" and key in SERVER):
            OPTIONS[key].metadata["check"](value)


def _named(name: str) -> Provider:
    tables, path = config.provider_tables()
    if name not in tables:
        return _made(name, name, {}, tables)
    try:
        return _made(str(tables[name].get("type", name)), name, dict(tables[name]), tables)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: provider.{name}: {error}", code=error.code, hint=error.hint) from None


def _made(kind: str, name: str, table: dict[str, Any], tables: Iterable[str]) -> Provider:
    """The provider of a type with what its table says. Raises: InvalidRequestError."""
    table.pop("type", None)
    if kind not in BUILT_IN:
        found = _brought(kind, [*BUILT_IN, *tables])
        return Configured(name, found, table) if table else found
    _check_keys(table, {"type", *OPTIONS, *(SERVER if kind == "openai" else ())})
    if kind == "flowgpt":
        return Configured(name, FlowGpt, table) if table else FlowGpt
    server = {key: table.pop(key) for key in SERVER if key in table}
    if "base_url" not in server:
        raise InvalidRequestError(f"base_url is missing: where the server is, in the file's [provider.{name}]")
    made = _server(name, server)
    return Configured(name, made, table) if table else made


def _server(name: str, facts: Mapping[str, Any]) -> Provider:
    """Raises: InvalidRequestError."""
    from .openai import OpenAICompatible  # late: few need it

    return OpenAICompatible(**facts, name=name)


def _check_keys(table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table.keys() - known:
        near = difflib.get_close_matches(key, known, 1, 0.5)
        meant = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(sorted(known))}"
        raise InvalidRequestError(f"there is no key {key!r}{meant}")


def _brought(name: str, others: Iterable[str]) -> Provider:
    """The provider that a package brings by an entry point. Raises: InvalidRequestError, naming the package."""
    points = _entry_points()
    if name not in points:
        names = sorted({*others, *points})
        near = difflib.get_close_matches(name, names, 1, 0.5)
        raise InvalidRequestError(
            f"there is no provider {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}")
        )
    point, fault = points[name], ""
    try:
        loaded = point.load()
    except Exception as error:  # a stranger's module: whatever its import raises
        fault = f"{type(error).__name__}: {error}"
    else:
        if callable(getattr(loaded, "stream", None)):
            return loaded  # type: ignore[no-any-return]  # it has what a provider must have
        fault = "it has no method `stream`"
    package = point.dist.name if point.dist else "a package"
    raise InvalidRequestError(
        f"provider {name!r} ({point.value}) of {package} cannot be used: {fault}", hint=f"update or remove {package}"
    )


@functools.cache  # milliseconds, for each client without a provider of its own
def _entry_points() -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points  # late: few need it

    return {point.name: point for point in entry_points(group=GROUP)}


class Configured:
    """A provider with a name and options of its own.

    A call's options go before them, but where it asks, and with which key, no call changes.
    Raises: InvalidRequestError for an option with a bad value.
    """

    def __init__(self, name: str, provider: Provider, options: Mapping[str, Any]) -> None:
        self.__name__ = name
        self._provider = provider
        own = dict(options)
        if own.get("base_url"):
            own.setdefault("api_key", "")  # a key that is configured for another address is not for this one
        self._endpoint = {name: own[name] for name in ("base_url", "api_key", "proxy") if name in own}
        self._options = own
        config.Options.resolve(**{name: value for name, value in own.items() if name in OPTIONS})

    def stream(
        self,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Reply:
        """The reply in its full form; nothing is sent before it is read. Raises: InvalidRequestError."""
        proxy = conceal(options, proxy)
        asked = self._with({"model": model or None, "proxy": proxy, "temperature": temperature} | options)
        return self._provider.stream(asked.pop("model", ""), messages, **asked)

    def health(self, **options: Any) -> Health:
        """The provider's, with its options."""
        return health(self._provider, **self._with(options))

    @property
    def working(self) -> bool:
        return self.health().working

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also what copying asks for before there is a provider
            raise AttributeError(name)
        return getattr(self._provider, name)  # its models

    def _with(self, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None and value is not TEMPERATURE}
        return self._options | given | self._endpoint
