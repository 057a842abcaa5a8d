"""A conversation as text, and back: Markdown to read, our own JSON lines without loss, OpenAI's messages. Pure.

No file, no clock, no terminal: what controls one is still in the Markdown. Where conversations come from and go to is
`store/` and `cli/`. Sources: OpenAI's reference, "Create chat completion", `messages`, and its fine-tuning format, one
object {"messages": [...]} a line; CommonMark 0.31, 5.1 "Block quotes".
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_type_hints

import msgspec

from .. import conversation as values
from ..conversation import Conversation, Turn
from ..errors import InvalidRequestError

VERSION = 1
"""Of our JSON lines. A field that comes, goes or changes is a new version."""

LIMIT_BYTES = 64 * 1024 * 1024
"""What one conversation may have as a line that is read."""

LIMIT_S = 253_402_300_800.0
"""The year 10000: later times have no date."""

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What is taken for an id: it goes into names of files."""

NOTES = {
    "truncated": "The answer was cut off.",
    "interrupted": "The answer was stopped before its end.",
    "unverified": "Nothing proves that the answer is whole.",
}
"""What is said under an answer with this verdict. Of any other there is nothing to say."""

HINT = "one conversation a line: `flowgpt history export` writes such files, and `jq -c .` puts a value on one line"


# --- out ---------------------------------------------------------------------------------------------------------


def markdown(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """The conversation to be read. Every line that somebody else wrote begins with `>`: none can pass for ours."""
    parts = [
        f"# {_inline(conversation.title) or 'Untitled'}",
        f"{conversation.id} · {date(conversation.updated_s)} UTC · {len(turns)} turns",
    ]
    if conversation.branch_of:
        parts.append(f"A branch of {_inline(conversation.branch_of)}.")
    if conversation.system:
        parts += ["## System prompt", _quoted(conversation.system)]
    for turn in turns:
        parts += _turn(turn, conversation.system)
    return "\n\n".join(part for part in parts if part) + "\n"


def _turn(turn: Turn, system: str) -> Iterator[str]:
    if turn.role == "user":
        yield "## You"
    else:
        yield f"## {_inline(turn.model) or 'Answer'}"
    if turn.verdict and turn.system != system:
        yield "With another system prompt:" if turn.system else "Without a system prompt."
        yield _quoted(turn.system)
        yield "It said:" if turn.system and turn.text else ""
    yield _quoted(turn.text)
    if turn.verdict in NOTES:
        yield f"*{NOTES[turn.verdict]}*" + (f" ({_inline(turn.code)})" if turn.code else "")


def _quoted(text: str) -> str:
    """A block quote: inside it Markdown is still Markdown, and whatever it leaves open ends with it."""
    return "\n".join(f"> {line}" if line else ">" for line in re.split(r"\r\n|\r|\n", text)) if text else ""


def _inline(text: str) -> str:
    """On one line, and of no meaning in Markdown."""
    return re.sub(r"([\\`*_\[\]<>&#~|$!])", r"\\\1", " ".join(text.split()))


def date(seconds: float) -> str:
    """Unix seconds as a date and a time, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def record(conversation: Conversation, turns: Sequence[Turn]) -> dict[str, Any]:
    """The conversation as JSON values, with nothing left out but what has its default; `count` is that of the turns."""
    said = _Record(
        flowgpt=VERSION,
        conversation=msgspec.convert(replace(conversation, count=len(turns)), _CONVERSATION, from_attributes=True),
        turns=[msgspec.convert(turn, _TURN, from_attributes=True) for turn in turns],
    )
    builtins: dict[str, Any] = msgspec.to_builtins(said)
    return builtins


_CONTROLS = {code: f"\\u{code:04x}" for code in [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]}
"""What JSON need not escape, and yet commands a terminal (E14)."""


def jsonl(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """A line from which `read` makes the same values again. UTF-8; what commands a terminal is escaped."""
    return _line(record(conversation, turns))


def openai_messages(conversation: Conversation, turns: Sequence[Turn]) -> str:
    """A line {"messages": [...]}: what a model would be sent, and other programs read. The rest is left out."""
    return _line({"messages": values.messages(turns, conversation.system)})


def _line(value: Any) -> str:
    return msgspec.json.encode(value).decode().translate(_CONTROLS) + "\n"


# --- in ----------------------------------------------------------------------------------------------------------


def lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1 on, in memory one at a time.

    One over LIMIT_BYTES is cut after one byte more, which `read` refuses.
    """
    number, buffer = 1, bytearray()
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            buffer += piece[: LIMIT_BYTES + 1 - len(buffer)]
            if buffer.strip():
                yield number, bytes(buffer)
            buffer.clear()
            number += 1
        buffer += rest[: LIMIT_BYTES + 1 - len(buffer)]
    if buffer.strip():
        yield number, bytes(buffer)


def read(line: bytes, now_s: float) -> tuple[Conversation, list[Turn]]:
    """The conversation of a line: ours, OpenAI's object with `messages`, or a bare list of those.

    Messages have no id and no time: they get `now_s`, and an id made of what they say, so that the same ones are known
    when they come again. Raises: InvalidRequestError, for a field that is unknown too: nothing is lost unsaid.
    """
    if len(line) > LIMIT_BYTES:
        raise InvalidRequestError(f"a conversation has {LIMIT_BYTES:,} bytes at most", code="payload_too_large")
    line = line.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        if line.startswith(b"["):
            return _from_messages(_Messages(messages=msgspec.json.decode(line, type=list[_Message])), now_s)
        version = msgspec.json.decode(line, type=_Version).flowgpt
        if version is None:
            return _from_messages(msgspec.json.decode(line, type=_Messages), now_s)
        if version > VERSION:
            raise InvalidRequestError("a newer flowgpt wrote this", hint="import it with that one")
        return _from_record(msgspec.json.decode(line, type=_Record))
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"no conversation: {str(error)[:200]}", hint=HINT) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError("no conversation: this is no JSON in UTF-8", hint=HINT) from None


def _from_record(said: _Record) -> tuple[Conversation, list[Turn]]:
    turns = [Turn(**msgspec.structs.asdict(turn)) for turn in said.turns]
    found = Conversation(**msgspec.structs.asdict(said.conversation) | {"count": len(turns)})
    if not ID.fullmatch(found.id) or (found.branch_of and not ID.fullmatch(found.branch_of)):
        raise InvalidRequestError("no conversation: an id has 1 to 64 of the characters A-Z a-z 0-9 _ -")
    times = [found.created_s, found.updated_s, *(turn.created_s for turn in turns)]
    if not all(0 <= time < LIMIT_S for time in times):
        raise InvalidRequestError("no conversation: a time is before 1970 or after 9999")
    return found, turns


def _from_messages(said: _Messages, now_s: float) -> tuple[Conversation, list[Turn]]:
    system, turns = "", list[Turn]()
    for message in said.messages:
        text = message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)
        if message.role == "user":
            turns.append(Turn(role="user", text=text, created_s=now_s))
        elif message.role == "assistant":
            answer = Turn(role="assistant", text=text, created_s=now_s, model=said.model, system=system)
            turns.append(replace(answer, verdict="complete" if len(turns) else ""))
        else:
            system = f"{system}\n\n{text}" if system else text
    if not turns:
        raise InvalidRequestError("no conversation: nobody says anything in it")
    facts = [system, said.model, *((turn.role, turn.text) for turn in turns)]
    digest = hashlib.sha256(msgspec.json.encode(facts)).digest()
    conversation = Conversation(
        id=base64.b32encode(digest)[:10].decode().lower(),
        title=values.title(turns),
        created_s=now_s,
        updated_s=now_s,
        count=len(turns),
        model=said.model,
        system=system,
    )
    return conversation, turns


# --- what a line may be ------------------------------------------------------------------------------------------


def _strict(kind: type) -> Any:
    """A dataclass as JSON has it: without what has its default, and with no field besides."""
    hints = get_type_hints(kind)
    rows = [(part.name, hints[part.name], *_default(part)) for part in fields(kind)]
    return msgspec.defstruct(
        f"_{kind.__name__}", rows, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, frozen=True
    )


def _default(part: Field[Any]) -> tuple[Any, ...]:
    if part.default_factory is not MISSING:
        return (msgspec.field(default_factory=part.default_factory),)
    return () if part.default is MISSING else (part.default,)


_CONVERSATION: Any = _strict(Conversation)
_TURN: Any = _strict(Turn)


class _Version(msgspec.Struct):
    """A first look: only a line of ours has one."""

    flowgpt: int | None = None


class _Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    flowgpt: int
    conversation: _CONVERSATION
    turns: list[_TURN]


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _Message(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`name`, `weight`: have no place here, and change nothing that was said. What is None may be there, and empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None
    weight: int | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None


class _Messages(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    messages: list[_Message]
    model: str = ""
