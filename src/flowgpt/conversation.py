"""A conversation as it is kept: turns in their order. Values, and what is asked of them; no file, clock or chance.

Where they are kept is `store/`; how one looks as Markdown, JSON lines or messages is `formats/transcripts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .messages import Message

Verdict = Literal["", "complete", "unverified", "truncated", "interrupted"]
"""How an answer ended, as a reply's verdict, and `interrupted`: stopped by a person, by a kill, or not yet ended."""

LIMIT_TITLE = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side said. All but `role`, `text` and `created_s` tells of an answer how it came about.

    `created_s`: Unix seconds. `model`: who answered. `system`: the system prompt that was sent. `parameters`: the
    options that were sent, as JSON values. `verdict`: "" for what was not asked of a model (a question, a greeting).
    `code`: the failure's, when there was one. `first_text_s`, `total_s`: seconds since the request.
    """

    role: Literal["user", "assistant"]
    text: str
    created_s: float
    model: str = ""
    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict = ""
    code: str = ""
    first_text_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation without its turns. `branch_of`: the id of the one whose first turns it shares; "" is none.

    Times: Unix seconds. `count`: how many turns. `model`, `system`, `parameters`: those of its last answer.
    """

    id: str
    title: str
    created_s: float
    updated_s: float
    count: int = 0
    branch_of: str = ""
    model: str = ""
    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def title(turns: Iterable[Turn]) -> str:
    """One line that stands for a conversation: the beginning of its first question, or of whatever was said first."""
    said = sorted(turns, key=lambda turn: turn.role != "user")
    line = " ".join(said[0].text[: 4 * LIMIT_TITLE].split()) if said else ""
    return line if len(line) <= LIMIT_TITLE else line[: LIMIT_TITLE - 1] + "…"


def messages(turns: Sequence[Turn], system: str = "") -> list[Message]:
    """The turns as a provider takes them, after the system prompt. What was asked and got no word is left out."""
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        if turn.role == "assistant" and not turn.text:
            if said and said[-1]["role"] == "user":
                said.pop()
        else:
            said.append({"role": turn.role, "content": turn.text})
    return said
