"""`flowgpt models`: the models that can be asked, as a table or as JSON."""

from __future__ import annotations

import json
import time

import click

from ..client import Client
from . import streams


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option("-q", "--quiet", is_flag=True, help="no notes on stderr")
def command(as_json: bool, quiet: bool) -> None:
    """List the models and aliases. Nothing is sent: the list is data with a date."""
    with Client() as client:
        models = client.models.list()
    as_of = time.strftime("%Y-%m", time.gmtime(max(model.created for model in models)))
    if as_json:
        streams.write(json.dumps(models.model_dump() | {"as_of": as_of}) + "\n")
        return
    from rich.console import Console  # late: only a table needs it
    from rich.table import Table

    table = Table("model", "stands for", box=None, pad_edge=False)
    for model in models:
        table.add_row(model.id, model.alias_of)
    console = Console(highlight=False)
    with console.capture() as lines:  # written by us, for rich has its own mind about closed pipes
        console.print(table)
    streams.write("".join(line.rstrip() + "\n" for line in lines.get().splitlines()))
    if not quiet:
        streams.note(f"flowgpt: what public clients knew in {as_of}; extra_models in the configuration adds to it")
