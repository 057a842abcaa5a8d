"""What must outlast a process: keys and stored responses, in one SQLite file. The only file that imports sqlite3.

Calls come from any thread, and block: an event loop uses `asyncio.to_thread`; `keys` alone is quick enough without. One
connection of a process writes; processes wait for each other. Open a Store after a fork, never before it. Nothing here
knows HTTP, a dialect, or the clock.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from . import config
from .errors import InvalidRequestError, StoreError

WAIT_S = 5.0
"""How long a call waits for another process before it is store_busy."""

LIMIT_DROPPED = 100
"""Expired responses that one call drops: more than it adds, and few enough not to be noticed."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What names a key: it goes into logs and metrics, and owns stored responses."""

MIGRATIONS: Sequence[Sequence[str]] = (
    (
        "CREATE TABLE keys (name TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, created_s REAL NOT NULL)",
        "CREATE TABLE responses (id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_s REAL NOT NULL, "
        "expires_s REAL NOT NULL, body BLOB NOT NULL, input_items BLOB NOT NULL, turns BLOB NOT NULL)",
        "CREATE INDEX responses_by_expiry ON responses (expires_s)",
    ),
)
"""Number n makes a file of version n from one of version n - 1. What was released is never changed; append."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept. Times: Unix seconds. `body`, `input_items`, `turns`: JSON, of the caller's choice.

    `owner`: the name of a key, or "" where none was asked for.
    """

    id: str
    owner: str
    created_s: float
    expires_s: float
    body: bytes
    input_items: bytes
    turns: bytes


class Store:
    """The file, open. `path`: None is flowgpt.db in `config.home()`; file and folder are made for their owner alone.

    Raises: StoreError, here and in every call; its code says what is wrong (docs/errors.md). What failed was not done.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or config.home() / "flowgpt.db"
        self._inode: tuple[int, int] | None = None
        self._file = _Connection(self._path, self._check)
        self._keys_file = _Connection(self._path, self._check)  # since `keys` must not wait for a call that writes
        self._keys: Mapping[str, str] = {}
        self._keys_version: int | None = None
        try:
            self.key_names()
            self.keys()
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Waits for the call that is under way. Whatever is called after it is a StoreError."""
        self._file.close()
        self._keys_file.close()

    def _check(self) -> None:
        """Before each use: the file is there, and still the one that was opened. Raises: StoreError, once (N14)."""
        if self._inode is None:
            _make(self._path)
            self._inode = _inode(self._path)
        elif _inode(self._path) != self._inode:
            self._inode = None
            self._file.let_go()
            self._keys_file.let_go()
            raise StoreError(f"{self._path} was replaced while it was open", hint="the next call opens the new one")

    # --- stored responses ----------------------------------------------------------------------------------------

    def put_response(self, record: StoredResponse) -> None:
        """Keep it until it expires, and drop some of those that have expired by its `created_s`."""
        with self._file.transaction() as connection:
            connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(record))
            connection.execute(
                "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE expires_s <= ? LIMIT ?)",
                (record.created_s, LIMIT_DROPPED),
            )

    def response(self, id: str, owner: str, now_s: float) -> StoredResponse | None:  # noqa: A002  # as in OpenAI's API
        """None: there is none, it has expired, or it is somebody else's."""
        with self._file.use() as connection:
            rows = connection.execute(
                "SELECT * FROM responses WHERE id = ? AND owner = ? AND expires_s > ?", (_bindable(id), owner, now_s)
            ).fetchall()
        return StoredResponse(*rows[0]) if rows else None

    def delete_response(self, id: str, owner: str) -> bool:  # noqa: A002  # as in OpenAI's API
        """Overwritten with zeros in the file, not just hidden. False: there is none, or it is somebody else's."""
        with self._file.transaction() as connection:
            rows = connection.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (_bindable(id), owner))
        return rows.rowcount > 0

    # --- keys ----------------------------------------------------------------------------------------------------

    def add_key(self, name: str, digest: str, created_s: float) -> None:
        """Raises: InvalidRequestError for a name that is taken, or has other characters than NAME."""
        if not NAME.fullmatch(name):
            raise InvalidRequestError(
                f"a key's name has 1 to 64 of the characters A-Z a-z 0-9 . _ -, not {name[:80]!a}"
            )
        with self._file.transaction() as connection:
            if connection.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchall():
                raise InvalidRequestError(f"there is a key named {name!r} already")
            connection.execute("INSERT INTO keys VALUES (?, ?, ?)", (name, digest, created_s))

    def revoke_key(self, name: str) -> bool:
        """It counts no more from here on, in any process. False: there is none of that name."""
        with self._file.transaction() as connection:
            return connection.execute("DELETE FROM keys WHERE name = ?", (_bindable(name),)).rowcount > 0

    def keys(self) -> Mapping[str, str]:
        """Digest → name of all keys, as of now, in microseconds while nothing changes: fit for each request."""
        try:
            with self._keys_file.use() as connection:
                [[version]] = connection.execute("PRAGMA data_version").fetchall()
                if version != self._keys_version:
                    self._keys = dict(connection.execute("SELECT digest, name FROM keys").fetchall())
                    self._keys_version = version
                    connection.execute("PRAGMA busy_timeout = 0")  # from now on there is an answer without waiting
        except StoreError as error:
            # Busy: somebody is about to commit, and until then what was true is true.
            if error.code != "store_busy" or self._keys_version is None:
                self._keys_version = None
                raise
        return self._keys

    def key_names(self) -> list[tuple[str, float]]:
        """Name and time of making (Unix seconds) of all keys, by name."""
        with self._file.use() as connection:
            return connection.execute("SELECT name, created_s FROM keys ORDER BY name").fetchall()


# --- the file ----------------------------------------------------------------------------------------------------


class _Connection:
    """One connection to the file, for one thread at a time; opened when it is used. `check` comes before each use."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        self._path = path
        self._check = check
        self._lock = threading.Lock()
        self._closed = False
        self._connection: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        if not self._closed:
            self._check()
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed")
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except sqlite3.Error as error:
                raise _failure(self._path, error) from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self.use() as connection, _transaction(connection):
            yield connection

    def close(self) -> None:
        self._closed = True
        self.let_go()

    def let_go(self) -> None:
        """The next use opens it again."""
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(sqlite3.Error):  # a file in the old one's place would be given its WAL
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",  # never made by SQLite, which would let others read it
            uri=True,
            timeout=WAIT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _prepare(connection, self._path)
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """IMMEDIATE: one that reads first and writes later would fail at once when another has written (N2)."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


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


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to date, and set what a connection needs. A newer file is left as it is."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} is of version {version}, and this flowgpt knows {len(MIGRATIONS)}",
            code="store_newer",
            hint="use the newer flowgpt that wrote it",
        )
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = FULL")  # free pages are given back (N18); only an empty file takes it
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut, if the disk is honest
    _set_journal(connection)
    while (version := _version(connection)) < len(MIGRATIONS):
        with _transaction(connection):
            if _version(connection) == version:  # no other process was quicker
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")


def sqlite() -> tuple[str, bool]:
    """SQLite's version, and whether its WAL is sound when several processes write: from 3.51.3 on (N8)."""
    return sqlite3.sqlite_version, sqlite3.sqlite_version_info >= (3, 51, 3)


def _set_journal(connection: sqlite3.Connection) -> None:
    """WAL, unless this SQLite may corrupt a file with it when several processes write, as ours do (N8)."""
    mode = "wal" if sqlite()[1] else "delete"
    [[current]] = connection.execute("PRAGMA journal_mode").fetchall()
    if current == mode:
        return
    try:
        connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    except sqlite3.OperationalError:
        if mode == "delete":
            raise
        # Another process has it open just now, or the file system cannot: a rollback journal is slower, and sound (N9).


def _version(connection: sqlite3.Connection) -> int:
    [[version]] = connection.execute("PRAGMA user_version").fetchall()
    return int(version)


def _bindable(text: str) -> str:
    """SQLite takes no lone surrogates (N11); no id or name of ours has what they become."""
    return text.encode("utf-8", "replace").decode()


_BUSY = "store_busy", "another process keeps it locked", "try again"
_FULL = "store_full", "the disk is full, or a quota or limit of size is reached", "make room; then it goes on by itself"
_READ_ONLY = "store_read_only", "it cannot be written", "check the permissions of the file and its folder"
_CORRUPT = "store_corrupt", "it is damaged, or no SQLite file", "move it away, and put back a copy of yours, or none"

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
    number = getattr(error, "sqlite_errorcode", 0)  # missing where Python itself complains
    fault = _FAULTS.get(number) or _FAULTS.get(number & 0xFF)
    if fault is None:
        return StoreError(f"{path}: {error}", hint="check the disk")
    code, words, hint = fault
    return StoreError(f"{path}: {words}", code=code, hint=hint)
