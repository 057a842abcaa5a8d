"""Conversations as files: `flowgpt history export`, `import`, `backup` and `restore`. Nothing is overwritten unasked.

One conversation at a time is in memory, however many there are. What a text of one looks like is `formats/transcripts`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import click

from .. import store as store_
from ..conversation import Conversation, Turn
from ..errors import InvalidRequestError
from ..formats import transcripts
from ..store import Store
from . import candidates, streams

LATEST = "latest"

FORMATS: Mapping[str, tuple[str, Callable[[Conversation, Sequence[Turn]], str]]] = {
    "markdown": (".md", transcripts.markdown),
    "jsonl": (".jsonl", transcripts.jsonl),
    "openai": (".jsonl", transcripts.openai_messages),
}
"""How names of files end, and what is in them."""

LIMIT_SLUG = 40
"""Letters of a title that a file's name has; a letter has four bytes at most, and a name 255."""

LIMIT_TOLD = 10
"""So many lines that are refused are told of one by one."""

CHUNK_BYTES = 64 * 1024


# --- which ones --------------------------------------------------------------------------------------------------


def find(store: Store, id_: str) -> Conversation:
    """By an id, a beginning of one, or LATEST. Raises: InvalidRequestError."""
    latest = store.conversations.latest() if id_ == LATEST else None
    return latest or store.conversations.find(id_)


def selected(store: Store, ids: Sequence[str]) -> list[Conversation]:
    """Those of the ids, each once; of no ids, all that there are, those last gone on with last."""
    found = [find(store, id_) for id_ in ids] if ids else store.conversations.list()[::-1]
    return list({each.id: each for each in found}.values())


def agreed(question: str, *, yes: bool) -> bool:
    """Whether it is to be done: asked on stderr, since stdout is for what was asked for."""
    return yes or click.confirm(streams.plain(question), err=True)


# --- out ---------------------------------------------------------------------------------------------------------


@click.command("export", short_help="Write conversations to stdout or files.")
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=candidates.conversations)
@click.option("--all", "everything", is_flag=True, help="all that are kept")
@click.option("-f", "--format", "form", type=click.Choice([*FORMATS]), default="markdown", show_default=True)
@click.option("-o", "--output", default="-", metavar="FILE|DIR", help="a file for all, or a folder for a file each")
@click.option("--force", is_flag=True, help="replace files that exist")
def export(ids: tuple[str, ...], everything: bool, form: str, output: str, force: bool) -> None:
    """Write conversations: as Markdown to read, as JSON lines that import takes back, or as OpenAI's messages.

    A DIR exists, or ends with a slash. Files are for you alone to read.
    """
    if bool(ids) == everything:
        raise click.UsageError("name conversations by their IDs, or give --all")
    with contextlib.closing(Store()) as store:
        chosen = [each.id for each in selected(store, ids)]
        pages = _pages(store, chosen, form)
        if output == "-":
            for index, (_, text) in enumerate(pages):
                streams.write(_apart(index, form) + text)
            return
        count = _write_files(pages, output, form, force=force)
    streams.note(f"flowgpt: {count:,} in {output}")


def _pages(store: Store, ids: Sequence[str], form: str) -> Iterator[tuple[Conversation, str]]:
    """Each conversation as it is when its turn comes; one that is gone by then is told of."""
    _, written = FORMATS[form]
    for id_ in ids:
        try:
            conversation = store.conversations.find(id_)
            turns = store.conversations.turns(conversation.id)
        except InvalidRequestError:
            streams.note(f"flowgpt: {id_} was deleted meanwhile")
            continue
        text = written(conversation, turns)
        yield conversation, streams.plain(text) if form == "markdown" else text


def _write_files(pages: Iterator[tuple[Conversation, str]], output: str, form: str, *, force: bool) -> int:
    folder, count = Path(output), 0
    if not (output.endswith(os.sep) or folder.is_dir()):
        with _new_file(folder, force=force) as file:
            for _, text in pages:
                file.write((_apart(count, form) + text).encode())
                count += 1
        return count
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(f"{output} cannot be made: {error.strerror}") from None
    for conversation, text in pages:
        with _new_file(folder / file_name(conversation, FORMATS[form][0]), force=force) as file:
            file.write(text.encode())
        count += 1
    return count


def _apart(index: int, form: str) -> str:
    return "\n" if index and form == "markdown" else ""


def file_name(conversation: Conversation, ending: str) -> str:
    """Letters and digits of the title, and the id: nothing that means something to a file system or a shell."""
    slug = "-".join(re.findall(r"\w+", conversation.title))[:LIMIT_SLUG]
    return f"{slug}-{conversation.id}{ending}".lstrip("-")


@contextlib.contextmanager
def _new_file(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A new file for its owner alone, gone again if it does not become whole. `force`: in the place of another file.

    Raises: InvalidRequestError when there is one, or it cannot be made.
    """
    exists = InvalidRequestError(f"{path} exists already", hint="--force replaces a file")
    if path.exists() and not (force and path.is_file()):
        raise exists
    made = path.with_name(f".{path.name[:100]}.{os.getpid()}") if force else path
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise exists from None
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be made: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(made, path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


# --- in ----------------------------------------------------------------------------------------------------------


@click.command("import", short_help="Take conversations in from a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE|-")
def import_(file: str) -> None:
    """Take conversations in, one a line: JSON lines of `export`, or OpenAI's messages.

    What is here already is left as it is, so a file can be imported again after a stop.
    """
    counts, hint = Counter[str](), ""
    with contextlib.closing(Store()) as store, _opened(file) as source:
        for number, line in transcripts.lines(iter(functools.partial(source.read, CHUNK_BYTES), b"")):
            try:
                new = store.conversations.put(*transcripts.read(line, time.time()))
            except InvalidRequestError as error:
                counts["refused"] += 1
                hint = hint or error.hint or ""
                if counts["refused"] <= LIMIT_TOLD:
                    streams.note(f"flowgpt: line {number}: {error.message}")
            else:
                counts["imported" if new else "already here"] += 1
    words = ", ".join(f"{what} {counts[what]:,}" for what in ("imported", "already here", "refused"))
    if counts["refused"]:
        raise InvalidRequestError(words, hint=hint or None)
    streams.note(f"flowgpt: {words}")


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file != "-":
        with open(file, "rb") as source:
            yield source
    elif sys.stdin is None:
        raise InvalidRequestError("standard input is closed")
    else:
        yield sys.stdin.buffer


# --- the whole ---------------------------------------------------------------------------------------------------


@click.command("backup", short_help="Copy the whole store to a new file.")
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy the whole store to a new FILE, also while others write: conversations, stored responses and keys."""
    with contextlib.closing(Store()) as store:
        store.backup(file)
    streams.note(f"flowgpt: all of it is in {file}")


@click.command("restore", short_help="Put a backup in the place of the store.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("-y", "--yes", is_flag=True, help="don't ask")
def restore(file: Path | None, yes: bool) -> None:
    """Put a copy of a backup FILE in the place of the store, or an empty store; the old one is moved aside.

    Stop `flowgpt serve` first. The gateway's keys are in the store: without any, it asks for none.
    """
    path = store_.default_path()
    there = "an empty store, without the gateway's keys" if file is None else f"a copy of {file}"
    if agreed(f"Move {path} aside, and put {there} in its place?", yes=yes):
        aside = store_.restore(time.time(), file)
        streams.note(f"flowgpt: {path} is {there} now" + (f"; the old one is {aside}" if aside else ""))
