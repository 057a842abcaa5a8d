"""Files that go with a question: texts only, each in a fence of its own with its name. All else is refused by name."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidRequestError
from ..formats.fences import fenced
from .streams import LIMIT_STDIN_BYTES, line

LIMIT_BYTES = LIMIT_STDIN_BYTES
"""All files of a question together, as for what is piped in."""

KINDS = (
    (b"\x89PNG\r\n\x1a\n", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"GIF8", "an image (GIF)"),
    (b"RIFF", "an image or a sound (RIFF)"),
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive, as office documents are"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"SQLite format 3\x00", "a database (SQLite)"),
)
"""What a file begins with, and what people call it then."""


def texts(files: Sequence[str]) -> list[str]:
    """Each file as text in a fence with its name; with the whole name as given where two would have the same.

    Raises: InvalidRequestError, naming the file.
    """
    left = LIMIT_BYTES
    paths = [Path(file) for file in files]
    names = [path.name for path in paths]
    found = []
    for file, path in zip(files, paths, strict=True):
        text = _text(file, path, left)
        left -= len(text.encode())
        name = path.name if names.count(path.name) == 1 else file
        found.append(fenced(text, line(name.replace("`", "'"))))
    return found


def _text(file: str, path: Path, left: int) -> str:
    if file == "-":
        raise InvalidRequestError("'-' is no file: what is piped in is part of the question by itself")
    try:
        mode = path.stat().st_mode
        data = _beginning(path, left + 1) if stat.S_ISREG(mode) else None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise InvalidRequestError(f"{file} cannot be read: {reason or error}") from None
    if data is not None:
        return _decoded(file, data, left)
    what = "a directory" if stat.S_ISDIR(mode) else "no ordinary file"
    raise InvalidRequestError(f"{file} is {what}: only files of text can be attached")


def _beginning(path: Path, size: int) -> bytes:
    with path.open("rb") as opened:
        return opened.read(size)


def _decoded(file: str, data: bytes, left: int) -> str:
    for beginning, kind in KINDS:
        if data.startswith(beginning):
            raise InvalidRequestError(f"{file} is {kind}: only files of text can be attached")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidRequestError(f"{file} is UTF-16, not UTF-8", hint="iconv -f utf-16 -t utf-8 converts it")
    if b"\0" in data:
        raise InvalidRequestError(f"{file} is binary: only files of text can be attached")
    if len(data) > left:
        raise InvalidRequestError(
            f"{file} is too large: all attachments together may have {LIMIT_BYTES:,} bytes", code="payload_too_large"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{file} is not UTF-8, at byte {error.start}", hint="iconv -t utf-8 converts a text"
        ) from None
