"""`flowgpt config`: what is configured and where that stands, and changes in the configuration file."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from .. import config
from ..addresses import Proxy
from ..config import OPTIONS, edit
from ..config.file import GATEWAY, HISTORY, PROVIDER, PROVIDERS, raw
from ..config.tables import HISTORY_ROWS
from ..errors import InvalidRequestError
from ..gateway.settings import SETTINGS, Settings
from ..providers import registry
from . import streams

MASK = "***"
SECRET = re.compile(r"key|token|secret|passw|auth|credential|cookie", re.IGNORECASE)
"""What a name has whose value is not shown."""

DEFAULT, FILE = "default", "file"
PROXIES = "proxy variables"

Row = tuple[str, Any, str]
"""Key, value and where it comes from."""


@click.group("config")
def command() -> None:
    """Show and change the configuration.

    KEY is an option (docs/options.md), or one of a table: timeout.head_s, history.save, gateway.max_streams,
    provider.NAME.base_url.
    """


@command.command("path")
def path() -> None:
    """Print where the configuration file is, or would be."""
    streams.write(f"{config.path()}\n")


# --- show -------------------------------------------------------------------------------------------------------------


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def show(as_json: bool) -> None:
    """Show every option, its value, and where that comes from.

    That is a variable, the file, or the default. Keys and passwords are shown as ***.
    """
    rows = [(key, shown(key, value), source) for key, value, source in [*_options(), *_tables()]]
    if as_json:
        told = {key: {"value": value, "source": source} for key, value, source in rows}
        streams.write(json.dumps({"path": str(config.path()), "options": told}) + "\n")
        return
    lines = [(key, json.dumps(value, ensure_ascii=False), source) for key, value, source in rows]
    wide = max(len(key) for key, _, _ in lines)
    text = "".join(f"{key:<{wide}}  {value}  ({source})\n" for key, value, source in lines)
    streams.write(streams.plain(text))


def shown(key: str, value: Any) -> Any:
    """A value as people may see it, in JSON's types: without keys, passwords, and what an address has of them."""
    match value:
        case Mapping():
            return {name: shown(name, part) for name, part in value.items()}
        case list() | tuple():
            return [shown(key, part) for part in value]
        case str() if value and SECRET.search(key.rpartition(".")[2]):
            return MASK
        case Proxy():
            return value.url.replace("//", f"//{MASK}@" if value.authorization else "//")
        case str():
            return re.sub(r"(?<=//)[^/]*@", f"{MASK}@", value)
        case bool() | int() | float() | None:
            return value
        case _:  # a date, a time
            return str(value)


def _options() -> Iterator[Row]:
    """Raises: InvalidRequestError, naming the variable, or the file and key."""
    options, configured = config.Options.resolve(), config.configuration()
    for name, row in OPTIONS.items():
        source = configured[name][1] if name in configured else DEFAULT
        source = source if source in (DEFAULT, row.metadata["env"]) else FILE
        value = getattr(options, name)
        if name == "proxy" and value and source == DEFAULT:
            source = PROXIES
        if name == "base_url" and source == DEFAULT and not config.provider_names()[0]:
            value = config.EMBEDDED  # as `endpoint` has it: the terminal asks nobody else unbidden
        if name != "timeout":
            yield name, value, source
            continue
        given = configured[name][0] if name in configured else {}
        for part, seconds in dataclasses.asdict(value).items():
            is_given = part in given if isinstance(given, Mapping) else part == "total_s"
            yield f"timeout.{part}", seconds, source if is_given else DEFAULT


def _tables() -> Iterator[Row]:
    """What is no option. Raises: InvalidRequestError."""
    names, source = config.provider_names()
    yield PROVIDERS, list(names), (FILE if source != "FLOWGPT_PROVIDER" else source) if names else DEFAULT
    for name, table in config.provider_tables()[0].items():
        yield from ((f"{PROVIDER}.{name}.{key}", value, FILE) for key, value in table.items())
    written = config.history_table()
    for key, value in dataclasses.asdict(config.history()).items():
        yield f"{HISTORY}.{key}", value, FILE if key in written else DEFAULT
    gateway = config.gateway_table()[0]
    for key, value in dataclasses.asdict(Settings.resolve()).items():
        yield f"{GATEWAY}.{key}", value, FILE if key in gateway else DEFAULT


# --- set and unset ----------------------------------------------------------------------------------------------------


def _keys(_: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """All keys that a shell may put in; those of providers as far as they are in the file."""
    known = [*OPTIONS, *(f"timeout.{part.name}" for part in dataclasses.fields(config.Timeouts)), PROVIDERS]
    known += [*(f"{HISTORY}.{name}" for name in HISTORY_ROWS), *(f"{GATEWAY}.{name}" for name in SETTINGS)]
    return [key for key in known if key.startswith(incomplete)]


@command.command("set")
@click.argument("key", shell_complete=_keys)
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set KEY in the file to VALUE, which is checked first. `-` reads it from stdin, or asks for it unseen.

    Texts are taken as they are, lists as a,b or in TOML, all else in TOML. Comments and order of the file stay.
    """
    keys = key.split(".")
    if keys[-1] == "api_key" and value not in ("-", ""):
        raise InvalidRequestError(
            "an api_key is no argument: others see those, and the shell keeps them",
            hint=f"flowgpt config set {key} -",
        )
    edit.put(keys, _checked(keys, _given(key) if value == "-" else value))
    streams.note(f"flowgpt: {key} is set in {config.path()}")


def _given(key: str) -> str:
    if streams.piped():
        return streams.read()
    if sys.stdin is None:
        raise InvalidRequestError("there is no standard input to read the value from")
    answer: str = click.prompt(key, hide_input=True, err=True)
    return answer


def _checked(keys: list[str], text: str) -> Any:
    """The value as it is written, when its own check takes it. Raises: InvalidRequestError, naming the key."""
    key = ".".join(keys)
    value = _value(keys, text)
    try:
        match keys:
            case [name] if name in OPTIONS:
                OPTIONS[name].metadata["check"](value)
            case ["timeout", part]:
                OPTIONS["timeout"].metadata["check"]({part: value})
            case ["providers"]:
                if not (isinstance(value, list) and all(isinstance(name, str) and name for name in value)):
                    raise ValueError("a list of names")
            case ["history", name] if name in HISTORY_ROWS:
                HISTORY_ROWS[name].metadata["check"](value)
            case ["gateway", name] if name in SETTINGS:
                SETTINGS[name].metadata["check"](value)
            case ["provider", str(name), str(option)] if name and option:
                registry.check(name, {**config.provider_tables()[0].get(name, {}), option: value})
            case _:
                raise InvalidRequestError(f"there is no key {key!r}", hint="`flowgpt config show` lists them")
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error), code=error.code, hint=error.hint) from None
    except ValueError as error:  # as the gateway's checks say it
        raise InvalidRequestError(f"{key} must be {error}, not {text!r}") from None
    return value


def _value(keys: list[str], text: str) -> Any:
    """What the words mean: a text where one belongs, else TOML, or a list with commas."""
    row = OPTIONS.get(keys[-1]) if keys[0] in (keys[-1], PROVIDER) else None
    row = SETTINGS.get(keys[-1]) if keys[0] == GATEWAY else row
    kind = str(row.type) if row else ""
    if kind.startswith(("str", "Secret", "Proxy")) or keys[-1] in ("type", "base_url", "api_key"):
        return text
    if (kind.startswith("tuple") or keys[-1] in (PROVIDERS, "models")) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        return raw(f"value = {text}")["value"] if "\n" not in text else text
    except ValueError:
        return text


@command.command("unset")
@click.argument("key", shell_complete=_keys)
def unset(key: str) -> None:
    """Take KEY out of the file.

    Its default counts again. The name of a table takes out all of it.
    """
    edit.drop(key.split("."))
    streams.note(f"flowgpt: {key} is no longer in {config.path()}")
