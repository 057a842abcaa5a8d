"""Who answers: the providers or the endpoint that were chosen, or else the embedded server, started for the call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from .. import config, embedded
from ..errors import InvalidRequestError
from ..messages import Message
from ..providers import registry
from ..providers.base import Provider
from ..providers.flowgpt import FlowGpt


class Endpoint(NamedTuple):
    """Who answers. `name`: as people are told it. `base_url`, `proxy`: as a client takes them."""

    name: str
    base_url: str
    proxy: str | None


class Answering(NamedTuple):
    """Who answers. `name`: as people are told it. `options`: with which a client asks the provider."""

    name: str
    provider: Provider
    options: dict[str, Any]

    @property
    def default_model(self) -> str:
        """The model that answers when none is named; "": the provider does not say."""
        return config.Options.resolve().model or getattr(self.provider, "default_model", "")


def has_providers(names: str | None, base_url: str | None) -> bool:
    """Whether `--provider`, the environment or the file name providers; `--base-url` is FlowGPT there.

    Raises: InvalidRequestError.
    """
    if names is not None and base_url is not None:
        raise InvalidRequestError("--base-url is where FlowGPT is asked, and --provider says who: give one of them")
    return base_url is None and bool(names or config.provider_names()[0])


def check(
    names: str | None, base_url: str | None, proxy: str | None, model: str, messages: Sequence[Message], **options: Any
) -> None:
    """Refuse a wrong call before a server is started for it: the request is built, and not sent.

    Providers check it themselves when they are chosen. Raises: InvalidRequestError.
    """
    if not has_providers(names, base_url):
        FlowGpt.stream(model, messages, base_url="public", proxy=proxy or "", **options)


@contextlib.contextmanager
def answering(
    names: str | None, base_url: str | None, proxy: str | None, *, tell: Callable[[str], None]
) -> Iterator[Answering]:
    """The chosen providers, or else FlowGPT at `endpoint`. Raises: InvalidRequestError, APIConnectionError."""
    if has_providers(names, base_url):
        chosen = registry.named(names)
        yield Answering(", ".join(chosen), registry.one(chosen), {"proxy": proxy})
        return
    with endpoint(base_url, proxy, tell=tell) as there:
        yield Answering(there.name, FlowGpt, {"base_url": there.base_url, "proxy": there.proxy})


@contextlib.contextmanager
def endpoint(base_url: str | None, proxy: str | None, *, tell: Callable[[str], None]) -> Iterator[Endpoint]:
    """The endpoint of `--base-url`, the environment or the file; the embedded server lives as long as the block.

    `tell` is given one line when nothing was chosen. Raises: InvalidRequestError, APIConnectionError.
    """
    chosen = _chosen(base_url)
    if chosen not in (None, config.EMBEDDED):
        origin = config.Options.resolve(base_url=base_url, proxy=proxy).base_url
        yield Endpoint(origin, origin, proxy)
        return
    if chosen is None:
        tell(
            "flowgpt: no endpoint is configured, so the embedded server answers; "
            f"choose another with --base-url, FLOWGPT_BASE_URL, or base_url in {config.home() / 'config.toml'}"
        )
    with embedded.spawn() as origin:
        yield Endpoint(config.EMBEDDED, origin, proxy or "")  # a configured proxy is no way to this machine


def unstarted(base_url: str | None, proxy: str | None) -> Endpoint:
    """As `endpoint`, for a request that is not sent: the embedded server is where `flowgpt embedded` would listen.

    Raises: InvalidRequestError.
    """
    if _chosen(base_url) in (None, config.EMBEDDED):
        return Endpoint(config.EMBEDDED, "http://127.0.0.1:8000", proxy or "")
    origin = config.Options.resolve(base_url=base_url, proxy=proxy).base_url
    return Endpoint(origin, origin, proxy)


def _chosen(base_url: str | None) -> str | None:
    """The base URL that was chosen, or `embedded`; None when nothing was. Raises: InvalidRequestError."""
    chosen: str | None = base_url or config.configuration().get("base_url", (None, ""))[0]
    return chosen
