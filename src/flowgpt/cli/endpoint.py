"""Which endpoint answers: the one that was chosen, or else the embedded server, started for the call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .. import config, embedded


class Endpoint(NamedTuple):
    """Who answers. `name`: as people are told it. `base_url`, `proxy`: as a client takes them."""

    name: str
    base_url: str
    proxy: str | None


@contextlib.contextmanager
def endpoint(base_url: str | None, proxy: str | None, *, tell: Callable[[str], None]) -> Iterator[Endpoint]:
    """The endpoint of `--base-url`, the environment or the file; the embedded server lives as long as the block.

    `tell` is given one line when nothing was chosen. Raises: InvalidRequestError, APIConnectionError.
    """
    chosen = base_url or config.configuration().get("base_url", (None, ""))[0]
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
