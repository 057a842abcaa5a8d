"""`flowgpt history`: what is kept, to be looked at and to be deleted. What goes out and comes in is `archive.py`.

What models and people said reaches a terminal through `streams.plain` alone, or as ASCII within JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence

import click

from ..conversation import Conversation
from ..formats import transcripts
from ..store import Store, default_path
from . import archive, candidates, streams
from .dialogue import DAY_S

LEAST_TITLE = 20
"""Cells of a terminal that titles get; columns of the table make way for them."""

LIMIT_NAMED = 10
"""So many of those that are to be deleted are named before somebody is asked."""


@click.group("history")
def command() -> None:
    """List, show, search, export, import and delete conversations.

    An ID may be shortened to a beginning that no other has; `latest` is the one last gone on with.
    """


for part in (archive.export, archive.import_, archive.backup, archive.restore):
    command.add_command(part)


@command.command("list")
@click.option("-n", "number", type=click.IntRange(0), default=20, help="how many at most; 0: all  [default: 20]")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_(number: int, as_json: bool) -> None:
    """List conversations, the one last gone on with first."""
    with contextlib.closing(Store()) as store:
        found = store.conversations.list(number + 1 if number else None)
    shown = found[:number] if number else found
    if as_json:
        streams.write(json.dumps({"conversations": [dataclasses.asdict(each) for each in shown]}) + "\n")
    elif shown:
        streams.write(_table(shown, streams.columns()))
    else:
        _nothing()
    if len(found) > len(shown):
        streams.note(f"flowgpt: the last {number}; -n 0 lists all")


@command.command("show", short_help="Show a conversation as Markdown.")
@click.argument("id_", metavar="[ID]", default=archive.LATEST, shell_complete=candidates.conversations)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option("--raw", is_flag=True, help="keep the control characters of what was said")
def show(id_: str, as_json: bool, raw: bool) -> None:
    """Show a conversation as Markdown; the latest, when no ID is given.

    Every line that was said begins with >.
    """
    with contextlib.closing(Store()) as store:
        if id_ == archive.LATEST and store.conversations.latest() is None:
            _nothing()
            return
        conversation = archive.find(store, id_)
        turns = store.conversations.turns(conversation.id)
    if as_json:
        streams.write(json.dumps(transcripts.record(conversation, turns)) + "\n")
        return
    text = transcripts.markdown(conversation, turns)
    streams.write(text if raw else streams.plain(text))


@command.command("search", short_help="Find what was said.")
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "number", type=click.IntRange(1), default=20, show_default=True, help="how many at most")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def search(words: tuple[str, ...], number: int, as_json: bool) -> None:
    """Find what was said: turns that have all the words, or parts of words, in upper or lower case.

    The number before an excerpt is that of the turn.
    """
    with contextlib.closing(Store()) as store:
        found = store.conversations.search(" ".join(words), number)
    if as_json:
        streams.write(json.dumps({"found": [dataclasses.asdict(each) for each in found]}) + "\n")
        return
    columns, before = streams.columns(), ""
    for each in found:
        conversation = each.conversation
        if conversation.id != before:
            before = conversation.id
            streams.write(
                _fit(f"{before}  {_when(conversation.updated_s)}  {streams.line(conversation.title)}", columns) + "\n"
            )
        streams.write(_fit(f"{each.place + 1:>6}  {streams.line(each.excerpt)}", columns) + "\n")
    if not found:
        streams.note("flowgpt: nothing found")


@command.command("stats")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def stats(as_json: bool) -> None:
    """Count what is kept."""
    with contextlib.closing(Store()) as store:
        counted = store.conversations.stats()
    if as_json:
        streams.write(json.dumps(dataclasses.asdict(counted)) + "\n")
        return
    rows = [
        ("conversations", f"{counted.conversations:,}"),
        ("turns", f"{counted.turns:,}"),
        ("characters", f"{counted.characters:,}"),
        ("bytes of the file", f"{counted.file_bytes:,}"),
    ]
    if counted.first_s is not None and counted.last_s is not None:
        rows += [("first", _when(counted.first_s)), ("last", _when(counted.last_s))]
    rows += [(f"answers of {streams.line(model)}", f"{count:,}") for model, count in counted.models.items()]
    width = max(_cells(words) for words, _ in rows)
    streams.write("".join(f"{_fit(words, width, pad=True)}  {value}\n" for words, value in rows))


@command.command("delete", short_help="Delete conversations, really.")
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=candidates.conversations)
@click.option("--all", "everything", is_flag=True, help="all that are kept")
@click.option(
    "--older-than", "days", type=click.FloatRange(0), metavar="DAYS", help="those last gone on with before that"
)
@click.option("-y", "--yes", is_flag=True, help="don't ask")
def delete(ids: tuple[str, ...], everything: bool, days: float | None, yes: bool) -> None:
    """Delete conversations: overwritten in the file, not just hidden. Copies made before are left as they are."""
    if bool(ids) + everything + (days is not None) != 1:
        raise click.UsageError("name conversations by their IDs, or give --all, or --older-than DAYS")
    with contextlib.closing(Store()) as store:
        found = archive.selected(store, ids)
        if days is not None:
            before_s = time.time() - days * DAY_S
            found = [each for each in found if each.updated_s < before_s]
        if not found:
            streams.note("flowgpt: there is nothing to delete")
            return
        for each in found[:LIMIT_NAMED]:
            streams.note(f"flowgpt: {each.id}, {each.count} turns, {_when(each.updated_s)}: {each.title}")
        if len(found) > LIMIT_NAMED:
            streams.note(f"flowgpt: and {len(found) - LIMIT_NAMED:,} more")
        if archive.agreed(f"Delete {'it' if len(found) == 1 else f'these {len(found):,}'}?", yes=yes):
            count = store.conversations.delete([each.id for each in found])
            streams.note(f"flowgpt: deleted: {count:,}")


@command.command("path")
def path() -> None:
    """Print where the file is that has it all."""
    streams.write(f"{default_path()}\n")


# --- words for a terminal ----------------------------------------------------------------------------------------


def _nothing() -> None:
    streams.note("flowgpt: no conversation is kept yet")


def _table(found: Sequence[Conversation], columns: int | None) -> str:
    """Ids, times, counts, models and titles. On a terminal titles are cut to fit, and columns left out if need be."""
    cells = {
        "id": [each.id for each in found],
        "when": [_when(each.updated_s) for each in found],
        "turns": [str(each.count) for each in found],
        "model": [streams.line(each.model) for each in found],
    }
    widths = {name: max(map(_cells, (name, *texts))) for name, texts in cells.items()}
    while columns is not None and len(widths) > 1 and sum(widths.values()) + 2 * len(widths) + LEAST_TITLE > columns:
        widths.popitem()
    cells["title"] = [streams.line(each.title) for each in found]
    padded = [[_fit(text, width, pad=True) for text in (name, *cells[name])] for name, width in widths.items()]
    lines = ["  ".join(row) for row in zip(*padded, ["title", *cells["title"]], strict=True)]
    return "".join(_fit(line, columns).rstrip() + "\n" for line in lines)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _cells(text: str) -> int:
    from rich.cells import cell_len  # Chinese and Japanese signs take two cells each

    return cell_len(text)


def _fit(text: str, width: int | None, *, pad: bool = False) -> str:
    """The text in no more than so many cells of a terminal, or in exactly so many."""
    from rich.cells import set_cell_size

    if width is None or (not pad and _cells(text) <= width):
        return text
    return set_cell_size(text, width) if _cells(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
