"""A turn and a conversation as rows of the file, and back; what no row may have is made fit here.

Pure: SQL's words for what is selected, and values.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..conversation import Conversation, Turn
from ..errors import StoreError
from .file import HINT_CORRUPT

LIMIT_TEXT = 4_000_000
"""Characters of one text that are kept. A longer one is cut, and its turn is `truncated`, with the code too_long."""

LIMIT_NAME = 400
"""Characters of a title, or a name."""

TEXT = (
    "text || coalesce((SELECT group_concat(text, '') FROM "
    "(SELECT text FROM drafts WHERE turn = turns.number ORDER BY upto)), '')"
)
"""All of a turn's text, also while it is a draft."""

TURN = f"role, {TEXT}, created_s, model, system, parameters, verdict, code, first_text_s, total_s"

_LAST = (
    "(SELECT {} FROM turns WHERE conversation = conversations.number AND role = 'assistant' "
    "AND model || system <> '' ORDER BY place DESC LIMIT 1)"
)
CONVERSATION = ", ".join(
    [
        "id, title, created_s, updated_s, branch_of",
        "(SELECT count(*) FROM turns WHERE conversation = conversations.number)",
        *(_LAST.format(column) for column in ("model", "system", "parameters")),
    ]
)
"""With how many turns it has, and of its last answer how that was asked for."""

CONVERSATIONS = f"SELECT {CONVERSATION} FROM conversations "  # noqa: S608  # constants

_UNFIT = re.compile("[\0\ud800-\udfff]")


def clean(text: str) -> str:
    """SQLite takes no half of a surrogate pair, and its search ends at a NUL: both become U+FFFD (N11)."""
    return _UNFIT.sub("\ufffd", text)


def turn_row(turn: Turn) -> tuple[Any, ...]:
    """The columns of TURN."""
    text, system = clean(turn.text), clean(turn.system)
    verdict, code = turn.verdict, turn.code
    if max(len(text), len(system)) > LIMIT_TEXT:
        text, system, verdict, code = text[:LIMIT_TEXT], system[:LIMIT_TEXT], "truncated", code or "too_long"
    return (
        turn.role,
        text,
        turn.created_s,
        clean(turn.model)[:LIMIT_NAME],
        system,
        json.dumps(dict(turn.parameters)),
        verdict,
        clean(code)[:LIMIT_NAME],
        turn.first_text_s,
        turn.total_s,
    )


def turn(row: tuple[Any, ...]) -> Turn:
    """Of the columns of TURN."""
    role, text, created_s, model, system, parameters, verdict, code, first_text_s, total_s = row
    return Turn(
        role=role,
        text=text,
        created_s=created_s,
        model=model,
        system=system,
        parameters=_parameters(parameters),
        verdict=verdict,
        code=code,
        first_text_s=first_text_s,
        total_s=total_s,
    )


def conversation(row: tuple[Any, ...]) -> Conversation:
    """Of the columns of CONVERSATION."""
    id_, title, created_s, updated_s, branch_of, count, model, system, parameters = row
    return Conversation(
        id=id_,
        title=title,
        created_s=created_s,
        updated_s=updated_s,
        count=count,
        branch_of=branch_of,
        model=model or "",
        system=system or "",
        parameters=_parameters(parameters or "{}"),
    )


def _parameters(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (TypeError, ValueError):
        parsed = None
    if not isinstance(parsed, dict):
        raise StoreError("the store is damaged: a turn has no parameters", code="store_corrupt", hint=HINT_CORRUPT)
    return parsed


def excerpt(text: str, words: list[str]) -> str:
    """About 80 characters in one line, around the first place of the first word."""
    at = re.search(re.escape(words[0]), text, re.IGNORECASE)
    start = max(0, at.start() - 30) if at else 0
    line = " ".join(text[start : start + 90].split())
    return ("…" if start else "") + line + ("…" if start + 90 < len(text) else "")
