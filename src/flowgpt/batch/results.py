"""A batch's output file, which is all the state that a batch has: what stands in it is done.

A resume reads it, cuts a torn last line off, takes out the failures that may pass, and refuses what belongs to another
input. Four bytes of memory for each line of the input. Nothing is asked in here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from ..errors import InvalidRequestError
from ..formats.openai.batch import is_torn, read_result, row_id
from .lines import lines

if sys.platform != "win32":
    import fcntl

LIMIT_RESULT_BYTES = 64 * 1024 * 1024
"""The longest line of an output that is read: more than an answer may have."""

SYNC_S = 1.0
"""So much of what has been written a power cut may take; a kill takes nothing."""

ANSWERED, FAILED, MAY_PASS = 1, 2, 3
"""What has become of a row: the two lowest bits of its mark; the others are its id's. 0: nothing yet."""


class Results:
    """The output file, this process's alone while the block lasts.

    `rows`: how many the input has; None when that is no file. `answered`, `failed`: how many of them have their line
    from before.
    Raises: InvalidRequestError when the output cannot be gone on with, or another process writes it; OSError.
    """

    def __init__(self, path: Path, source: BinaryIO) -> None:
        self.rows: int | None = None
        self.answered = self.failed = 0
        self._path = Path(os.path.realpath(path))
        self._source = source
        self._marks = array("I")
        self._stack = contextlib.ExitStack()
        self._file = -1
        self._regular = False
        self._synced_s = time.monotonic()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._file = self._opened(stack)
            if self._regular:
                self._resume(stack)
                stack.callback(os.fsync, self._file)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def stands(self, number: int) -> bool:
        """Whether the output has the line of this row."""
        return number < len(self._marks) and self._marks[number] != 0

    def write(self, line: bytes) -> None:
        """Put a whole line behind the others. Raises: OSError; then nothing of the line is in the file."""
        before = os.fstat(self._file).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            if self._regular:
                os.ftruncate(self._file, before)
            raise
        if self._regular and time.monotonic() - self._synced_s >= SYNC_S:
            os.fsync(self._file)
            self._synced_s = time.monotonic()

    # --- before the first row ---------------------------------------------------------------------------------------

    def _opened(self, stack: contextlib.ExitStack) -> int:
        """The output, locked; there is nothing to lock in a pipe or a device."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            stack.callback(os.close, file)
            here = os.fstat(file)
            self._regular = stat.S_ISREG(here.st_mode)
            if self._regular:
                _lock(file, self._path)
            if os.path.samestat(here, os.stat(self._path)):  # nobody has put another in its place meanwhile
                return file

    def _resume(self, stack: contextlib.ExitStack) -> None:
        source, size = os.fstat(self._source.fileno()), os.fstat(self._file).st_size
        if os.path.samestat(source, os.fstat(self._file)):
            raise InvalidRequestError("the output is the input: give it another name")
        if stat.S_ISREG(source.st_mode):
            end = self._read(source.st_size)
            if self._compare():
                self._rewrite(stack)
            elif end < size:
                os.ftruncate(self._file, end)
        elif size:
            raise InvalidRequestError(
                f"{self._path.name} has lines, and a batch goes on only when its input is a file",
                hint="give the input as a file, or name another output",
            )

    def _lines(self) -> Iterator[bytes]:
        """The whole lines of the output; a beginning of one at its end is passed over.

        Raises: InvalidRequestError when anything else stands there, for it is another's file.
        """
        os.lseek(self._file, 0, os.SEEK_SET)
        with os.fdopen(self._file, "rb", closefd=False) as stream:
            while line := stream.readline(LIMIT_RESULT_BYTES):
                if line.endswith(b"\n"):
                    yield line
                elif not is_torn(line):
                    raise self._foreign()

    def _read(self, limit: int) -> int:
        """Mark what the output has; gives where its last whole line ends. `limit`: more lines no input of this has."""
        end = 0
        for line in self._lines():
            end += len(line)
            try:
                result = read_result(line)
            except InvalidRequestError:
                raise self._foreign() from None
            if result.line > limit:
                raise self._other_input(result.line)
            if self.stands(result.line):
                raise InvalidRequestError(f"{self._path.name} has two lines for line {result.line} of the input")
            if (missing := result.line + 1 - len(self._marks)) > 0:
                self._marks.frombytes(bytes(self._marks.itemsize * max(missing, len(self._marks) // 4)))
            state = ANSWERED if result.error is None else MAY_PASS if result.error.retriable else FAILED
            self._marks[result.line] = _mark(result.id, state)
        return end

    def _compare(self) -> int:
        """Count the rows of the input, and see that the output is of these; gives how many are to be asked again.

        A failed row whose line is another by now was mended.
        """
        rows = again = 0
        for number, line in lines(self._source):
            rows += 1
            mark = self._marks[number] if self.stands(number) else 0
            same = mark == _mark(row_id(line, number), mark & 3)
            if mark & 3 == ANSWERED and not same:
                raise self._other_input(number)
            self.answered += mark & 3 == ANSWERED
            if mark and (mark & 3 == MAY_PASS or not same):
                self._marks[number] = 0
                again += 1
            self.failed += self.stands(number) and mark & 3 == FAILED
        if self.answered + self.failed < sum(map(bool, self._marks)):
            raise self._other_input(rows + 1)
        self._source.seek(0)
        self.rows = rows
        return again

    def _rewrite(self, stack: contextlib.ExitStack) -> None:
        """Leave out the lines of rows that are asked again: a file beside this one takes its place."""
        beside = self._path.with_name(f".{self._path.name}.part")  # what a kill left there is written over
        file = os.open(beside, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        stack.callback(os.close, file)
        _lock(file, self._path)
        with os.fdopen(file, "wb", closefd=False) as kept:
            kept.writelines(line for line in self._lines() if self.stands(read_result(line).line))
        os.chmod(beside, stat.S_IMODE(os.fstat(self._file).st_mode))
        os.fsync(file)
        os.replace(beside, self._path)
        self._file = file

    def _foreign(self) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._path.name} has something else than a batch's output, and stays as it is",
            hint="name another output",
        )

    def _other_input(self, number: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"{self._path.name} is the output of another input: line {number} was another",
            hint="give the input as it was (lines may be added at its end), or name another output",
        )


def _mark(row: str, state: int) -> int:
    """30 bits of a row's id, and its state."""
    return int(row[-8:], 16) & ~3 | state


def _lock(file: int, path: Path) -> None:
    """Keep other batches away until the file is closed. Raises: InvalidRequestError."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequestError(f"another batch is writing {path.name}", hint="wait until it has ended") from None
