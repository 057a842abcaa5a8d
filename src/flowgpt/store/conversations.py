"""Conversations in the file. Nothing that was said is overwritten: what goes on from an earlier point is a branch.

A draft is a turn that is `interrupted` from the start, so that after a kill there is nothing to mend. No clock, and of
chance only an id.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..conversation import Conversation, Turn, title
from ..errors import InvalidRequestError
from . import changes, rows
from .file import Connection
from .rows import clean

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What may be an id. Our own are ten of a-z and 2-7."""


@dataclass(frozen=True, slots=True)
class Found:
    """A turn that has the words. `excerpt`: one line of its text, with the first of them in it."""

    conversation: Conversation
    place: int
    excerpt: str


@dataclass(frozen=True, slots=True)
class Stats:
    """What there is. `models`: answers of each model, most first. Times: Unix seconds; None where there is nothing."""

    conversations: int
    turns: int
    characters: int
    file_bytes: int
    models: Mapping[str, int]
    first_s: float | None
    last_s: float | None


class Conversations:
    """Those of a store, of which every call may raise StoreError.

    An id or a place that is not there, or not any more: InvalidRequestError. Times: Unix seconds. Places count from 0.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- while somebody talks ------------------------------------------------------------------------------------

    def add(self, id: str | None, after: int, turns: Sequence[Turn]) -> str:  # noqa: A002
        """Put `turns`, one at least, behind the first `after` turns (None: of a new conversation); gives its id.

        It is another one, of a branch, when there are more turns by now. An answer at the end that is `interrupted` is
        a draft: `draft` and `end` go on with it.
        """
        with self._connection.transaction() as connection:
            if id is None:
                started_s = turns[0].created_s
                head = Conversation(id="", title=title(turns), created_s=started_s, updated_s=started_s)
                number, name = changes.new(connection, head)
            else:
                (number, count), name = changes.numbered(connection, id), id
                if after != count:
                    number, name = changes.branch(connection, id, after)
                    changes.name_after(connection, number, turns)
            changes.append(connection, number, turns, draft=True)
            changes.went_on(connection, number, turns[-1].created_s)
        return name

    def draft(self, id: str, place: int, text: str) -> None:  # noqa: A002
        """More of the text of an answer that has not ended. A power cut may take the last of it; a kill does not."""
        kept = clean(text)
        with self._connection.transaction(synced=False) as connection:
            turn = changes.turn_number(connection, id, place)
            connection.execute(
                "UPDATE turns SET open = 1, verdict = 'interrupted', code = '' WHERE number = ? AND NOT open", (turn,)
            )
            [[before]] = connection.execute("SELECT coalesce(max(upto), 0) FROM drafts WHERE turn = ?", (turn,))
            if kept := kept[: rows.LIMIT_TEXT - before]:
                connection.execute("INSERT INTO drafts VALUES (?, ?, ?)", (turn, before + len(kept), kept))

    def end(self, id: str, place: int, turn: Turn) -> None:  # noqa: A002
        """What that turn has become: its draft makes way for it."""
        with self._connection.transaction() as connection:
            conversation, _ = changes.numbered(connection, id)
            number = changes.turn_number(connection, id, place)
            connection.execute(
                "UPDATE turns SET (role, text, created_s, model, system, parameters, verdict, code, first_text_s, "
                "total_s, open) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) WHERE number = ?",
                (*rows.turn_row(turn), number),
            )
            connection.execute("DELETE FROM drafts WHERE turn = ?", (number,))
            changes.went_on(connection, conversation, turn.created_s + (turn.total_s or 0.0))

    def branch(self, id: str, after: int) -> str:  # noqa: A002
        """A new conversation with a copy of the first `after` turns of that one."""
        with self._connection.transaction() as connection:
            return changes.branch(connection, id, after)[1]

    # --- reading -------------------------------------------------------------------------------------------------

    def list(self, limit: int | None = None) -> Sequence[Conversation]:
        """The one last gone on with comes first: by the order of writing, not by the clock (N13)."""
        most = -1 if limit is None else min(limit, sys.maxsize)
        found = self._connection.rows(rows.CONVERSATIONS + "ORDER BY written DESC LIMIT ?", (most,))
        return [rows.conversation(row) for row in found]

    def latest(self) -> Conversation | None:
        """The one last gone on with; None: there is none."""
        return next(iter(self.list(1)), None)

    def find(self, id: str) -> Conversation:  # noqa: A002
        """By its id, or a beginning of it that no other has. Raises: InvalidRequestError, which names what is near."""
        wanted = clean(id)[: rows.LIMIT_NAME]
        with self._connection.use() as connection:
            for which in ("id = ?1", "?1 <> '' AND substr(id, 1, length(?1)) = ?1"):
                found = connection.execute(
                    f"{rows.CONVERSATIONS} WHERE {which} ORDER BY written DESC LIMIT 4", (wanted,)
                ).fetchall()
                if found:
                    break
            else:
                ids = [row[0] for row in connection.execute("SELECT id FROM conversations ORDER BY written DESC")]
                near = difflib.get_close_matches(wanted[:64], ids, 3, 0.6)
                meant = f"; did you mean {' or '.join(near)}?" if near else ""
                raise InvalidRequestError(f"there is no conversation {wanted[:64]!a}{meant}")
        if len(found) > 1:
            meant = ", ".join(row[0] for row in found[:3]) + (" …" if len(found) > 3 else "")
            raise InvalidRequestError(f"more than one conversation begins with {wanted!a}: {meant}")
        return rows.conversation(found[0])

    def turns(self, id: str) -> Sequence[Turn]:  # noqa: A002
        """What was said, in its order."""
        with self._connection.use() as connection:
            number, _ = changes.numbered(connection, id)
            found = connection.execute(
                f"SELECT {rows.TURN} FROM turns WHERE conversation = ? ORDER BY place",  # noqa: S608
                (number,),
            ).fetchall()
        return [rows.turn(row) for row in found]

    def search(self, words: str, limit: int) -> Sequence[Found]:
        """Turns that have all the words, or parts of words, upper or lower case; those last gone on with come first.

        The index knows what has three letters or more; for shorter ones every turn is read.
        """
        wanted = clean(words).split()
        indexed = sorted((word[: rows.LIMIT_NAME] for word in wanted if len(word) > 2), key=len)[-8:]
        query = " AND ".join('"' + word.replace('"', '""') + '"' for word in indexed)
        candidates = "WHERE ? = ''"
        if query:
            matching = "SELECT rowid FROM words WHERE words MATCH ? UNION ALL SELECT number FROM turns WHERE open"
            candidates = f"WHERE number IN ({matching})"
        found = self._connection.rows(
            f"SELECT {rows.CONVERSATION}, place, said FROM "  # noqa: S608
            f"(SELECT conversation, place, {rows.TEXT} AS said FROM turns {candidates}) "
            "JOIN conversations ON number = conversation WHERE holds(said, ?) ORDER BY written DESC, place LIMIT ?",
            (query, " ".join(wanted).casefold(), min(limit, sys.maxsize) if wanted else 0),
        )
        return [Found(rows.conversation(row[:-2]), row[-2], rows.excerpt(row[-1], wanted)) for row in found]

    def stats(self) -> Stats:
        with self._connection.use() as connection:
            [[count, first_s, last_s]] = connection.execute(
                "SELECT count(*), min(created_s), max(updated_s) FROM conversations"
            )
            [[turns, characters]] = connection.execute(
                f"SELECT count(*), coalesce(sum(length({rows.TEXT})), 0) FROM turns"  # noqa: S608
            )
            models = connection.execute(
                "SELECT model, count(*) FROM turns WHERE model <> '' GROUP BY model ORDER BY 2 DESC, 1"
            ).fetchall()
            [[pages]] = connection.execute("PRAGMA page_count")
            [[page_bytes]] = connection.execute("PRAGMA page_size")
        return Stats(count, turns, characters, pages * page_bytes, dict(models), first_s, last_s)

    # --- in and out ----------------------------------------------------------------------------------------------

    def put(self, conversation: Conversation, turns: Sequence[Turn]) -> bool:
        """Take one in with its own id and times ("": a new id). False: that id is here already; nothing is changed.

        Raises: InvalidRequestError for what can be no ID.
        """
        if conversation.id and not ID.fullmatch(conversation.id):
            raise InvalidRequestError(
                f"an id has 1 to 64 of the characters A-Z a-z 0-9 _ -, not {conversation.id[:80]!a}"
            )
        with self._connection.transaction() as connection:
            if connection.execute("SELECT 1 FROM conversations WHERE id = ?", (conversation.id,)).fetchall():
                return False
            number, _ = changes.new(connection, conversation)
            changes.append(connection, number, turns, draft=False)
        return True

    def delete(self, ids: Sequence[str]) -> int:
        """Overwritten in the file, not just hidden; how many there were."""
        return self._delete("id IN (SELECT value FROM json_each(?))", json.dumps([clean(id_) for id_ in ids]))

    def delete_older(self, before_s: float) -> int:
        """Delete those that were last gone on with before that time; how many there were."""
        return self._delete("updated_s < ?", before_s)

    def _delete(self, which: str, value: str | float) -> int:
        with self._connection.transaction() as connection:
            found = connection.execute(f"SELECT number FROM conversations WHERE {which}", (value,)).fetchall()  # noqa: S608
            for number in found:
                connection.execute(
                    "DELETE FROM drafts WHERE turn IN (SELECT number FROM turns WHERE conversation = ?)", number
                )
                connection.execute("DELETE FROM turns WHERE conversation = ?", number)
                connection.execute("DELETE FROM conversations WHERE number = ?", number)
            if found:  # the index keeps what was deleted from it, until all of it is written anew
                connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        if found:
            self._connection.empty_log()
        return len(found)
