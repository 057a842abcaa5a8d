"""The configuration file: where it is, and its table as it was written, with its secrets wrapped.

What its keys mean is `options` and `tables`; changing it is `edit`.
"""

from __future__ import annotations

import difflib
import functools
import os
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidRequestError
from .checks import conceal

GATEWAY = "gateway"
"""The file's table for `flowgpt serve`."""

PROVIDERS, PROVIDER = "providers", "provider"
"""The file's list of who answers, and its table of them: [provider.NAME]."""

HISTORY = "history"
"""The file's table of what is kept of conversations."""

TABLES = frozenset({GATEWAY, PROVIDERS, PROVIDER, HISTORY})
"""What the file has besides options; a call takes no notice of it."""


def home() -> Path:
    """Where the configuration file and the device id are: FLOWGPT_HOME, or the platform's place for an app."""
    if configured := os.environ.get("FLOWGPT_HOME"):
        return _home(configured)
    return _home(None, os.environ.get("HOME"), os.environ.get("XDG_CONFIG_HOME"))


def path() -> Path:
    """The configuration file, whether it is there or not."""
    return _path(home())


@functools.lru_cache(maxsize=4)  # as `_home`
def _path(folder: Path) -> Path:
    return folder / "config.toml"


@functools.lru_cache(maxsize=4)  # each call asks, and paths are slow to make
def _home(configured: str | None, *_deciding: str | None) -> Path:
    if configured:
        return Path(os.path.expanduser(configured))  # Path's own raises for an unknown user
    import platformdirs  # late: `import flowgpt` loads no third-party module but msgspec

    return platformdirs.user_config_path("flowgpt", appauthor=False)


def written(options: frozenset[str]) -> Mapping[str, Any]:
    """The configuration file's table, empty when there is none. `options`: the keys that it may have besides TABLES.

    Raises: InvalidRequestError.
    """
    file = path()
    try:
        status = os.stat(file)
    except OSError:
        return {}
    return _file(file, status.st_mtime_ns, status.st_size, bool(status.st_mode & 0o077), options)


def raw(text: str) -> dict[str, Any]:
    """What a text in TOML says. Raises: ValueError."""
    return tomllib.loads(text)


@functools.lru_cache(maxsize=4)
def _file(
    file: Path, _changed_ns: int, _size: int, others_may_read: bool, options: frozenset[str]
) -> Mapping[str, Any]:
    """The configuration file's table, read again when it changed. Raises: InvalidRequestError (I22)."""
    table: dict[str, Any] = {}
    fault = ""
    try:
        if not file.is_file():
            raise OSError("it is no file")
        table = raw(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        fault = str(error)
    theirs = table.get(PROVIDER)
    tables = [
        table,
        *(each for each in (theirs.values() if isinstance(theirs, dict) else ()) if isinstance(each, dict)),
    ]
    for each in tables:
        conceal(each)
    if fault:  # raised out here: the parser's frames hold the whole text
        raise InvalidRequestError(f"{file} cannot be read: {fault}")
    for name in table.keys() - options - TABLES:
        near = difflib.get_close_matches(name, sorted(options | TABLES), 1, 0.5)
        meant = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(sorted(options))}"
        raise InvalidRequestError(f"{file}: there is no option {name!r}{meant}")
    if others_may_read and any("api_key" in each for each in tables):
        warnings.warn(f"{file} holds a key, and others may read it: chmod 600", UserWarning, stacklevel=2)
    return table
