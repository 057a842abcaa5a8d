"""`flowgpt serve`: the gateway as a program. Its options are the table of the gateway's settings."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import sys
from collections.abc import Callable
from dataclasses import Field
from importlib import import_module
from typing import Any

import click

from .. import serving
from ..errors import InvalidRequestError, StoreError
from ..gateway import access, workers
from ..gateway.app import create_app
from ..gateway.serving import run
from ..gateway.settings import SETTINGS, Settings
from ..store import Store
from . import streams
from .asking import whom
from .endpoint import Answering, answering

PROGRAM = (sys.executable, "-P", "-m", "flowgpt")
"""-P: a file of the user's that happens to be called flowgpt.py is not the program."""


def _given(_: click.Context, option: click.Parameter, value: Any) -> Any:
    """What Settings.resolve takes; None for what was not given."""
    if option.name != "model_names" or not value:
        return None if value == () else value
    pairs = [text.partition("=") for text in value]
    if wrong := [name for name, _, model in pairs if not (name and model)]:
        raise click.BadParameter(f"{wrong[0]!r} is not of the form NAME=MODEL")
    return {name: model for name, _, model in pairs}


def _option(setting: Field[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option of a row: a list or a table of texts is one in the singular, which may come again."""
    name, words = setting.name.replace("_", "-"), setting.metadata["help"]
    how: dict[str, Any]
    match setting.default:
        case bool():
            how = {"is_flag": True, "default": None}
        case int() | float() as number:
            unit = "NUMBER" if isinstance(number, int) else "DAYS" if name.endswith("days") else "SECONDS"
            how = {"type": type(number), "metavar": unit}
            words += f"  [default: {number:g}]"
        case str():
            how = {"metavar": "NAME"}
        case _:
            name = name.removesuffix("s")
            metavar = "NAME=MODEL" if setting.name == "model_names" else name.rpartition("-")[2].upper()
            how = {"multiple": True, "metavar": metavar}
            words += "; may come again"
    return click.option(f"--{name}", setting.name, help=words, callback=_given, **how)


def _number(_: click.Context, option: click.Parameter, value: float) -> float:
    if math.isnan(value):  # no range keeps it out
        raise click.BadParameter("it must be a number")
    return value


def _all_settings(command: Callable[..., None]) -> Callable[..., None]:
    for setting in reversed([*SETTINGS.values()]):
        command = _option(setting)(command)
    return command


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="address to listen on")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 is any free one")
@whom
@click.option("--workers", "count", default=1, show_default=True, type=click.IntRange(1, 256), help="processes")
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    callback=_number,
    metavar="SECONDS",
    help="how long streams may go on after SIGTERM or Ctrl-C; a second one ends at once",
)
@click.option("--fd", type=int, hidden=True, help="this is a worker: the descriptor of its socket")
@_all_settings
def command(
    host: str,
    port: int,
    base_url: str | None,
    provider: str | None,
    proxy: str | None,
    count: int,
    drain_timeout_s: float,
    fd: int | None,
    **arguments: Any,
) -> None:
    """Serve the models to every program that speaks OpenAI's or Anthropic's API.

    The first line of output is the base URL; the access log goes to stderr.
    """
    settings = Settings.resolve(**arguments)
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(serving.bind(host, port) if fd is None else socket.socket(fileno=fd))
        store = _store(settings)
        if store is not None:
            stack.callback(store.close)
        has_keys = bool(store and store.key_names()) and not settings.insecure_no_auth
        if not (serving.is_loopback(bound) or has_keys or settings.insecure_no_auth):
            raise InvalidRequestError(
                f"whoever reaches {host} could ask, for there is no key yet",
                hint="make one with `flowgpt keys add NAME`, or say --insecure-no-auth",
            )
        there = stack.enter_context(answering(provider, base_url, proxy, tell=streams.note))

        def ready() -> None:
            if fd is not None:
                streams.write("ready\n")
            else:
                _tell(serving.base_url(bound, host), there, settings, has_keys)

        if count > 1 and fd is None:
            chosen = {f"--{name.replace('_', '-')}": value for name, value in there.options.items()}
            options = [word for name, value in chosen.items() if value is not None for word in (name, value)]
            code = workers.run(
                [*PROGRAM, *sys.argv[1:], *options, "--fd"],
                bound,
                count=count,
                drain_timeout_s=drain_timeout_s,
                ready=ready,
                tell=lambda words: streams.note(f"flowgpt: {words}"),
            )
            raise click.exceptions.Exit(code)
        app = create_app(
            settings=settings,
            bound_hosts=[host],
            store=store,
            provider=there.provider,
            **there.options,
        )
        import_module("flowgpt.transport.exchange")  # the HTTP client: now, and not within the first question
        access.to_stderr()
        stack.callback(logging.shutdown)  # before the program's edge looks whether stderr can still be written
        run(app, bound, drain_timeout_s=drain_timeout_s, ready=ready, is_worker=fd is not None)


def _store(settings: Settings) -> Store | None:
    """The keys and stored responses. Raises: StoreError, unless nobody is to be asked for a key anyway."""
    try:
        return Store()
    except StoreError as error:
        if not settings.insecure_no_auth:
            raise
        streams.note(f"flowgpt: warning: responses are not stored: {error.message}")
        return None


def _tell(base_url: str, there: Answering, settings: Settings, has_keys: bool) -> None:
    streams.write(f"{base_url}/v1\n")
    streams.note(f"flowgpt: {there.name} answers here until Ctrl-C; a program asks it with")
    streams.note(f"hint: OPENAI_BASE_URL={base_url}/v1")
    streams.note(f"hint: OPENAI_API_KEY={'a key of `flowgpt keys add NAME`' if has_keys else 'none'}")
    if settings.insecure_no_auth:
        streams.note("flowgpt: warning: whoever reaches this address can ask; nobody is asked for a key")
