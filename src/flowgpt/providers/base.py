"""The contract of a provider, on one screen. The built-in provider uses it as a stranger's would.

A provider is any object with `stream`. A subclass of `AsyncGeneratorProvider` defines that, or a bare
`create_async_generator`; the other forms come from there.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Sequence
from inspect import Parameter
from typing import Any, ClassVar, Protocol, get_type_hints

from .. import bridge
from ..config import TEMPERATURE, Options, conceal
from ..errors import ModelNotFoundError
from ..limits.breaker import Health
from ..messages import AsyncResult, Messages
from ..protocol.events import shown
from ..reply import Reply, TextSource

__all__ = ["AsyncGeneratorProvider", "AsyncResult", "Messages", "Provider", "ProviderModelMixin"]


class Provider(Protocol):
    """What can answer: a class or an instance. For a list of models it has `get_models` and `get_model` too."""

    def stream(
        self,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Reply:
        """The reply in its full form; nothing is sent before it is read."""


def health(provider: Provider, **options: Any) -> Health:
    """What is known of whom a call with these options would ask; a provider need say nothing of it."""
    told = getattr(provider, "health", None)
    known = told(**options) if callable(told) else Health(working=bool(getattr(provider, "working", True)))
    return known if isinstance(known, Health) else Health()


class _Params:
    """`params`: the call's parameters in words, readable on the class and on an instance."""

    def __get__(self, _instance: object, owner: type[AsyncGeneratorProvider]) -> str:
        parameters = owner.get_parameters().values()
        return ", ".join(p.name if p.default is Parameter.empty else f"{p.name}={p.default!r}" for p in parameters)


class _Working:
    """`working`: the state of the configured endpoint's circuit, readable on the class and on an instance."""

    def __get__(self, _instance: object, owner: type[AsyncGeneratorProvider]) -> bool:
        return owner.health().working


class AsyncGeneratorProvider:
    """Answers as an async generator of texts; joined and sync forms included."""

    url: ClassVar[str] = ""
    working: ClassVar[Any] = _Working()
    supports_message_history: ClassVar[bool] = False
    supports_system_message: ClassVar[bool] = False
    supports_characters: ClassVar[bool] = False
    params = _Params()

    @classmethod
    def stream(
        cls,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Reply:
        """The reply in its full form; nothing is sent before it is read."""
        if cls._derives_its_forms():
            raise NotImplementedError(f"{cls.__name__} defines neither stream nor create_async_generator")
        chosen = model
        if issubclass(cls, ProviderModelMixin):
            how = {name: options[name] for name in ("allow_unknown_model", "extra_models") if options.get(name)}
            chosen = cls.get_model(model, **how)
        texts = cls.create_async_generator(model, messages, proxy, temperature, **options)
        return Reply(TextSource(texts), model=chosen)

    @classmethod
    def health(cls, **_options: Any) -> Health:
        """What this process knows of the endpoint that a call with these options would ask. Nothing is sent."""
        return Health(working=bool(inspect.getattr_static(cls, "working")))

    @classmethod
    def create_async_generator(
        cls,
        model: str = "",
        messages: Messages = (),
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> AsyncResult:
        """The reply as an async generator of `str`, one for each text event. Raises: FlowGPTError."""
        proxy = conceal(options, proxy)
        return aiter(cls.stream(model, messages, proxy=proxy, temperature=temperature, **options))

    @classmethod
    async def create_async(
        cls,
        model: str = "",
        messages: Messages = (),
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> str:
        """The whole text of the reply. Raises: FlowGPTError."""
        proxy = conceal(options, proxy)
        return await cls.stream(model, messages, proxy=proxy, temperature=temperature, **options).read()

    @classmethod
    def create_completion(
        cls,
        model: str = "",
        messages: Messages = (),
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Iterator[str]:
        """The sync twin of `create_async_generator`; also inside a running event loop. Raises: FlowGPTError."""
        proxy = conceal(options, proxy)
        return bridge.texts(cls.stream(model, messages, proxy=proxy, temperature=temperature, **options))

    @classmethod
    def _derives_its_forms(cls) -> bool:
        ours: Any = AsyncGeneratorProvider.create_async_generator
        return getattr(cls.create_async_generator, "__func__", None) is ours.__func__

    @classmethod
    def get_parameters(cls) -> dict[str, Parameter]:
        """What a call takes, by name, with types and defaults; the options are keyword-only."""
        named = dict(inspect.signature(cls.create_async_generator, eval_str=True).parameters)
        named = {name: parameter for name, parameter in named.items() if parameter.kind is not Parameter.VAR_KEYWORD}
        if not cls._derives_its_forms():
            return named
        types, defaults = get_type_hints(Options), Options()
        return named | {
            name: Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(defaults, name), annotation=kind)
            for name, kind in types.items()
            if name not in named
        }


class ProviderModelMixin:
    """Which models a provider has, and what its aliases stand for."""

    default_model: ClassVar[str] = ""
    models: ClassVar[list[str]] = []
    model_aliases: ClassVar[dict[str, str]] = {}
    models_as_of: ClassVar[str] = ""  # "2024-04": when this was the list; empty when that is not known

    @classmethod
    def get_models(cls) -> list[str]:
        """The ids of the models, without the aliases."""
        return list(cls.models)

    @classmethod
    def get_model(cls, model: str = "", *, allow_unknown_model: bool = False, extra_models: Sequence[str] = ()) -> str:
        """The id to send: "" gives the default, an alias its target.

        Raises: ModelNotFoundError, naming the nearest ids and how to use an id that is not in the list.
        """
        return known_model(cls, model, allow_unknown_model=allow_unknown_model, extra_models=extra_models)


def known_model(
    provider: Any, model: str = "", *, allow_unknown_model: bool = False, extra_models: Sequence[str] = ()
) -> str:
    """`get_model` of any provider, class or instance, that has `models`, `model_aliases` and `default_model`.

    Raises: ModelNotFoundError.
    """
    models, aliases = provider.models, provider.model_aliases
    known: str = aliases.get(model, model) or provider.default_model
    if known in models or known in extra_models or not models or allow_unknown_model:
        return known
    near = difflib.get_close_matches(known[:100], [*models, *aliases, *extra_models], 3, 0.4)
    raise ModelNotFoundError(
        f"model {shown(known, 40)} is not in {provider.__name__}'s list"
        + (f"; the nearest: {', '.join(near)}" if near else ""),
        hint="`flowgpt models` shows the list; allow_unknown_model=True or extra_models=[...] sends an id anyway",
    )
