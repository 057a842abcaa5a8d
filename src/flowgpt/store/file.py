"""The SQLite file: making, opening and changing it, a copy of it, and what can be wrong with it.

The only file that imports sqlite3. What the tables hold is their rooms' business; nothing here knows the clock.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import config
from ..errors import InvalidRequestError, StoreError
from .migrations import MIGRATIONS

WAIT_S = 5.0
"""How long a call waits for another process, twice, before it is store_busy."""

BETWEEN_S = 0.1
"""Between the two, at most: by chance, so that those who wait for each other don't meet again."""


Database = sqlite3.Connection
"""What one gets of `Connection.use`: for the signatures of those who may not import sqlite3."""


def default_path() -> Path:
    """Where the file is when nobody says otherwise."""
    return config.home() / "flowgpt.db"


class File:
    """The file at `path`, made when it is not there, as all connections of a Store share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: tuple[int, int] | None = None
        self._connections: list[Connection] = []

    def connection(self) -> Connection:
        """Another connection to it; nothing is opened yet."""
        self._connections.append(Connection(self))
        return self._connections[-1]

    def close(self) -> None:
        """Waits for the calls that are under way. Whatever is called after it is a StoreError."""
        for connection in self._connections:
            connection.close()

    def check(self) -> None:
        """Before each use: the file is there, and still the one that was opened. Raises: StoreError, once (N14)."""
        if self._inode is None:
            _make(self.path)
            self._inode = _inode(self.path)
        elif _inode(self.path) != self._inode:
            self._inode = None
            for connection in self._connections:
                connection.let_go()
            raise StoreError(f"{self.path} was replaced while it was open", hint="the next call opens the new one")


class Connection:
    """One connection to the file, for one thread at a time; opened when it is used.

    `files`: how many it has been done with; what was known of one says nothing of the next. Raises: StoreError for
    whatever goes wrong in SQLite.
    """

    def __init__(self, file: File) -> None:
        self.files = 0
        self._file = file
        self._lock = threading.Lock()  # taken by `with` alone: an interrupt anywhere else would leave it taken
        self._closed = False
        self._connection: sqlite3.Connection | None = None

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """All that one statement finds."""
        self._check()
        with self._lock:
            try:
                return self._opened().execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _failure(self._file.path, error) from None

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """For more than one statement."""
        self._check()
        with self._lock:
            try:
                yield self._opened()
            except sqlite3.Error as error:
                raise _failure(self._file.path, error) from None

    @contextlib.contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """`synced`: it survives a power cut; False: perhaps not, and only where the file can't be damaged by that."""
        with self.use() as connection:
            hasty = not synced and _pragma(connection, "journal_mode") == "wal"
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if hasty else 'FULL'}")
            with _transaction(connection):
                yield connection

    def empty_log(self) -> None:
        """What was deleted is not in the WAL either, unless somebody reads just now."""
        with self.use() as connection:
            _empty_log(connection)

    def close(self) -> None:
        self._closed = True
        self.let_go()

    def let_go(self) -> None:
        """The next use opens it again."""
        with self._lock:
            self.files += 1
            if self._connection is not None:
                _empty_log(self._connection)  # or a file in the old one's place would be given its WAL
                self._connection.close()
                self._connection = None

    def _check(self) -> None:
        if not self._closed:
            self._file.check()

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError("the store is closed")
        if self._connection is None:
            self._connection = _open(self._file.path)
        return self._connection


def _empty_log(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """IMMEDIATE: one that reads first and writes later would fail at once when another has written (N2)."""
    try:
        _begin(connection)
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # it has not begun, or a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _begin(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        time.sleep(random.uniform(0, BETWEEN_S))
        connection.execute("BEGIN IMMEDIATE")


# --- making and opening ------------------------------------------------------------------------------------------


def _make(path: Path) -> None:
    """The file, empty, when there is none. An existing one is never opened here: closing it would drop its locks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if path.stat().st_mode & 0o077:
            with contextlib.suppress(PermissionError):  # another's file, which he shares
                path.chmod(0o600)
    except OSError as error:
        words = f"{path} cannot be made or opened: {error.strerror}"
        raise StoreError(words, code="store_read_only", hint="check the folder's permissions") from None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    """Never made by SQLite, which would let others read it."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=WAIT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to date, and set what a connection needs. A newer file is left as it is."""
    before = _known_version(connection, path)
    if before == 0:
        connection.execute("PRAGMA auto_vacuum = FULL")  # free pages are given back (N18); only an empty file takes it
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut, if the disk is honest
    connection.create_function("holds", 2, _holds, deterministic=True)
    _set_journal(connection)
    if before < len(MIGRATIONS):
        _migrate(connection, path, keep=before > 0)


def _migrate(connection: sqlite3.Connection, path: Path, *, keep: bool) -> None:
    """`keep`: a copy of the file as it was is left beside it (N10)."""
    while (version := int(_pragma(connection, "user_version"))) < len(MIGRATIONS):
        with _transaction(connection):
            if int(_pragma(connection, "user_version")) == version:  # no other process was quicker
                if keep:
                    part = path.with_name(f"{path.name}.part")
                    part.unlink(missing_ok=True)  # of a process that was killed
                    copy(path, part)  # by another connection: one that writes cannot be copied from
                    os.replace(part, path.with_name(f"{path.name}.before-{version + 1}"))
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")


def _known_version(connection: sqlite3.Connection, path: Path) -> int:
    """Raises: StoreError for a newer one."""
    version = int(_pragma(connection, "user_version"))
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} is of version {version}, and this flowgpt knows {len(MIGRATIONS)}",
            code="store_newer",
            hint="use the newer flowgpt that wrote it",
        )
    return version


def _holds(text: str, words: str) -> bool:
    """Whether a text has all the words, which have spaces between them; upper and lower case are the same."""
    folded = text.casefold()
    return all(word in folded for word in words.split())


def sqlite() -> tuple[str, bool]:
    """SQLite's version, and whether its WAL is sound when several processes write: from 3.51.3 on (N8)."""
    return sqlite3.sqlite_version, sqlite3.sqlite_version_info >= (3, 51, 3)


def _set_journal(connection: sqlite3.Connection) -> None:
    """WAL, unless this SQLite may corrupt a file with it when several processes write, as ours do (N8)."""
    mode = "wal" if sqlite()[1] else "delete"
    if _pragma(connection, "journal_mode") == mode:
        return
    try:
        connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    except sqlite3.OperationalError:
        if mode == "delete":
            raise
        # Another process has it open just now, or the file system cannot: a rollback journal is slower, and sound (N9).


def _pragma(connection: sqlite3.Connection, name: str) -> int | str:
    [[value]] = connection.execute(f"PRAGMA {name}").fetchall()
    assert isinstance(value, int | str)
    return value


# --- a copy ------------------------------------------------------------------------------------------------------


def copy(source: Path, target: Path) -> None:
    """A store as it is at this moment, whoever writes to it, to a new file, which is then looked through.

    Raises: InvalidRequestError where there is a file already; StoreError, store_corrupt for what is no whole store.
    What failed leaves no file.
    """
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise InvalidRequestError(f"{target} exists already", hint="name a new file") from None
    except OSError as error:
        words = f"{target} cannot be made: {error.strerror}"
        raise StoreError(words, code="store_read_only", hint="check the folder's permissions") from None
    try:
        with contextlib.closing(_connect(source)) as old, contextlib.closing(_connect(target)) as new:
            old.execute("BEGIN")
            counts = _counts(old)  # holds on to this moment; `backup` by itself would wait for a lock without end
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, with nothing beside it
            sound = new.execute("PRAGMA integrity_check").fetchall() == [("ok",)] and _counts(new) == counts
            if not _known_version(new, source) or not sound:
                raise StoreError(
                    f"{source}: it is damaged, or no store", code="store_corrupt", hint="use another backup"
                )
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise _failure(source, error) from None
        raise


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in names}  # noqa: S608


# --- what can be wrong -------------------------------------------------------------------------------------------

HINT_CORRUPT = "`flowgpt history restore` moves it aside, and puts a backup in its place, or nothing"

_BUSY = "store_busy", "another process keeps it locked", "try again"
_FULL = "store_full", "the disk is full, or a quota or limit of size is reached", "make room; then it goes on by itself"
_READ_ONLY = "store_read_only", "it cannot be written", "check the permissions of the file and its folder"
_CORRUPT = "store_corrupt", "it is damaged, or no SQLite file", HINT_CORRUPT

_FAULTS: Mapping[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR_WRITE: _FULL,  # EDQUOT and EFBIG; SQLite tells only ENOSPC apart
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_CORRUPT: _CORRUPT,
    sqlite3.SQLITE_NOTADB: _CORRUPT,
}
"""SQLite's result code, extended or primary: our code, words and next step. Any other is a store_error."""


def _failure(path: Path, error: sqlite3.Error) -> StoreError:
    """What SQLite raised, as a StoreError about `path`."""
    number = getattr(error, "sqlite_errorcode", 0)  # missing where Python itself complains
    fault = _FAULTS.get(number) or _FAULTS.get(number & 0xFF)
    if fault is not None:
        code, words, hint = fault
        return StoreError(f"{path}: {words}", code=code, hint=hint)
    if str(error).startswith(("no such module", "no such tokenizer")):
        return StoreError(
            f"SQLite {sqlite()[0]} cannot search", hint="use a Python with SQLite 3.34 or later, with FTS5"
        )
    return StoreError(f"{path}: {error}", hint="check the disk, and whether it has room")
