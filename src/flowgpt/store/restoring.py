"""Another file in the place of a store that is damaged: a backup, or a new one. Never by itself.

The gateway's keys are in the file too, and one without keys would let everybody in: a person decides.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InvalidRequestError, StoreError
from .file import copy, default_path


def restore(now_s: float, backup: Path | None = None, path: Path | None = None) -> Path | None:
    """Move the store at `path` (None: `default_path()`) aside, and put a copy of `backup` there (None: nothing).

    The backup is looked through before anything is moved. Gives where the old one is now, `….corrupt-<now_s>`, with its
    -wal and -journal beside it; None where there was none. Raises: StoreError, InvalidRequestError.
    """
    path = path or default_path()
    if backup is not None and not backup.is_file():
        raise InvalidRequestError(f"there is no file {backup}")
    part = path.with_name(f"{path.name}.restoring")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        if backup is not None:
            copy(backup, part)
        aside = _free(path, now_s) if path.exists() else None
        if aside is not None:
            # The file first: SQLite takes no log for an empty file's, and that is what a kill would leave here.
            for end in ("", "-journal", "-wal", "-shm"):
                if os.path.exists(f"{path}{end}"):
                    os.rename(f"{path}{end}", f"{aside}{end}")
        if backup is not None:
            os.rename(part, path)
    except OSError as error:
        words = f"{path} cannot be restored: {error.strerror}"
        raise StoreError(words, code="store_read_only", hint="check the folder's permissions") from None
    return aside


def _free(path: Path, now_s: float) -> Path:
    number = int(now_s)
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    return aside
