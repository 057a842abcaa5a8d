"""What a shell may put in for a word that is not complete: models, providers, templates, conversations, keys.

For a shell that waits: nothing is sent or started, and what cannot be read has no candidates.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from .. import config
from ..errors import FlowGPTError
from . import streams

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LIMIT_CONVERSATIONS = 200

PLAIN = re.compile(r"\w[\w.,:/@+=-]*")
"""What every shell takes as one word and as nothing else: bash puts in a candidate as it is."""

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def _of(found: Callable[[], Iterator[tuple[str, str]]]) -> Complete:
    """As click wants it. `found`: gives each candidate, and words about it."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        items = []
        with contextlib.suppress(FlowGPTError, OSError):
            for value, words in found():
                if value.startswith(incomplete) and PLAIN.fullmatch(value):
                    items.append(CompletionItem(value, help=streams.line(words) or None))
        return items

    return complete


def _models() -> Iterator[tuple[str, str]]:
    from ..providers import registry  # late, as all here: every command has this file

    seen = set()
    for name, provider in registry.named().items():
        listed: Any = provider
        aliases = dict(getattr(listed, "model_aliases", {}))
        for id_ in [*getattr(listed, "models", ()), *aliases]:
            if id_ not in seen:
                yield id_, f"stands for {aliases[id_]}" if id_ in aliases else name
            seen.add(id_)
    extra, _ = config.configuration().get("extra_models", ((), ""))
    yield from ((id_, "extra_models") for id_ in extra if id_ not in seen)


def _providers() -> Iterator[tuple[str, str]]:
    yield "flowgpt", ""
    yield from ((name, str(table.get("type", name))) for name, table in config.provider_tables()[0].items())


def _templates() -> Iterator[tuple[str, str]]:
    from ..config import templates

    yield from ((name, "") for name in templates.names())


def _conversations() -> Iterator[tuple[str, str]]:
    from ..store import Store, default_path

    if not default_path().is_file():  # a shell that waits makes no file
        return
    with contextlib.closing(Store()) as store:
        for conversation in store.conversations.list(LIMIT_CONVERSATIONS):
            yield conversation.id, conversation.title


models, providers, templates, conversations = map(_of, (_models, _providers, _templates, _conversations))
