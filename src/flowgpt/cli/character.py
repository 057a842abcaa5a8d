"""`flowgpt character`: show, keep, bring in, give out and talk with characters: FlowGPT's and this machine's.

A character is named by its id, by the address of its page, by the name of a kept card, or by a card's file.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import click
import msgspec

from ..errors import InvalidRequestError
from ..formats import cards
from ..formats.cards import Card
from ..providers import characters, local_characters
from ..providers.characters import Character
from . import streams
from .asking import together
from .endpoint import endpoint, has_providers

FORMATS = (".json", ".png")

WHO = "WHO"
"""What stands in usages for a character: ID, URL, NAME or FILE."""


@click.group("character")
def command() -> None:
    """Talk with FlowGPT characters; show, keep, import and export them.

    WHO is a character's id, the address of its page on flowgpt.com, the NAME of a card that is kept here, or a FILE
    (.json or .png) with a card. As a model, everywhere: character:ID or character:NAME.
    """


_asking = together(
    click.option("--base-url", metavar="URL", help="where FlowGPT is asked [env: FLOWGPT_BASE_URL] or 'embedded'"),
    click.option("--proxy", metavar="URL", help="as for `flowgpt ask` [env: FLOWGPT_PROXY]"),
    click.option("--timeout", type=float, metavar="SECONDS", help="seconds for the answer [env: FLOWGPT_TIMEOUT]"),
    click.option("-q", "--quiet", is_flag=True, help="no notes on stderr; failures are still told"),
)
"""The options of the commands that may have to ask the service for a character."""


# --- finding ----------------------------------------------------------------------------------------------------------


def _character(who: str, **way: Any) -> Character:
    card = _card_here(who)
    return _fetched(who, **way) if card is None else local_characters.character(card)


def _card(who: str, **way: Any) -> Card:
    return _card_here(who) or local_characters.card(_fetched(who, **way))


def _card_here(who: str) -> Card | None:
    """The card in a file, or the one that is kept under this name. Raises: InvalidRequestError."""
    if who.lower().endswith(FORMATS):
        return local_characters.read(Path(who))
    return local_characters.find(who.removeprefix(characters.PREFIX))


def _fetched(who: str, base_url: str | None, proxy: str | None, timeout: float | None, quiet: bool) -> Character:
    """The service's character. Raises: FlowGPTError."""
    model = _model(who)
    with endpoint(base_url, proxy, tell=streams.notes(quiet=quiet)) as there:
        return asyncio.run(characters.fetch(model, base_url=there.base_url, proxy=there.proxy, timeout=timeout))


def _model(who: str) -> str:
    """A character's name as a model's. Raises: ModelNotFoundError."""
    return characters.checked(characters.PREFIX + who.removeprefix(characters.PREFIX))


# --- talking ----------------------------------------------------------------------------------------------------------


@command.command("chat")
@click.argument("who", metavar=WHO)
@click.option("--user", "user_name", metavar="NAME", help="what the character calls you  [default: User]")
@click.option("--temperature", type=float, metavar="NUMBER", help="as for `flowgpt chat`  [default: the character's]")
@click.option("--no-save", is_flag=True, help="keep nothing of it")
@click.option("--plain", is_flag=True, help="bare lines, for a screen reader: no Markdown, and nothing moves")
@_asking
def chat_(who: str, user_name: str | None, temperature: float | None, no_save: bool, plain: bool, **way: Any) -> None:
    """Talk with a character, which speaks first. As `flowgpt chat -m character:WHO`."""
    from . import chat  # late: none of the other commands needs it

    if who.lower().endswith(FORMATS):
        raise InvalidRequestError("a card has to be kept, to be talked with", hint=f"flowgpt character import {who}")
    model = _model(who)
    character = characters.local(model)
    if character is None and not has_providers(None, way["base_url"]):  # else only they know where it is
        character = _fetched(who, **way | {"quiet": True})
    greeting = characters.greeting(character, user_name=user_name) if character else ""
    options = {} if user_name is None else {"user_name": user_name}
    chat.talk(
        model=model, temperature=temperature, no_save=no_save, plain=plain, greeting=greeting, options=options, **way
    )


# --- showing ----------------------------------------------------------------------------------------------------------


@command.command("show")
@click.argument("who", metavar=WHO)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@_asking
def show(who: str, as_json: bool, **way: Any) -> None:
    """Show what a character is.

    Its placeholders stand as they are written.
    """
    character = _character(who, **way)
    if as_json:
        streams.write(json.dumps(msgspec.to_builtins(character)) + "\n")
    else:
        streams.write(streams.plain(_page(character)))


def _page(character: Character) -> str:
    facts = {
        "id": character.id,
        "model": character.model,
        "temperature": "" if character.temperature is None else f"{character.temperature:g}",
        "language": character.language,
        "tags": ", ".join(character.tags),
        "nsfw": "yes" if character.nsfw else "",
        "picture": character.cover_url,
    }
    said = [f"{turn.role}: {turn.content}" for turn in character.examples]
    texts = {"System text": character.system, "Greeting": character.greeting, "Examples": "\n".join(said)}
    parts = [
        streams.line(character.title) or "(without a title)",
        character.description.strip(),
        "\n".join(f"{name:<11}  {streams.line(fact)}" for name, fact in facts.items() if fact),
        *(f"{head}:\n{_indented(text)}" for head, text in texts.items() if text.strip()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.strip().split("\n"))


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_(as_json: bool) -> None:
    """List the characters that are kept here."""
    kept: list[tuple[str, Character]] = []
    for name in local_characters.names():
        try:
            kept.append((name, _character(name)))
        except InvalidRequestError as error:
            streams.note(f"flowgpt: {error.message}")
    if as_json:
        listed = [{"name": name, "title": each.title, "model": each.model} for name, each in kept]
        streams.write(json.dumps({"characters": listed}) + "\n")
        return
    rows = [("name", "title"), *((name, streams.line(each.title)) for name, each in kept)]
    width = max(len(name) for name, _ in rows)
    streams.write("".join(f"{name:<{width}}  {title}".rstrip() + "\n" for name, title in rows))


# --- files ------------------------------------------------------------------------------------------------------------


@command.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="what to keep it as  [default: its own name]")
def import_(file: Path, name: str | None) -> None:
    """Keep a card's character, and print its name as a model.

    FILE is .json or .png. Cards of the versions 2 and 3 are read, and those without a version. What other programs
    wrote into one is kept.
    """
    card = local_characters.read(file)
    name = name or _name(card.text("name")) or _name(file.stem)
    if not name:
        raise InvalidRequestError(
            "this character's name has no letters for a file's name", hint="--name NAME gives one"
        )
    local_characters.add(name, card)
    streams.write(f"{characters.PREFIX}{name}\n")
    streams.note(f"hint: flowgpt character chat {name}")


def _name(title: str) -> str:
    """A title as the name of a file; "" when nothing of it can be in one."""
    return re.sub("[^A-Za-z0-9_-]+", "-", title).strip("-")[:64]


@command.command("export")
@click.argument("who", metavar=WHO)
@click.option("-o", "--output", metavar="FILE", required=True, type=click.Path(path_type=Path), help=".json or .png")
@click.option(
    "--image", metavar="FILE", type=click.Path(path_type=Path), help="the picture, a PNG  [default: a plain one]"
)
@click.option("--v2", is_flag=True, help="a card of version 2, for programs that know no other")
@_asking
def export(who: str, output: Path, image: Path | None, v2: bool, **way: Any) -> None:
    """Write a character's card for other chat programs.

    It is JSON, or a picture that has it inside.
    """
    kind = output.suffix.lower()
    if kind not in FORMATS or (image and kind != ".png"):
        raise click.UsageError("--output must end with .json or .png, and --image needs .png")
    card, version = _card(who, **way), 2 if v2 else 3
    data = (
        cards.as_png(card, version, _picture(image) if image else None)
        if kind == ".png"
        else cards.as_json(card, version)
    )
    try:
        output.write_bytes(data)
    except OSError as error:
        raise InvalidRequestError(f"{output} cannot be written: {error.strerror}") from None


def _picture(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(cards.LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Delete a character that is kept here."""
    if not local_characters.remove(name):
        raise InvalidRequestError(f"no character {name!a} is kept here", hint="`flowgpt character list` names them")
    streams.note(f"flowgpt: the character {name} is no longer kept")
