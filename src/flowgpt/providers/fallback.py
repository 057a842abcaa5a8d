"""Several providers as one: who is asked, in which order, and when the next one is. No HTTP, no formats in here."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import TEMPERATURE, conceal
from ..errors import FlowGPTError, InvalidRequestError, ModelNotFoundError
from ..limits.breaker import Health
from ..messages import Batch, Messages
from ..protocol.events import shown
from ..reply import Reply
from .base import Provider, health
from .characters import is_character
from .flowgpt import FlowGpt


class Fallback:
    """A provider that asks others in order: each when those before it have failed before their first text.

    Who lists the asked model is asked for it, before the others, which answer with their default model; when nobody
    lists it, whoever takes it nevertheless is asked for it. A character is asked of nobody but those who have some.
    Whose circuit is open comes last; who has others behind it sends again only what surely was not processed, and waits
    for no 429. `reply.model` tells who answered. When all fail, the last one's error is raised,
    with `causes`: what each said, in order.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        usable = isinstance(providers, Sequence) and all(callable(getattr(each, "stream", None)) for each in providers)
        if not (usable and providers):
            raise InvalidRequestError("Fallback takes a list of providers, each with a method `stream`")
        self._providers = tuple(providers)

    def stream(
        self,
        model: str = "",
        messages: Messages = (),
        *,
        proxy: str | None = None,
        temperature: float = TEMPERATURE,
        **options: Any,
    ) -> Reply:
        """The reply in its full form; nothing is sent before it is read.

        `options` go to each provider, `timeout` and `max_retries` counting for each by itself; but `base_url` and
        `api_key` go to FlowGpt only. Raises: InvalidRequestError; ModelNotFoundError when no provider takes the model.
        """
        proxy = conceal(options, proxy)
        given = options | {"proxy": proxy, "temperature": temperature}
        listed = any(_lists(each, model) for each in self._providers)
        ranked: list[tuple[tuple[bool, bool], Provider, str, Reply]] = []
        for each in self._providers:
            theirs = _theirs(each, given)
            takes = None if listed and not _lists(each, model) else _reply(each, model, messages, theirs)
            reply = takes if is_character(model) else takes or _reply(each, "", messages, theirs)
            if reply is not None:
                rank = (not health(each, **theirs).asked, takes is None)
                ranked.append((rank, each, model if takes else "", reply))
        if all(lacks for (_, lacks), *_ in ranked):
            raise self._unknown(model)
        ranked.sort(key=lambda row: row[0])
        hurried = {"safe_retries_only": True} | given  # who has others behind it does not let them wait for a 429's end
        replies = [each.stream(asked, messages, **_theirs(each, hurried)) for _, each, asked, _ in ranked[:-1]]
        source = _Asking([*replies, ranked[-1][-1]])
        return Reply(source, model=source.model)

    def health(self, **options: Any) -> Health:
        """The best of the providers' healths: whether any of them would be asked."""
        known = [health(each, **_theirs(each, options)) for each in self._providers]
        return min(known, key=lambda one: (not one.working, one.again_s or 0.0))

    @property
    def working(self) -> bool:
        return self.health().working

    @property
    def supports_characters(self) -> bool:
        return any(getattr(each, "supports_characters", False) for each in self._providers)

    def get_models(self) -> list[str]:
        """The ids of all providers' models, each once, without the aliases."""
        return [*dict.fromkeys(id_ for each in self._providers for id_ in _models(each))]

    @property
    def models(self) -> list[str]:
        return self.get_models()

    @property
    def model_aliases(self) -> dict[str, str]:
        """All providers' aliases; what is a model's id somewhere is no alias here."""
        found: dict[str, str] = {}
        for each in reversed(self._providers):
            found |= getattr(each, "model_aliases", {})
        return {alias: id_ for alias, id_ in found.items() if alias not in self.get_models()}

    @property
    def models_as_of(self) -> str:
        """When their lists were so; empty unless all are of one month."""
        dates = {getattr(each, "models_as_of", "") for each in self._providers}
        return dates.pop() if len(dates) == 1 else ""

    @property
    def default_model(self) -> str:
        return next((default for each in self._providers if (default := getattr(each, "default_model", ""))), "")

    def get_model(self, model: str = "", *, allow_unknown_model: bool = False, extra_models: Sequence[str] = ()) -> str:
        """The id that is sent for it by the provider that would be asked first. Raises: ModelNotFoundError."""
        how: Any = {"allow_unknown_model": allow_unknown_model, "extra_models": extra_models}
        for each in sorted(self._providers, key=lambda provider: not _lists(provider, model)):
            try:
                return str(each.get_model(model, **how)) if hasattr(each, "get_model") else model
            except ModelNotFoundError:
                pass
        raise self._unknown(model)

    def _unknown(self, model: str) -> ModelNotFoundError:
        near = difflib.get_close_matches(
            model[:100], [name for each in self._providers for name in _names(each)], 3, 0.4
        )
        return ModelNotFoundError(
            f"model {shown(model, 40)} is in no provider's list"
            + (f"; the nearest: {', '.join(near)}" if near else ""),
            hint="`flowgpt models` shows the lists; allow_unknown_model=True or extra_models=[...] sends an id anyway",
        )


def _models(provider: Provider) -> list[str]:
    """The ids in a provider's list, and its default one; it may have neither."""
    get = getattr(provider, "get_models", None)
    listed = [*(get() if callable(get) else ()), getattr(provider, "default_model", "")]
    return [*dict.fromkeys(id_ for id_ in listed if id_)]


def _names(provider: Provider) -> list[str]:
    """The ids and aliases in a provider's list."""
    return [*_models(provider), *getattr(provider, "model_aliases", ())]


def _lists(provider: Provider, model: str) -> bool:
    """Whether a model is in a provider's list; characters are in none, and are of who knows what they are."""
    return bool(getattr(provider, "supports_characters", False)) if is_character(model) else model in _names(provider)


def _theirs(provider: Provider, options: Mapping[str, Any]) -> dict[str, Any]:
    """What of a call's options a provider is given: FlowGPT's address and key are no stranger's affair."""
    is_flowgpt = isinstance(provider, type) and issubclass(provider, FlowGpt)
    hidden = () if is_flowgpt or isinstance(provider, Fallback) else ("base_url", "api_key")
    return {name: value for name, value in options.items() if name not in hidden}


def _reply(provider: Provider, model: str, messages: Messages, options: dict[str, Any]) -> Reply | None:
    """Its reply, not yet asked for; None when it has no such model. Raises: InvalidRequestError."""
    try:
        return provider.stream(model, messages, **options)
    except ModelNotFoundError:
        return None


class _Asking:
    """The batches of one call (a `reply.Source`): of the first reply that brings a text."""

    verified = False

    def __init__(self, replies: list[Reply]) -> None:
        self._replies = replies
        self._place = 0
        self._causes: list[FlowGPTError] = []

    @property
    def _reply(self) -> Reply:
        return self._replies[self._place]

    @property
    def model(self) -> str:
        return self._reply.model

    @property
    def attempts(self) -> int:
        return sum(reply.attempts for reply in self._replies[: self._place + 1])

    @property
    def skipped_events(self) -> Mapping[str, int]:
        return self._reply.skipped_events

    async def next(self) -> Batch | None:
        """The next batch, or None after the proper end. Raises: FlowGPTError."""
        while True:
            try:
                batch = await self._reply.next()
            except FlowGPTError as error:
                failure = error
            else:
                if batch is None:
                    self.verified = self._reply.verdict == "complete"
                    return None
                if batch.texts:
                    del self._replies[self._place + 1 :]  # after the first text nobody else is asked
                batch.failure = None  # the next read raises it
                return batch
            self._go_on(failure)

    def _go_on(self, failure: FlowGPTError) -> None:
        """To the next reply. Raises: the failure, when there is none, or when it would fail in the same way."""
        self._causes.append(failure)
        wrong_call = isinstance(failure, InvalidRequestError) and not isinstance(failure, ModelNotFoundError)
        if wrong_call or self._place + 1 == len(self._replies):
            last = copy.copy(failure)  # which is not its own cause
            last.causes = tuple(self._causes)
            raise last
        self._place += 1

    def close(self) -> None:
        for reply in self._replies:
            reply.close()
