"""What a line that begins with a slash does in a chat: the one table of its commands, of which /help is made.

Nothing here asks a model or reads a key: a command changes the dialogue, tells something, or says what comes next.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from rich.console import Console

from .. import config
from ..client import Client
from ..conversation import Conversation, title
from ..errors import FlowGPTError, InvalidRequestError, ModelNotFoundError
from ..store import Store
from . import clipboard, streams, view
from .dialogue import Dialogue

RECENT = 10
"""How many conversations /continue lists."""

NONE = "-"
"""The word for no system prompt and for the configured temperature."""


@dataclass(slots=True)
class Talk:
    """A chat as its commands see it.

    `screen`: None where text is plain. `notes`: what the record of it has to tell. `prompted`: whether a person types;
    `editor`: in a prompt that can be filled.
    """

    dialogue: Dialogue
    client: Client
    store: Store | None
    screen: Console | None = None
    notes: SimpleQueue[str] = field(default_factory=SimpleQueue)
    prompted: bool = False
    editor: bool = False

    @property
    def model(self) -> str:
        """Who is asked next, as people are told it."""
        return self.dialogue.model or self.dialogue.default_model

    @property
    def question(self) -> str | None:
        """The last one."""
        return next((turn.text for turn in reversed(self.dialogue.turns) if turn.role == "user"), None)


class Next(NamedTuple):
    """What comes after a command. `question`: is asked now; `instead`: of the last one, which is taken back.

    `fill`: stands in the prompt, and what becomes of it is asked instead of the last question. `over`: the chat is.
    """

    question: str = ""
    instead: bool = False
    fill: str = ""
    over: bool = False


class Command(NamedTuple):
    """A row. `words`: for /help. `values`: what its argument may be completed to."""

    name: str
    argument: str
    words: str
    run: Callable[[Talk, str], Next | None]
    values: Callable[[Talk], Iterable[str]] = lambda _talk: ()


def is_command(text: str) -> bool:
    """Whether a line is a command: one that begins with a slash and a word. A path, or a space before it, is none."""
    return re.match(r"/[a-z]+(\s|$)", text) is not None


def run(talk: Talk, text: str) -> Next:
    """Do what the line says. Raises: InvalidRequestError, StoreError, OSError."""
    name, _, argument = text.strip().partition(" ")
    for row in COMMANDS:
        if row.name == name:
            return row.run(talk, argument.strip()) or Next()
    near = difflib.get_close_matches(name, [row.name for row in COMMANDS], 1)
    raise InvalidRequestError(
        f"there is no {name}" + (f"; did you mean {near[0]}?" if near else ""),
        hint="/help lists the commands; a space before the slash makes it a question",
    )


def completions(talk: Talk, text: str) -> list[str]:
    """What the last word of a line may become. A store that fails has none."""
    name, space, argument = text.partition(" ")
    if "\n" in text or not name.startswith("/"):
        return []
    if not space:
        return [f"{row.name} " if row.argument else row.name for row in COMMANDS if row.name.startswith(name)]
    with contextlib.suppress(FlowGPTError):
        values = [value for row in COMMANDS if row.name == name for value in row.values(talk)]
        return [value for value in values if value.startswith(argument)]
    return []


# --- what they do -----------------------------------------------------------------------------------------------------


def _model(talk: Talk, id_: str) -> None:
    if id_:
        try:
            talk.client.models.retrieve(id_)
        except ModelNotFoundError:
            raise
        except InvalidRequestError:
            pass  # who answers has no list of models: it will say so itself
        talk.dialogue.model = id_
    streams.note(f"model: {talk.model}" + ("" if id_ else "; /model and Tab list the others"))


def _models(talk: Talk) -> list[str]:
    return [model.id for model in talk.client.models.list()]


def _system(talk: Talk, text: str) -> None:
    if text:
        talk.dialogue.system = "" if text == NONE else text
    streams.note(f"system prompt: {talk.dialogue.system or '(none)'}")


def _temperature(talk: Talk, text: str) -> None:
    if text:
        talk.dialogue.temperature = None if text == NONE else _checked(text)
    temperature = talk.dialogue.temperature
    streams.note("temperature: " + ("as configured" if temperature is None else f"{temperature:g}"))


def _checked(text: str) -> float:
    try:
        temperature = float(text)
    except ValueError:
        raise InvalidRequestError(f"temperature must be a number from 0 to 2, not {text!a}") from None
    config.Options.resolve(temperature=temperature)
    return temperature


def _retry(talk: Talk, _argument: str) -> Next:
    if talk.question is None:
        raise InvalidRequestError("there is no question yet")
    return Next(question=talk.question, instead=bool(talk.dialogue.turns[-1].text))


def _edit(talk: Talk, text: str) -> Next:
    if talk.question is None:
        raise InvalidRequestError("there is no question yet")
    if text:
        return Next(question=text, instead=True)
    if not talk.editor:
        raise InvalidRequestError("say what is to be asked instead: /edit TEXT")
    return Next(fill=talk.question)


def _undo(talk: Talk, _argument: str) -> None:
    taken = talk.dialogue.undo()
    if taken is None:
        raise InvalidRequestError("there is nothing to take back")
    streams.note(f"taken back: {title([taken])}")


def _fork(talk: Talk, _argument: str) -> None:
    before = talk.dialogue.id
    after = talk.dialogue.fork() if before else None
    if after is None:
        raise InvalidRequestError("there is nothing saved to branch off from")
    streams.note(f"this goes on as {after}; {before} stays as it is")


def _continue(talk: Talk, id_: str) -> None:
    if talk.store is None:
        raise InvalidRequestError("nothing is saved here")
    if not id_:
        for one in talk.store.conversations.list(RECENT):
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.updated_s))
            streams.write(f"{one.id}  {when}  {streams.plain(one.title)}\n")
        return
    conversation = talk.store.conversations.find(id_)
    turns = talk.store.conversations.turns(conversation.id)
    dialogue = talk.dialogue
    dialogue.model, dialogue.system, dialogue.temperature = "", "", None
    dialogue.resume(conversation, turns)
    view.exchange(talk.screen, turns)


def _ids(talk: Talk) -> list[str]:
    return [one.id for one in talk.store.conversations.list(RECENT)] if talk.store else []


def _save(talk: Talk, name: str) -> None:
    from ..formats import transcripts

    turns = talk.dialogue.turns
    if not name or not turns:
        raise InvalidRequestError("say where to: /save FILE" if turns else "there is nothing to save yet")
    conversation = Conversation(
        id=talk.dialogue.id or "",
        title=title(turns),
        created_s=turns[0].created_s,
        updated_s=turns[-1].created_s,
        count=len(turns),
        model=talk.model,
        system=talk.dialogue.system,
    )
    try:
        made = os.open(Path(name).expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # as a history's export
        with open(made, "w", encoding="utf-8", errors="replace") as file:
            file.write(transcripts.markdown(conversation, turns))
    except FileExistsError:
        raise InvalidRequestError(f"{name} is there already", hint="choose another name") from None
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it; no such user
        raise InvalidRequestError(f"cannot write {name}: {getattr(error, 'strerror', None) or error}") from None
    streams.note(f"written to {name}")


def _copy(talk: Talk, _argument: str) -> None:
    text = next((turn.text for turn in reversed(talk.dialogue.turns) if turn.role == "assistant" and turn.text), None)
    if text is None:
        raise InvalidRequestError("there is no answer yet")
    ways = clipboard.put(text, to_terminal=talk.editor)
    if not ways:
        raise InvalidRequestError("there is no way to a clipboard here", hint="/save FILE writes all of it to a file")
    streams.note(f"copied {len(text):,} characters with {' and '.join(ways)}")


def _help(_talk: Talk, _argument: str) -> None:
    rows = [*((f"{row.name} {row.argument}".strip(), row.words) for row in COMMANDS), *KEYS]
    width = max(len(name) for name, _ in rows)
    wide = shutil.get_terminal_size().columns > width + max(len(words) for _, words in rows) + 2
    for name, words in rows:
        streams.write(f"{name:<{width}}  {words}\n" if wide else f"{name}\n  {words}\n")


def _quit(_talk: Talk, _argument: str) -> Next:
    return Next(over=True)


COMMANDS = (
    Command("/model", "[ID]", "ask another model; Tab lists them", _model, _models),
    Command("/system", "[TEXT]", "set the system prompt; - for none", _system),
    Command("/temperature", "[NUMBER]", "from 0 to 2; - for as configured", _temperature),
    Command("/retry", "", "ask the last question again", _retry),
    Command("/edit", "[TEXT]", "change the last question", _edit),
    Command("/undo", "", "take back the last question", _undo),
    Command("/fork", "", "go on in a copy", _fork),
    Command("/continue", "[ID]", "go on with another one; Tab lists ids", _continue, _ids),
    Command("/save", "FILE", "write all of it as Markdown", _save),
    Command("/copy", "", "put the last answer on the clipboard", _copy),
    Command("/help", "", "this list", _help),
    Command("/quit", "", "leave", _quit),
)
"""All commands."""

KEYS = (
    ("Alt-Enter", "a new line; so do \\ and an open ```"),
    ("Tab", "complete commands, models, ids"),
    ("Ctrl-C", "stop an answer; clear the line"),
    ("Ctrl-D", "leave"),
)
"""The keys of a chat, for /help."""
