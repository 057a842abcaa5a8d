"""A FlowGPT character: what the service tells of it, its id, its texts, and how a question is put to it. Pure.

Every field may be missing or of a wrong type; then it is as if it were not there. No addresses are fetched in here.
Source: docs/protocol.md#characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ModelNotFoundError, ProtocolError, StreamInterruptedError
from ..messages import Batch, Event
from .events import SURROGATE, shown
from .request import Prompt, Turn

LIMIT_BYTES = 1024 * 1024
"""Ours: a character's whole description. The longest texts that people write are a hundredth of it."""

LIMIT_NAME = 100
"""How many characters a model's id may have, to be taken for one."""

LIMIT_TITLE = 200
"""Ours: the longest title; what is over it is cut off. A text may say `{{char}}` a hundred thousand times."""

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""An id as they are known (a nanoid of 21, a UUID), and whatever else is safe in a path."""

PAGE = re.compile(r"(?:https?://)?(?:www\.)?flowgpt\.com/(?P<kind>chat|prompt|p)/(?P<id>[A-Za-z0-9_-]+)/?(?:[?#].*)?")
"""A character's page, as people paste it."""

KNOWN_ID = re.compile(r"[A-Za-z0-9_-]{21}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """A character, with placeholders in its texts. "" and None: it does not say.

    `id`: by which the service knows it; "" for one that is not of the service. `description`, `tags`, `examples`,
    `cover_url`: for people, and never sent. `model`: an id, listed or not. `temperature`: 0 to 2.
    """

    id: str = ""
    title: str = ""
    description: str = ""
    kind: str = ""
    language: str = ""
    system: str = ""
    greeting: str = ""
    model: str = ""
    temperature: float | None = None
    nsfw: bool = False
    tags: tuple[str, ...] = ()
    examples: tuple[Turn, ...] = ()
    cover_url: str = ""
    thumbnail_url: str = ""


def character_id(text: str) -> str:
    """The id in `text`: an id, or the address of a character's page. Raises: ModelNotFoundError (character_not_found).

    `/p/` addresses have a slug; one that has an id's form is taken for one, since nothing tells a slug's id.
    """
    page = PAGE.fullmatch(text)
    id_ = page["id"] if page else text
    if page and page["kind"] == "p" and not KNOWN_ID.fullmatch(id_):
        raise ModelNotFoundError(
            f"{shown(id_, 64)} is a page's name, and how a name becomes a character's id is unknown",
            code="character_not_found",
            hint="open the page and begin its chat: the address is then https://flowgpt.com/chat/ID",
        )
    if not ID.fullmatch(id_):
        raise ModelNotFoundError(
            f"{shown(text, 64)} is no character's id, and no address of a page on flowgpt.com",
            code="character_not_found",
            hint="an id has up to 64 of A-Z a-z 0-9 _ -; or paste https://flowgpt.com/chat/ID",
        )
    return id_


def parse(data: bytes, *, id: str = "") -> Character:  # noqa: A002  # as the field is called
    """The character in an answer's body, by the id that was asked for.

    Raises: StreamInterruptedError for an object that was cut; ProtocolError (decode_error, bad_character) for what is
    no JSON object with a `prompt`.
    """
    try:
        body = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ProtocolError("the character is not UTF-8", code="decode_error") from None
    except (ValueError, RecursionError):
        if data.lstrip()[:1] == b"{" and data.rstrip()[-1:] != b"}":
            raise StreamInterruptedError("the character was cut", code="stream_truncated") from None
        body = None
    prompt = body.get("prompt") if isinstance(body, dict) else None
    if not isinstance(prompt, dict):
        raise ProtocolError("the answer is no FlowGPT character", code="bad_character")
    return from_prompt(prompt, id=id)


def from_prompt(prompt: Mapping[str, Any], *, id: str = "") -> Character:  # noqa: A002
    """The character that an object with the service's fields describes; what is of a wrong type is left out."""
    model = _text(prompt, "model")
    return Character(
        id=id,
        title=_text(prompt, "title")[:LIMIT_TITLE],
        description=_text(prompt, "description"),
        kind=_text(prompt, "type"),
        language=_text(prompt, "language"),
        system=_text(prompt, "systemMessage"),
        greeting=_text(prompt, "welcomeMessage"),
        model=model if len(model) <= LIMIT_NAME and model.isprintable() else "",
        temperature=_degree(prompt.get("temperature")),
        nsfw=prompt.get("nsfw") is True,
        tags=tuple(name for tag in _list(prompt, "promptTags") if isinstance(tag, list) and (name := _text(tag, 3))),
        examples=tuple(
            Turn(turn["role"], said)
            for turn in _list(prompt, "exampleConversation")
            if isinstance(turn, dict) and turn.get("role") in ("user", "assistant") and (said := _text(turn, "content"))
        ),
        cover_url=_text(prompt, "coverURL"),
        thumbnail_url=_text(prompt, "thumbnailURL"),
    )


def _text(where: Any, place: str | int) -> str:
    """The text at a key or an index; "" when there is none. Half a surrogate pair becomes U+FFFD."""
    try:
        value = where[place]
    except LookupError:
        return ""
    return SURROGATE.sub("\ufffd", value) if isinstance(value, str) else ""


def _degree(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return abs(float(value)) if is_number and 0 <= value <= 2 else None


def _list(where: Mapping[str, Any], name: str) -> list[Any]:
    value = where.get(name)
    return value if isinstance(value, list) else []


def filled(text: str, names: Mapping[str, str]) -> str:
    """The text with `{{name}}` filled in for each of the names, in whatever case.

    What is filled in is not looked at again, and nothing else between braces means anything.
    """
    known = "|".join(map(re.escape, names))
    return re.sub(
        rf"\{{\{{({known})\}}\}}", lambda found: names[found[1].lower()], text, flags=re.IGNORECASE | re.ASCII
    )


def named(character: Character, user: str) -> Character:
    """The character with its placeholders filled in, in every text of it. `user`: what it calls the user."""

    def fill(text: str) -> str:
        return filled(text, {"user": user, "char": character.title})

    return replace(
        character,
        description=fill(character.description),
        system=fill(character.system),
        greeting=fill(character.greeting),
        examples=tuple(Turn(turn.role, fill(turn.content)) for turn in character.examples),
    )


def in_character(prompt: Prompt, character: Character) -> Prompt:
    """The question as it is put to a character: its system text before the caller's, and its greeting said first.

    Where an assistant's turn begins the conversation already, that is the greeting: the caller has shown it.
    """
    history = prompt.history
    greeted = history[0].role == "assistant" if history else prompt.question == character.greeting
    if character.greeting and not greeted:
        history = (Turn("assistant", character.greeting), *history)
    system = "\n".join(text for text in (character.system, prompt.system) if text)
    return Prompt(prompt.question, history, system)


class Decoder:
    """Decode a character's body: nothing comes before its end, and then one event `character`, a `Character`."""

    proven = done = False  # what is cut is told as what cut it

    def __init__(self, id_: str) -> None:
        self.events = 0
        self.unknown_events: dict[str, int] = {}
        self._id = id_
        self._body = bytearray()

    @property
    def tail(self) -> bytes:
        """The bytes that have come."""
        return bytes(self._body)

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes. The batch has a failure (response_too_large), or nothing."""
        self._body += data
        if len(self._body) <= LIMIT_BYTES:
            return Batch()
        return Batch(
            failure=ProtocolError(f"the character has more than {LIMIT_BYTES:,} bytes", code="response_too_large")
        )

    def close(self) -> Batch:
        """The body has ended: the character, or why it is none."""
        try:
            character = parse(bytes(self._body), id=self._id)
        except (ProtocolError, StreamInterruptedError) as failure:
            return Batch(failure=failure)
        self.events += 1
        return Batch(others=[(0, Event("character", character))])

    def cut(self) -> Batch:
        """The connection broke: half a character is none."""
        return Batch()
