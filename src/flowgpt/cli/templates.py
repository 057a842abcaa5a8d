"""`flowgpt templates`: what `--template` may name, and what is in one."""

from __future__ import annotations

import json

import click

from ..config import templates
from ..errors import InvalidRequestError
from . import candidates, streams


@click.group("templates")
def command() -> None:
    """List and show the templates of questions: files NAME.toml, made with an editor."""


@command.command("path")
def path() -> None:
    """Print the folder where templates are."""
    streams.write(f"{templates.folder()}\n")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_(as_json: bool) -> None:
    """List the templates and their variables.

    `input` is what is asked. Variables in brackets have a default.
    """
    rows, faults = [], []
    for name in templates.names():
        try:
            rows.append((name, templates.load(name)))
        except InvalidRequestError as error:
            faults.append(error.message)
    if as_json:
        told = [{"name": name, "variables": made.variables, "defaults": dict(made.defaults)} for name, made in rows]
        streams.write(json.dumps({"templates": told}) + "\n")
    else:
        width = max((len(name) for name, _ in rows), default=0)
        for name, made in rows:
            words = " ".join(f"[{key}]" if key in made.defaults else key for key in made.variables)
            streams.write(f"{name:<{width}}  {words}".rstrip() + "\n")
    for fault in faults:
        streams.note(f"flowgpt: {fault}")
    if not rows and not faults:
        streams.note(f"flowgpt: there is no template in {templates.folder()}")


@command.command("show")
@click.argument("name", shell_complete=candidates.templates)
def show(name: str) -> None:
    """Print a template's file, when it is a right one."""
    templates.load(name)
    text = (templates.folder() / f"{name}.toml").read_text("utf-8-sig")
    streams.write(streams.plain(text if text.endswith("\n") or not text else text + "\n"))
