"""What must outlast a process: keys, stored responses and conversations, in one SQLite file.

Calls come from any thread, and block: an event loop uses `asyncio.to_thread`; `keys` alone is quick enough without. One
connection of a process writes; processes wait for each other. Open a Store after a fork, never before it. Nothing here
knows HTTP, a dialect, or the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from ..errors import InvalidRequestError, StoreError
from .conversations import Conversations, Found, Stats
from .file import WAIT_S, File, copy, default_path, sqlite
from .restoring import restore
from .rows import clean

__all__ = [
    "NAME",
    "WAIT_S",
    "Conversations",
    "Found",
    "Stats",
    "Store",
    "StoredResponse",
    "default_path",
    "restore",
    "sqlite",
]

LIMIT_DROPPED = 100
"""Expired responses that one call drops: more than it adds, and few enough not to be noticed."""

VERSION = "PRAGMA data_version"
"""What tells a connection that another one has changed something."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What names a key: it goes into logs and metrics, and owns stored responses."""


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
    """The file, open. `path`: None is `default_path()`; file and folder are made for their owner alone.

    `conversations`: those that are kept. Raises: StoreError, here and in every call; its code says what is wrong
    (docs/errors.md). What failed was not done.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        file = File(self._path)
        self.close = file.close
        self._connection = file.connection()
        self._keys_connection = file.connection()  # since `keys` must not wait for a call that writes
        self._keys: Mapping[str, str] = {}
        self._keys_version: tuple[Sequence[object], int] = ((), -1)
        self.conversations = Conversations(self._connection)
        try:
            self.key_names()
            self.keys()
        except StoreError:
            self.close()
            raise

    def backup(self, path: Path) -> None:
        """All that is in it at this moment, to a new file, looked through; others wait with writing meanwhile (N17).

        Raises: InvalidRequestError where there is a file already.
        """
        copy(self._path, path)

    # --- stored responses ----------------------------------------------------------------------------------------

    def put_response(self, record: StoredResponse) -> None:
        """Keep it until it expires, and drop some of those that have expired by its `created_s`."""
        with self._connection.transaction() as connection:
            connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(record))
            connection.execute(
                "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE expires_s <= ? LIMIT ?)",
                (record.created_s, LIMIT_DROPPED),
            )

    def response(self, id: str, owner: str, now_s: float) -> StoredResponse | None:  # noqa: A002  # as in OpenAI's API
        """None: there is none, it has expired, or it is somebody else's."""
        rows = self._connection.rows(
            "SELECT * FROM responses WHERE id = ? AND owner = ? AND expires_s > ?", (clean(id), owner, now_s)
        )
        return StoredResponse(*rows[0]) if rows else None

    def delete_response(self, id: str, owner: str) -> bool:  # noqa: A002  # as in OpenAI's API
        """Overwritten with zeros in the file, not just hidden. False: there is none, or it is somebody else's."""
        with self._connection.transaction() as connection:
            rows = connection.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (clean(id), owner))
        return rows.rowcount > 0

    # --- keys ----------------------------------------------------------------------------------------------------

    def add_key(self, name: str, digest: str, created_s: float) -> None:
        """Raises: InvalidRequestError for a name that is taken, or has other characters than NAME."""
        if not NAME.fullmatch(name):
            raise InvalidRequestError(
                f"a key's name has 1 to 64 of the characters A-Z a-z 0-9 . _ -, not {name[:80]!a}"
            )
        with self._connection.transaction() as connection:
            if connection.execute("SELECT 1 FROM keys WHERE name = ?", (name,)).fetchall():
                raise InvalidRequestError(f"there is a key named {name!r} already")
            connection.execute("INSERT INTO keys VALUES (?, ?, ?)", (name, digest, created_s))

    def revoke_key(self, name: str) -> bool:
        """It counts no more from here on, in any process. False: there is none of that name."""
        with self._connection.transaction() as connection:
            return connection.execute("DELETE FROM keys WHERE name = ?", (clean(name),)).rowcount > 0

    def keys(self) -> Mapping[str, str]:
        """Digest → name of all keys, as of now, in microseconds while nothing changes: fit for each request."""
        kept = self._keys_connection
        try:
            if (kept.rows(VERSION), kept.files) != self._keys_version:
                with kept.use() as connection:
                    version = connection.execute(VERSION).fetchall(), kept.files
                    self._keys = dict(connection.execute("SELECT digest, name FROM keys").fetchall())
                    self._keys_version = version
                    connection.execute("PRAGMA busy_timeout = 0")  # from now on there is an answer without waiting
        except StoreError as error:
            # Busy: somebody is about to commit, and until then what was true of this file is true.
            if error.code != "store_busy" or kept.files != self._keys_version[1]:
                raise
        return self._keys

    def key_names(self) -> list[tuple[str, float]]:
        """Name and time of making (Unix seconds) of all keys, by name."""
        return self._connection.rows("SELECT name, created_s FROM keys ORDER BY name")
