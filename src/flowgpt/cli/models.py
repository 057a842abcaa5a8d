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
    rows = [("model", "stands for"), *((model.id, model.alias_of or "") for model in models)]
    width = max(len(id_) for id_, _ in rows)  # whatever the terminal's: an id that is cut cannot be copied
    streams.write("".join(f"{id_:<{width}}  {target}".rstrip() + "\n" for id_, target in rows))
    if not quiet:
        streams.note(f"flowgpt: what public clients knew in {as_of}; extra_models in the configuration adds to it")
