"""The characters of this machine: cards in `config.home()/characters/NAME.json`, and what a card is as a character.

The files of that folder and no others: a name has no dots and no slashes, and a link that leads out of it is no card.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import config
from ..errors import InvalidRequestError, StoreError
from ..formats import cards
from ..formats.cards import Card
from ..protocol.characters import ID, Character, filled, from_prompt

EXTENSION = "flowgpt"
"""Under this name of a card's `extensions` stands what no field of a card has a place for."""

OURS = {"kind": "type", "cover_url": "coverURL", "thumbnail_url": "thumbnailURL"} | {
    name: name for name in ("id", "language", "nsfw", "model", "temperature")
}
"""What stands there: the character's fields, by the service's names."""


def folder() -> Path:
    """Where the cards are."""
    return config.home() / "characters"


def names() -> list[str]:
    """The names of all cards, sorted."""
    with contextlib.suppress(OSError):
        return sorted(path.stem for path in folder().glob("*.json") if _path(path.stem))
    return []


def _path(name: str) -> Path | None:
    """The file of a name's card, if there is one; in a folder that cannot be entered there is none."""
    path = folder() / f"{name}.json"
    with contextlib.suppress(OSError):
        if ID.fullmatch(name) and path.is_file() and path.resolve().parent == folder().resolve():
            return path
    return None


def find(name: str) -> Card | None:
    """The card of that name. Raises: InvalidRequestError for a file that is none, or cannot be read."""
    path = _path(name)
    return None if path is None else read(path)


def read(path: Path) -> Card:
    """The card in a file. Raises: InvalidRequestError, naming the file."""
    try:
        with path.open("rb") as file:
            return cards.read(file.read(cards.LIMIT_BYTES + 1))
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: {error}") from None


def add(name: str, card: Card) -> None:
    """Keep a card under a name. Raises: InvalidRequestError for a name that is taken or none; StoreError."""
    if not ID.fullmatch(name):
        raise InvalidRequestError(f"a character's name has 1 to 64 of A-Z a-z 0-9 _ -, not {name[:80]!a}")
    path = folder() / f"{name}.json"
    if os.path.lexists(path):
        raise InvalidRequestError(
            f"there is a character {name} already", hint=f"another name, or first: flowgpt character remove {name}"
        )
    begun = path.with_suffix(".part")
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        begun.write_bytes(cards.as_json(card))
        begun.chmod(0o600)
        begun.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def remove(name: str) -> bool:
    """Delete a card; False when there is none of that name. Raises: StoreError."""
    path = _path(name)
    if path is None:
        return False
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error.strerror}") from None
    return True


def character(card: Card) -> Character:
    """What a card says, as a character of no service: it has no id.

    All that a card means for the model becomes the system text, instructions for after the history at its end.
    `{{original}}`, another program's own prompt, is nothing here.
    """
    parts = [
        card.text("system_prompt"),
        card.text("description"),
        _headed("Personality: ", card.text("personality")),
        _headed("Scenario: ", card.text("scenario")),
        _headed("Examples of how {{char}} talks:\n", card.text("mes_example")),
        card.text("post_history_instructions"),
    ]
    own = {name: what for name, what in card.extension(EXTENSION).items() if name != "id"}
    prompt = own | {
        "title": card.text("nickname") or card.text("name"),
        "description": card.text("creator_notes"),
        "systemMessage": "\n\n".join(part for part in map(_without_original, parts) if part),
        "welcomeMessage": card.text("first_mes"),
    }
    return replace(from_prompt(prompt), tags=tuple(card.texts("tags")))


def _headed(head: str, text: str) -> str:
    return head + text.strip() if text.strip() else ""


def _without_original(text: str) -> str:
    return filled(text, {"original": ""}).strip()


def card(character: Character) -> Card:
    """A character as a card: its system text and greeting, its description as the notes for people, its examples."""
    said = [f"{{{{{'user' if turn.role == 'user' else 'char'}}}}}: {turn.content}" for turn in character.examples]
    own = {theirs: what for ours, theirs in OURS.items() if (what := getattr(character, ours)) not in ("", None)}
    fields: dict[str, Any] = {
        "name": character.title,
        "creator_notes": character.description,
        "system_prompt": character.system,
        "first_mes": character.greeting,
        "mes_example": "\n".join(["<START>", *said]) if said else "",
        "tags": list(character.tags),
        "extensions": {EXTENSION: own},
    }
    return Card(fields, {})
