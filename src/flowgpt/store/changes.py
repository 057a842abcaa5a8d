"""What a change of conversations is made of: steps in SQL, each within the transaction of whoever calls it.

An id or a place that is not there: InvalidRequestError. No clock; of chance only an id.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from ..conversation import Conversation, Turn, title
from ..errors import InvalidRequestError
from . import rows
from .file import Database
from .rows import clean

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
"""Ten of them by chance are an id: two meet once in 10¹⁵."""


def numbered(connection: Database, id_: str) -> tuple[int, int]:
    """The conversation's number in the file, and how many turns it has."""
    found = connection.execute(
        "SELECT number, (SELECT count(*) FROM turns WHERE conversation = conversations.number) FROM conversations "
        "WHERE id = ?",
        (clean(id_),),
    ).fetchall()
    if not found:
        raise InvalidRequestError(f"there is no conversation {id_[:64]!a}")
    number, count = found[0]
    return number, count


def turn_number(connection: Database, id_: str, place: int) -> int:
    """The turn's number in the file."""
    found = connection.execute(
        "SELECT turns.number FROM turns JOIN conversations ON conversations.number = conversation "
        "WHERE id = ? AND place = ?",
        (clean(id_), place),
    ).fetchall()
    if not found:
        raise InvalidRequestError(f"there is no turn {place} of a conversation {id_[:64]!a}")
    return int(found[0][0])


def new(connection: Database, like: Conversation) -> tuple[int, str]:
    """Number and id of a new conversation; "" as its id: one by chance."""
    id_ = like.id or "".join(secrets.choice(ALPHABET) for _ in range(10))
    cursor = connection.execute(
        "INSERT INTO conversations (id, title, created_s, updated_s, branch_of, written) "
        "VALUES (?, ?, ?, ?, ?, (SELECT coalesce(max(written), 0) + 1 FROM conversations))",
        (id_, clean(like.title)[: rows.LIMIT_NAME], like.created_s, like.updated_s, clean(like.branch_of)),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid, id_


def branch(connection: Database, id_: str, after: int) -> tuple[int, str]:
    """Number and id of a new conversation, with the first `after` turns of that one."""
    number, count = numbered(connection, id_)
    if after > count:
        raise InvalidRequestError(f"the conversation {id_} has {count} turns, not {after}")
    [row] = connection.execute(rows.CONVERSATIONS + "WHERE number = ?", (number,)).fetchall()
    copied, name = new(connection, replace(rows.conversation(row), id="", branch_of=id_))
    connection.execute(
        "INSERT INTO turns (conversation, place, role, text, created_s, model, system, parameters, verdict, code, "  # noqa: S608
        f"first_text_s, total_s, open) SELECT ?, place, {rows.TURN}, 0 FROM turns WHERE conversation = ? AND place < ?",
        (copied, number, after),
    )
    return copied, name


def name_after(connection: Database, conversation: int, turns: Sequence[Turn]) -> None:
    """The title of a branch in which nobody asked anything yet is that of `turns`, which come next."""
    connection.execute(
        "UPDATE conversations SET title = ? WHERE number = ? AND NOT EXISTS "
        "(SELECT 1 FROM turns WHERE conversation = conversations.number AND role = 'user')",
        (clean(title(turns))[: rows.LIMIT_NAME], conversation),
    )


def append(connection: Database, conversation: int, turns: Sequence[Turn], *, draft: bool) -> None:
    """`draft`: the last of them goes on, if it is an answer that has not ended."""
    [[place]] = connection.execute("SELECT count(*) FROM turns WHERE conversation = ?", (conversation,))
    goes_on = draft and turns[-1].role == "assistant" and turns[-1].verdict == "interrupted"
    drafted = len(turns) - 1 if goes_on else None
    connection.executemany(
        "INSERT INTO turns (conversation, place, role, text, created_s, model, system, parameters, verdict, code, "
        "first_text_s, total_s, open) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(conversation, place + index, *rows.turn_row(turn), index == drafted) for index, turn in enumerate(turns)],
    )


def went_on(connection: Database, conversation: int, now_s: float) -> None:
    """It is the latest now."""
    connection.execute(
        "UPDATE conversations SET updated_s = max(updated_s, ?), "
        "written = (SELECT max(written) + 1 FROM conversations) WHERE number = ?",
        (now_s, conversation),
    )
