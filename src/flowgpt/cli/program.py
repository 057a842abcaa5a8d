"""The program `flowgpt`: its commands, a question that needs none, and the outer edge where failures become exit codes.

A first word that is a command is the command; `flowgpt ask` asks anything.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import FlowGPTError
from ..version import __version__
from . import completion, failures, streams

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Mapping[str, str] = {
    "ask": "ask a question, whatever its first word",
    "batch": "ask many questions from a file",
    "character": "talk with a FlowGPT character; import and export its card",
    "chat": "talk, in a terminal",
    "completion": "make the shell complete commands, models and ids",
    "config": "show and change the configuration",
    "doctor": "find what is wrong, with one request",
    "embedded": "run the embedded server",
    "explain": "show the request of a question, and send nothing",
    "history": "list, show, search, export, import and delete conversations",
    "keys": "make, list and revoke the gateway's keys",
    "models": "list the models and aliases",
    "serve": "serve the models as OpenAI's and Anthropic's API do",
    "templates": "list and show the templates of questions",
}
"""Each is a file of this room, loaded when it is used."""


class Program(click.Group):
    """All commands; what is none of them is a question."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run, and end the process. Unlike click's own, it tells Ctrl-C, a closed pipe and our errors apart."""
        extra.pop("prog_name", None)
        streams.prepare()
        self._complete()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = self._exit_code(list(sys.argv[1:] if args is None else args), **extra)
        if code in (failures.CLOSED_PIPE, failures.UNEXPECTED):
            streams.abandon()
        streams.settle()
        sys.exit(code)

    def _complete(self) -> None:
        """When a shell asks what a word may become, tell it, and end. Never loudly: a prompt is on the screen then."""
        try:
            with warnings.catch_warnings(action="ignore"):
                self._main_shell_completion({}, "flowgpt", completion.VARIABLE)  # the part of click's `main` for this
        except Exception:
            sys.exit(failures.UNEXPECTED)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands, and the options of a question, which needs no command."""
        found = super().shell_complete(ctx, incomplete)
        ask = self.get_command(ctx, "ask") if incomplete.startswith("-") else None
        return found + (click.Command.shell_complete(ask, ctx, incomplete) if ask else [])

    def _exit_code(self, args: list[str], **extra: Any) -> int:
        try:
            with self.make_context("flowgpt", args, **extra) as context:
                self.invoke(context)
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.ClickException as error:
            with contextlib.suppress(OSError):  # nobody reads stderr
                error.show()
            return error.exit_code
        except FlowGPTError as error:
            failures.tell(error)
            return failures.exit_code(error)
        except (KeyboardInterrupt, click.Abort):
            streams.note("interrupted")
            return failures.INTERRUPTED
        except BrokenPipeError:
            return failures.CLOSED_PIPE
        except OSError as error:
            failures.say(f"cannot go on: {error.strerror or type(error).__name__}")
            return failures.UNEXPECTED
        except Exception as error:
            if sys.flags.dev_mode:
                raise
            failures.say(f"unexpected {type(error).__name__}", "report it, with what `python -X dev -m flowgpt` shows")
            return failures.UNEXPECTED
        return 0

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `ask` before what is no command. Raises: click.UsageError for a misspelt command alone."""
        if ctx.resilient_parsing:  # a shell asks what a word may become
            args = args if not args or args[0] in COMMANDS else ["ask", *args]
        elif not args:
            args = ["ask"] if streams.piped() else ["--help"]
        elif args[0] not in (*COMMANDS, "-h", "--help", "--version"):
            near = difflib.get_close_matches(args[0], COMMANDS.keys() - {"ask"}, 1, 0.8)
            if near and all(word.startswith("-") for word in args[1:]):
                raise click.UsageError(
                    f"No such command {args[0]!r}. Did you mean {near[0]!r}? To ask it: flowgpt ask {args[0]}", ctx
                )
            args = ["ask", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("flowgpt", "[OPTIONS] QUESTION...")
        formatter.write_usage("flowgpt", "COMMAND [OPTIONS]...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        ask = self.get_command(ctx, "ask")
        asking = ask.params if ask else []
        options = [
            option.get_help_record(ctx)
            for option in [*asking, *self.get_params(ctx)]
            if isinstance(option, click.Option)
        ]
        with formatter.section("Options"):
            formatter.write_dl([record for record in options if record])
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), words) for code, words in failures.WORDS.items()])


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    streams.note(f"flowgpt: warning: {message}")


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="flowgpt %(version)s", help="show the version")
def program() -> None:
    """Ask FlowGPT's models. Unofficial, and not endorsed by FlowGPT.

    Answers go to stdout, all else to stderr. With nothing configured, the embedded server of this machine answers.
    """
