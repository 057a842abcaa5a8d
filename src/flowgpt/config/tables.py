"""What the configuration file has besides options: who answers, the gateway, what is kept of conversations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError
from . import checks, file
from .file import GATEWAY, HISTORY, PROVIDER, PROVIDERS
from .options import option, written


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is kept of conversations: `[history]`."""

    save: bool = option(True, checks.flag("save"), "keep what is asked and answered in the terminal")
    retention_days: float | None = option(
        None, checks.days("retention_days"), "how long a conversation is kept after its last turn; none is for ever"
    )


HISTORY_ROWS: Mapping[str, Field[Any]] = {row.name: row for row in fields(History)}


def history_table() -> Mapping[str, Any]:
    """The file's `[history]` table, empty when there is none. Raises: InvalidRequestError."""
    table = written().get(HISTORY, {})
    if not isinstance(table, Mapping):
        raise InvalidRequestError(f"{file.path()}: {HISTORY} must be a table, not {table!r}")
    return table


def history() -> History:
    """What is to be kept of conversations. Raises: InvalidRequestError, naming the file and the key."""
    path = file.path()
    values = {}
    for name, value in history_table().items():
        if name not in HISTORY_ROWS:
            raise InvalidRequestError(f"{path}: {HISTORY} has no key {name!r}; the keys are {', '.join(HISTORY_ROWS)}")
        try:
            values[name] = HISTORY_ROWS[name].metadata["check"](value)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{path}: {HISTORY}.{name}: {error}") from None
    return History(**values)


def gateway_table() -> tuple[Mapping[str, Any], Path]:
    """The file's `[gateway]` table, empty when there is none, and the file's path. Raises: InvalidRequestError."""
    path, table = file.path(), written().get(GATEWAY, {})
    if not isinstance(table, Mapping):
        raise InvalidRequestError(f"{path}: {GATEWAY} must be a table, not {table!r}")
    return dict(table), path


def provider_names() -> tuple[tuple[str, ...], str]:
    """Who answers, in order, by FLOWGPT_PROVIDER ("a,b") or the file's `providers`, and where that stands.

    No names: nothing is configured. Raises: InvalidRequestError.
    """
    if text := os.environ.get("FLOWGPT_PROVIDER"):
        return tuple(name.strip() for name in text.split(",")), "FLOWGPT_PROVIDER"
    names, source = written().get(PROVIDERS, ()), f"{file.path()}: {PROVIDERS}"
    try:
        return checks.texts(PROVIDERS)(names), source
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{source}: {error}") from None


def provider_tables() -> tuple[Mapping[str, Mapping[str, Any]], Path]:
    """The file's `[provider.NAME]` tables by name, and the file's path. Raises: InvalidRequestError."""
    path, tables = file.path(), written().get(PROVIDER, {})
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise InvalidRequestError(f"{path}: {PROVIDER} must be tables: [{PROVIDER}.NAME]")
    return tables, path
