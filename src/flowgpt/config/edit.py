"""Changes in the configuration file, by a person's hand or as if: comments, order and layout stay as they are.

A change is whole or not there, and what is written is read back first. What a key may be is its caller's affair.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ..addresses import Secret
from ..errors import InvalidRequestError
from .checks import SECRETS
from .file import path, raw

if sys.platform != "win32":
    import fcntl

Table = MutableMapping[str, Any]


def put(keys: Sequence[str], value: Any) -> None:
    """Set the key (`timeout`, `head_s`: of a table), which is made where it is missing; a key's file is its owner's.

    Raises: InvalidRequestError, naming the file; it is then as it was.
    """

    kept = Secret(value) if keys[-1] in SECRETS and isinstance(value, str) else value

    def change(document: Table) -> str:
        table = document
        for place, name in enumerate(keys[:-1]):
            if name not in table:
                table[name] = tomlkit.table(is_super_table=place < len(keys) - 2)
            table = table[name]
            if not isinstance(table, MutableMapping):
                return f": {'.'.join(keys[: place + 1])} is a value, and no table: unset it first"
        if isinstance(table.get(keys[-1]), MutableMapping) and not isinstance(kept, Mapping):
            return f": {'.'.join(keys)} is a table, and no value: unset it first"
        table[keys[-1]] = _inline(kept) if isinstance(kept, Mapping) else kept
        return ""

    del value  # the errors' tracebacks would show it
    _change(change, private=keys[-1] == "api_key")


def _inline(value: Mapping[str, Any]) -> Table:
    table: Table = tomlkit.inline_table()
    table.update(value)
    return table


def drop(keys: Sequence[str]) -> None:
    """Take the key out, or the table of that name. Raises: InvalidRequestError, also when it is not there."""

    def change(document: Table) -> str:
        tables: list[Any] = [document]
        for name in keys[:-1]:
            tables.append(tables[-1].get(name) if isinstance(tables[-1], MutableMapping) else None)
        if not isinstance(tables[-1], MutableMapping) or keys[-1] not in tables[-1]:
            return f": there is no {'.'.join(keys)}"
        for table, name in zip(reversed(tables), reversed(keys), strict=True):
            del table[name]
            if len(table) or (table is not document and tomlkit.dumps(table).strip()):  # a comment is kept too
                break
        return ""

    _change(change, private=False)


def _change(change: Callable[[Table], str], *, private: bool) -> None:
    """`change`: gives what is wrong, in words that follow the file's name; "" is nothing."""
    if fault := _fault(change, private=private):  # raised out here: the frames below hold the whole text
        raise InvalidRequestError(f"{path()}{fault}")


def _fault(change: Callable[[Table], str], *, private: bool) -> str:
    file = Path(os.path.realpath(path()))  # a link stays a link
    try:
        with _alone(file.parent):
            return _changed(file, change, private=private)
    except (OSError, ValueError, RecursionError, TOMLKitError) as error:
        return f" cannot be changed: {error}"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let other programs' changes wait (not on Windows, which has no such lock): each is made to what stands there."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _changed(file: Path, change: Callable[[Table], str], *, private: bool) -> str:
    before = file.read_bytes().decode("utf-8-sig") if file.exists() else ""
    document = tomlkit.parse(before if before.endswith("\n") or not before else before + "\n")
    if fault := change(document):
        return fault
    after = tomlkit.dumps(document)
    if raw(after) != document.unwrap():
        return " cannot be changed by a program, its layout is too unusual: use an editor"
    _write(file, after, private=private)
    return ""


def _write(file: Path, text: str, *, private: bool) -> None:
    """Put the text in the place of the file, for its owner alone where it is new or has a key. Raises: OSError."""
    mode = file.stat().st_mode & 0o777 if file.exists() and not private else 0o600
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")  # 0600 from the start
    try:
        with os.fdopen(descriptor, "wb") as made:
            made.write(text.encode())
            made.flush()
            os.fchmod(made.fileno(), mode)
            os.fsync(made.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
