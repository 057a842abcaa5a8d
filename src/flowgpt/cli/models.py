"""`flowgpt models`: the models that can be asked, and whether who has them would be, as tables or as JSON."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import click

from ..client import Client
from ..formats.openai.models import Model
from ..limits.breaker import Health
from ..providers import registry
from ..providers.base import Provider, health
from . import streams


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option("-q", "--quiet", is_flag=True, help="no notes on stderr")
def command(as_json: bool, quiet: bool) -> None:
    """List the models and aliases of each configured provider, and its state.

    Nothing is sent: a list is data, some with a date, and the state is what this process knows.
    """
    providers = registry.named()
    models = {name: _models(provider) for name, provider in providers.items()}
    as_of = max((getattr(provider, "models_as_of", "") for provider in providers.values()), default="")
    if as_json:
        streams.write(json.dumps(_facts(providers, models, as_of)) + "\n")
        return
    streams.write("\n".join(_table(name, health(providers[name]), models[name]) for name in providers))
    if as_of and not quiet:
        streams.note(f"flowgpt: what public clients knew in {as_of}; extra_models in the configuration adds to it")


def _models(provider: Provider) -> list[Model]:
    if not callable(getattr(provider, "get_models", None)):
        return []
    with Client(provider=provider) as client:
        return client.models.list().data


def _table(name: str, known: Health, models: list[Model]) -> str:
    rows = [("model", "stands for"), *((model.id, model.alias_of or "") for model in models)]
    width = max(len(id_) for id_, _ in rows)  # whatever the terminal's: an id that is cut cannot be copied
    return f"{name}: {state(known)}\n\n" + "".join(f"{id_:<{width}}  {target}".rstrip() + "\n" for id_, target in rows)


def state(known: Health) -> str:
    """What is known of a provider, in words; times are local."""
    if known.working:
        return "working"
    since = "" if known.since_s is None else f" since {time.strftime('%H:%M:%S', time.localtime(known.since_s))}"
    reason = f" ({known.reason})" if known.reason else ""
    again = "" if known.again_s is None else f", next try in {known.again_s:.0f} s"
    return f"down{since}{reason}{again}"


def _facts(providers: dict[str, Provider], models: dict[str, list[Model]], as_of: str) -> dict[str, Any]:
    """The list as OpenAI's, each model once, and what is known of each provider."""
    each = {model.id: model for listed in reversed(models.values()) for model in listed}
    order = dict.fromkeys(model.id for listed in models.values() for model in listed)
    known = [
        {"name": name, "models": [model.id for model in models[name]]} | dataclasses.asdict(health(provider))
        for name, provider in providers.items()
    ]
    return {"object": "list", "data": [each[id_].model_dump() for id_ in order], "as_of": as_of, "providers": known}
