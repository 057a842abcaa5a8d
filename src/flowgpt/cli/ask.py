"""`flowgpt ask`, which is also `flowgpt "question"`: a question in, an answer out, streamed, whole or as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from ..client import Client
from ..errors import FlowGPTError
from ..formats.fences import first_block
from ..formats.openai.chat import finish_reason
from ..reply import Reply
from . import asking, failures, streams
from .asking import Question, answered_by, going_on, made_of
from .endpoint import answering, check

if TYPE_CHECKING:
    from ..store import Store
    from .dialogue import Dialogue


class Paper:
    """Where an answer is written: text by text, or at its end, as text or as one JSON object.

    `extract`: only its first fenced block is, when it has one. `text`: what has come, untouched.
    """

    def __init__(self, *, streamed: bool, as_json: bool, raw: bool, extract: bool = False) -> None:
        self.text = ""
        self._streamed = streamed and not as_json and not extract
        self._as_json = as_json
        self._extract = extract
        self._shown = str if raw else streams.plain

    @property
    def block(self) -> str | None:
        """The first fenced block of what has come."""
        return first_block(self.text)

    def add(self, text: str) -> None:
        """The next piece of the answer."""
        self.text += text
        if self._streamed:
            streams.write(self._shown(text))

    def end(self, facts: dict[str, Any]) -> None:
        """The answer has ended, well or not: `facts` say how, in JSON."""
        if self._as_json:
            told = facts | ({"block": self.block} if self._extract else {})
            streams.write(json.dumps(told) + "\n")  # ASCII: every terminal and locale can take it
            return
        block = self.block if self._extract else None
        text = self.text if block is None else block
        if not self._streamed:
            streams.write(self._shown(text))
        if text and not text.endswith("\n"):
            streams.write("\n")


@click.command("ask")
@click.argument("question", nargs=-1)
@answered_by
@going_on
@made_of
@click.option("--json", "as_json", is_flag=True, help="one JSON object, also for a failure")
@click.option("-x", "--extract", is_flag=True, help="write only the first fenced block of the answer")
@click.option("--no-stream", is_flag=True, help="write the answer when all of it is there")
@click.option("--no-save", is_flag=True, help="keep nothing of it")
@click.option("--raw", is_flag=True, help="keep the control characters of the answer")
@click.option("-q", "--quiet", is_flag=True, help="no notes on stderr; failures are still told")
@click.option("-v", "--verbose", is_flag=True, help="endpoint, attempts and times on stderr")
def command(
    question: tuple[str, ...],
    base_url: str | None,
    provider: str | None,
    proxy: str | None,
    timeout: float | None,
    as_json: bool,
    extract: bool,
    no_stream: bool,
    no_save: bool,
    raw: bool,
    quiet: bool,
    verbose: bool,
    **how: Any,
) -> None:
    """Ask a question.

    What is piped in is the question, or follows it after a blank line. Question and answer are kept: `-c` goes on with
    them, and `flowgpt history` has them all.
    """
    from .dialogue import saved  # late: not for --help, nor for `flowgpt explain`

    paper = Paper(streamed=not no_stream, as_json=as_json, raw=raw, extract=extract)
    tell = streams.notes(quiet=quiet)
    conversation = None
    try:
        asked = asking.question(question, **how)
        checked: dict[str, Any] = {"timeout": timeout, "temperature": asked.temperature}
        check(provider, base_url, proxy, asked.model, asked.messages, **checked)
        with (
            saved(streams.note, wanted=not no_save) as store,
            answering(provider, base_url, proxy, tell=tell) as there,
            Client(provider=there.provider, timeout=timeout, **there.options) as client,
            contextlib.closing(_dialogue(asked, client, store, there.default_model)) as dialogue,
        ):
            try:
                with contextlib.closing(dialogue.ask(asked.text)) as texts:
                    for text in texts:
                        paper.add(text)
            finally:
                conversation = dialogue.id if as_json else None  # waits until all is written, as closing does
        reply = dialogue.reply
        assert reply is not None
        paper.end(_facts(reply, there.name) | {"conversation": conversation})
    except FlowGPTError as error:
        paper.end({"error": _error(error), "text": paper.text, "conversation": conversation})
        if paper.text and not as_json:
            streams.note("[the answer is cut here]")
        if verbose:
            for cause in error.causes:
                streams.note(f"flowgpt: {cause.message} ({cause.code}, attempts: {cause.attempts})")
            streams.note(f"flowgpt: {error.code}, attempts: {error.attempts}")
        raise
    except KeyboardInterrupt:
        stopped = {"code": "interrupted", "message": "interrupted", "hint": None}
        paper.end({"error": stopped, "text": paper.text, "conversation": conversation})
        raise
    if extract and paper.block is None:
        tell("flowgpt: the answer has no fenced block; this is the whole of it")
    if reply.verdict == "unverified":
        tell("flowgpt: this connection cannot prove that the answer is complete")
    if verbose:
        streams.note(_figures(reply, there.name))


def _dialogue(asked: Question, client: Client, store: Store | None, default_model: str) -> Dialogue:
    """The conversation that the question belongs to."""
    from .dialogue import Dialogue

    how: dict[str, Any] = {"model": asked.model, "system": asked.system, "temperature": asked.temperature}
    dialogue = Dialogue(client, store, tell=streams.note, default_model=default_model, **how)
    if asked.earlier:
        dialogue.resume(*asked.earlier)
    return dialogue


def _facts(reply: Reply, name: str) -> dict[str, Any]:
    return {
        "model": reply.model,
        "text": reply.text,
        "verdict": reply.verdict,
        "finish_reason": finish_reason(reply.verdict),
        "attempts": reply.attempts,
        "timings": dataclasses.asdict(reply.timings),
        "endpoint": name,
    }


def _error(error: FlowGPTError) -> dict[str, Any]:
    named = ("code", "message", "hint", "retriable", "retry_after_s", "attempts", "phase", "request_id")
    facts = {name: getattr(error, name) for name in named}
    told = {"type": type(error).__name__} | facts | {"hint": failures.hint(error)}
    return told | ({"causes": [_error(cause) for cause in error.causes]} if error.causes else {})


def _figures(reply: Reply, name: str) -> str:
    """One line: who answered, and how it went."""
    times = {"first text": reply.timings.first_text_s, "whole answer": reply.timings.total_s}
    parts = [f"{words} after {seconds:.2f} s" for words, seconds in times.items() if seconds is not None]
    parts += [f"skipped {count} of event {event}" for event, count in reply.skipped_events.items()]
    return f"flowgpt: {reply.model} at {name}, {reply.verdict}, attempts: {reply.attempts}, " + ", ".join(parts)
