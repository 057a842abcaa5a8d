"""What the commands that ask have in common: the options of a question, and what it is made of.

Nothing is asked here, and nothing is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ..config import OPTIONS
from ..conversation import Conversation, Turn, messages
from ..errors import InvalidRequestError
from ..messages import Message
from . import attachments, candidates, streams

Command = TypeVar("Command", bound=Callable[..., Any])


def option_help(option: str, more: str = "") -> str:
    """An option's words in the table of options, with its environment variable."""
    row = OPTIONS[option].metadata
    return f"{row['help']}{more}" + (f" [env: {row['env']}]" if row["env"] else "")


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Options as one, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


whom = together(
    click.option("--base-url", metavar="URL", help=option_help("base_url", " or 'embedded'")),
    click.option(
        "--provider",
        metavar="NAME",
        help="who answers: flowgpt, or names of the configuration's [provider.NAME], as a,b [env: FLOWGPT_PROVIDER]",
        shell_complete=candidates.providers,
    ),
    click.option("--proxy", metavar="URL", help=option_help("proxy")),
)
"""Who is asked, and by which way: `base_url`, `provider`, `proxy`, None each."""

answered_by = together(
    click.option("-m", "--model", metavar="ID", help=option_help("model"), shell_complete=candidates.models),
    click.option("-s", "--system", metavar="TEXT", help="the system prompt"),
    click.option("--temperature", type=float, metavar="NUMBER", help=option_help("temperature")),
    whom,
    click.option(
        "--timeout", type=float, metavar="SECONDS", help="seconds for the whole answer [env: FLOWGPT_TIMEOUT]"
    ),
)
"""Who answers, and how: `model`, `system`, `temperature`, `base_url`, `provider`, `proxy`, `timeout`, None each."""

going_on = together(
    click.option("-c", "--continue", "latest", is_flag=True, help="go on with the last conversation"),
    click.option(
        "--cid",
        metavar="ID",
        help="go on with this conversation: its id, or how that begins",
        shell_complete=candidates.conversations,
    ),
)
"""Which conversation goes on: `latest`, `cid`."""


def _pairs(_: click.Context, __: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise click.BadParameter(f"{wrong[0]!r} is not of the form NAME=VALUE")
    return {name: value for name, _, value in pairs}


made_of = together(
    click.option(
        "-a",
        "--attachment",
        "files",
        multiple=True,
        metavar="FILE",
        type=click.Path(),
        help="a file of text (UTF-8) that goes with the question; may come again",
    ),
    click.option("-t", "--template", metavar="NAME", help="ask by a template", shell_complete=candidates.templates),
    click.option(
        "-p",
        "--param",
        "values",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_pairs,
        help="a variable of the template; may come again",
    ),
)
"""What a question is made of besides its words: `files`, `template`, `values`."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how. `model`, `system`: "" is not given. `earlier`: the conversation that goes on."""

    text: str
    model: str
    system: str
    temperature: float | None
    earlier: tuple[Conversation, Sequence[Turn]] | None = None

    @property
    def messages(self) -> list[Message]:
        """As a provider takes it, after what was said before."""
        said = self.earlier[1] if self.earlier else ()
        return [*messages(said, self.system), {"role": "user", "content": self.text}]


def question(
    words: Sequence[str],
    *,
    files: Sequence[str] = (),
    template: str | None = None,
    values: dict[str, str] | None = None,
    model: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    latest: bool = False,
    cid: str | None = None,
) -> Question:
    """The words, what is piped in and the files, in this order, in the template.

    Model, system prompt and temperature are the options', else the template's, else the conversation's.

    Raises: click.UsageError when nothing is asked; InvalidRequestError for what is not there; StoreError.
    """
    if values and not template:
        raise click.UsageError("--param is for a template: give --template too")
    parts = [" ".join(words), streams.read() if streams.piped() else "", *attachments.texts(files)]
    asked = "\n\n".join(part for part in parts if part.strip())
    model, system = model or "", system or ""
    if template is not None:
        from ..config import templates  # late: few need it

        made = templates.filled(template, asked, values or {})
        asked, model, system = made.prompt, model or made.model, system or made.system
        temperature = made.temperature if temperature is None else temperature
    if not asked.strip():
        raise click.UsageError("There is no question")
    begun = earlier(latest=latest, cid=cid)
    if begun:
        from .dialogue import resumed  # late: not for --help

        before, kept = begun[0], resumed(begun[0])
        model, system = model or kept.get("model", "") or before.model, system or before.system
        temperature = kept.get("temperature") if temperature is None else temperature
    return Question(asked, model, system, temperature, begun)


def earlier(*, latest: bool, cid: str | None) -> tuple[Conversation, Sequence[Turn]] | None:
    """The stored conversation that is to go on, with its turns; None: none is.

    Raises: InvalidRequestError when it is not there; StoreError; click.UsageError for both.
    """
    if latest and cid is not None:
        raise click.UsageError("--continue is the last conversation, and --cid says which: give one of them")
    if not latest and cid is None:
        return None
    from ..store import Store  # late: few need it

    with contextlib.closing(Store()) as store:
        conversation = store.conversations.latest() if cid is None else store.conversations.find(cid)
        if conversation is None:
            raise InvalidRequestError("there is no conversation yet", hint="leave out --continue to begin one")
        return conversation, store.conversations.turns(conversation.id)
