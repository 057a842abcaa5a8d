"""`flowgpt chat`: one talk in a terminal, question by question. No failure of a question or of the store ends it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

import click

from .. import config
from ..client import Client
from ..errors import FlowGPTError
from . import failures, prompt, slash, streams, view
from .asking import answered_by, earlier, going_on
from .dialogue import Dialogue, saved
from .endpoint import answering, check
from .slash import Next, Talk

HISTORY = "chat-history"
"""The file of what was typed, beside the configuration; for the owner only."""


@click.command("chat")
@answered_by
@going_on
@click.option("--no-save", is_flag=True, help="keep nothing of it")
@click.option("--plain", is_flag=True, help="bare lines, for a screen reader: no Markdown, and nothing moves")
@click.option("-q", "--quiet", is_flag=True, help="no notes on stderr; failures are still told")
def command(**how: Any) -> None:
    """Talk with a model. /help lists what else can be done; Ctrl-D leaves.

    Ctrl-C stops an answer and keeps what came. What is piped in is asked line by line.
    """
    talk(**how)


def talk(
    *,
    model: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    base_url: str | None = None,
    provider: str | None = None,
    proxy: str | None = None,
    timeout: float | None = None,
    latest: bool = False,
    cid: str | None = None,
    no_save: bool = False,
    plain: bool = False,
    quiet: bool = False,
    greeting: str = "",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Talk until the person leaves. `greeting`: what a character says first. `options`: of each call.

    Raises: FlowGPTError for what keeps it from beginning; OSError when the terminal is gone.
    """
    tell = streams.notes(quiet=quiet)
    checked: dict[str, Any] = {"timeout": timeout, "temperature": temperature}
    check(provider, base_url, proxy, model or "", [{"role": "user", "content": "?"}], **checked)
    begun = earlier(latest=latest, cid=cid)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ended_by("SIGTERM", "SIGHUP"))
        store = stack.enter_context(saved(streams.note, wanted=not no_save))
        there = stack.enter_context(answering(provider, base_url, proxy, tell=tell))
        client = stack.enter_context(Client(provider=there.provider, timeout=timeout, **there.options))
        notes: SimpleQueue[str] = SimpleQueue()
        dialogue = Dialogue(
            client,
            store,
            tell=notes.put,
            default_model=there.default_model,
            model=model or "",
            system=system or "",
            temperature=temperature,
            options=dict(options or {}),
        )
        stack.enter_context(contextlib.closing(dialogue))
        if begun:
            dialogue.resume(*begun)
        elif greeting:
            dialogue.greet(greeting)
        _converse(Talk(dialogue, client, store, view.console(plain=plain), notes), there.name, plain, tell)
        dialogue.close()
        if dialogue.id and dialogue.turns:
            tell(f"flowgpt: to go on: flowgpt chat --cid {dialogue.id}")


def _converse(talk: Talk, name: str, plain: bool, tell: Callable[[str], None]) -> None:
    """Question after question, until the end of them."""
    read = _reader(talk, plain=plain)
    if talk.prompted:
        tell(f"flowgpt: {talk.model or 'the default model'} at {name}; /help lists the commands, Ctrl-D leaves")
        view.exchange(talk.screen, talk.dialogue.turns)
    coming = Next()
    while not coming.over:
        _drain(talk.notes)
        try:
            text = read(coming.fill)
            instead = bool(coming.fill)
            coming = Next()
            if slash.is_command(text):
                coming = slash.run(talk, text)
            elif text.strip():
                coming = Next(question=text, instead=instead)
            if coming.question:
                _ask(talk, coming)
        except EOFError:
            break
        except KeyboardInterrupt:  # within a command
            if not talk.prompted:
                raise
            streams.note("interrupted")
        except FlowGPTError as error:
            failures.tell(error)
    _drain(talk.notes)


def _reader(talk: Talk, *, plain: bool) -> prompt.Read:
    """The prompt that fits where the questions come from."""
    talk.prompted = sys.stdin is not None and sys.stdin.isatty()
    talk.editor = talk.prompted and not plain and view.movable()
    if not talk.editor:
        return prompt.bare(sign=talk.prompted)

    def toolbar() -> str:
        kept = "saved" if talk.dialogue.kept else "not saved" if talk.store is None else "NOT SAVED"
        return f" {talk.model or 'default model'} · {kept} · /help"

    history = config.home() / HISTORY if talk.store else None
    return prompt.edited(lambda text: slash.completions(talk, text), toolbar, history)


def _ask(talk: Talk, asked: Next) -> None:
    """Show the answer as it comes, and how it ended."""
    if asked.instead:
        talk.dialogue.undo()
    try:
        with contextlib.closing(talk.dialogue.ask(asked.question)) as texts, view.answer(talk.screen) as add:
            for text in texts:
                add(text)
    except KeyboardInterrupt:
        if not talk.prompted:
            raise
    except FlowGPTError as error:
        view.mark(talk.dialogue.turns[-1])
        failures.tell(error)
        if talk.prompted:
            streams.note("hint: /retry asks it again, /edit changes it")
        return
    view.mark(talk.dialogue.turns[-1])
    if talk.prompted:
        streams.write("\n")


def _drain(notes: SimpleQueue[str]) -> None:
    """Tell what the record had to say while an answer was on the screen."""
    while not notes.empty():
        streams.note(notes.get())


@contextlib.contextmanager
def _ended_by(*names: str) -> Iterator[None]:
    """These signals end the block as an error does: the terminal is as it was, and what was said is written."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGHUP
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
