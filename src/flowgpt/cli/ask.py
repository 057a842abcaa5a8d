"""`flowgpt ask`, which is also `flowgpt "question"`: a question in, an answer out, streamed, whole or as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from ..client import Client
from ..config import OPTIONS
from ..errors import FlowGPTError
from ..formats.openai.chat import finish_reason
from ..messages import Message
from ..providers.flowgpt import FlowGpt
from ..reply import Reply
from . import failures, streams
from .endpoint import PROVIDER_HELP, answering, has_providers


class Paper:
    """Where an answer is written: text by text, or at its end, as text or as one JSON object.

    `text`: what has come, untouched.
    """

    def __init__(self, *, streamed: bool, as_json: bool, raw: bool) -> None:
        self.text = ""
        self._streamed = streamed and not as_json
        self._as_json = as_json
        self._shown = str if raw else streams.plain

    def add(self, text: str) -> None:
        """The next piece of the answer."""
        self.text += text
        if self._streamed:
            streams.write(self._shown(text))

    def end(self, facts: dict[str, Any]) -> None:
        """The answer has ended, well or not: `facts` say how, in JSON."""
        if self._as_json:
            streams.write(json.dumps(facts) + "\n")  # ASCII: every terminal and locale can take it
            return
        if not self._streamed:
            streams.write(self._shown(self.text))
        if self.text and not self.text.endswith("\n"):
            streams.write("\n")


def _help(option: str, more: str = "") -> str:
    """An option's words in the table of options, with its environment variable."""
    row = OPTIONS[option].metadata
    return f"{row['help']}{more}" + (f" [env: {row['env']}]" if row["env"] else "")


@click.command("ask")
@click.argument("question", nargs=-1)
@click.option("-m", "--model", metavar="ID", help=_help("model"))
@click.option("-s", "--system", metavar="TEXT", help="the system prompt")
@click.option("--temperature", type=float, metavar="NUMBER", help=_help("temperature"))
@click.option("--base-url", metavar="URL", help=_help("base_url", " or 'embedded'"))
@click.option("--provider", metavar="NAME", help=PROVIDER_HELP)
@click.option("--proxy", metavar="URL", help=_help("proxy"))
@click.option("--timeout", type=float, metavar="SECONDS", help="seconds for the whole answer [env: FLOWGPT_TIMEOUT]")
@click.option("--json", "as_json", is_flag=True, help="one JSON object, also for a failure")
@click.option("--no-stream", is_flag=True, help="write the answer when all of it is there")
@click.option("--raw", is_flag=True, help="keep the control characters of the answer")
@click.option("-q", "--quiet", is_flag=True, help="no notes on stderr; failures are still told")
@click.option("-v", "--verbose", is_flag=True, help="endpoint, attempts and times on stderr")
def command(
    question: tuple[str, ...],
    model: str | None,
    system: str | None,
    temperature: float | None,
    base_url: str | None,
    provider: str | None,
    proxy: str | None,
    timeout: float | None,
    as_json: bool,
    no_stream: bool,
    raw: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Ask a question.

    What is piped in is the question, or follows it after a blank line.
    """
    paper = Paper(streamed=not no_stream, as_json=as_json, raw=raw)
    tell = _silent if quiet else streams.note
    try:
        messages = messages_of(" ".join(question), system)
        if not has_providers(provider, base_url):
            _check(messages, model=model or "", proxy=proxy or "", timeout=timeout, temperature=temperature)
        with (
            answering(provider, base_url, proxy, tell=tell) as there,
            Client(provider=there.provider, timeout=timeout, temperature=temperature, **there.options) as client,
            client.chat.completions.create(model=model or "", messages=messages, stream=True) as stream,
        ):
            for chunk in stream:
                paper.add(chunk.choices[0].delta.content or "")
        paper.end(_facts(stream.reply, there.name))
    except FlowGPTError as error:
        paper.end({"error": _error(error), "text": paper.text})
        if paper.text and not as_json:
            streams.note("[the answer is cut here]")
        if verbose:
            for cause in error.causes:
                streams.note(f"flowgpt: {cause.message} ({cause.code}, attempts: {cause.attempts})")
            streams.note(f"flowgpt: {error.code}, attempts: {error.attempts}")
        raise
    except KeyboardInterrupt:
        paper.end({"error": {"code": "interrupted", "message": "interrupted", "hint": None}, "text": paper.text})
        raise
    if stream.reply.verdict == "unverified":
        tell("flowgpt: this connection cannot prove that the answer is complete")
    if verbose:
        streams.note(_figures(stream.reply, there.name))


def _silent(_words: str) -> None:
    """A note that nobody wants."""


def messages_of(question: str, system: str | None) -> list[Message]:
    """The question with what is piped in, after the system prompt. Raises: click.UsageError when nothing is asked."""
    parts = [question, streams.read() if streams.piped() else ""]
    asked = "\n\n".join(part for part in parts if part.strip())
    if not asked:
        raise click.UsageError("There is no question")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": asked}]


def _check(messages: list[Message], **options: Any) -> None:
    """Refuse a wrong call before a server is started for it: the request is built, and not sent.

    Who answers is checked when that is chosen. Raises: InvalidRequestError.
    """
    FlowGpt.stream(messages=messages, base_url="public", **options)


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
