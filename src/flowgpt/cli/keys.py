"""`flowgpt keys`: who may ask this machine's gateway. Keys are shown once, and stored as digests."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import click

from ..errors import InvalidRequestError
from ..gateway import auth
from ..store import Store
from . import streams


@click.group("keys")
def command() -> None:
    """Make, list and revoke the gateway's keys. As long as there is none, `flowgpt serve` asks for none.

    A key's NAME owns the responses that its requests store: a new key of the same name finds them again.
    """


@command.command("add")
@click.argument("name")
def add(name: str) -> None:
    """Make a key and print it, this once."""
    key = auth.new_key()
    with _store() as store:
        store.add_key(name, auth.digest(key), time.time())
    streams.write(key + "\n")
    streams.note(f"flowgpt: this is the key {name}; it is not stored, and not shown again")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_(as_json: bool) -> None:
    """List the keys' names, and when each was made (UTC)."""
    with _store() as store:
        made = {name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made_s)) for name, made_s in store.key_names()}
    if as_json:
        streams.write(json.dumps({"keys": [{"name": name, "created": when} for name, when in made.items()]}) + "\n")
        return
    rows = [("name", "made"), *made.items()]
    width = max(len(name) for name, _ in rows)
    streams.write("".join(f"{name:<{width}}  {when}\n" for name, when in rows))


@command.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Make a key worthless, at once, in gateways that run too."""
    with _store() as store:
        if not store.revoke_key(name):
            raise InvalidRequestError(f"there is no key named {name!a}", hint="`flowgpt keys list` names them")
    streams.note(f"flowgpt: the key {name} counts no more")


@contextlib.contextmanager
def _store() -> Iterator[Store]:
    with contextlib.closing(Store()) as store:
        yield store
