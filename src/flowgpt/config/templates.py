"""Templates of questions: the files `templates/NAME.toml` beside the configuration, and what one becomes filled in.

A template is data: `$name` stands for a value, and nothing in it, or in a value, is ever evaluated.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template as Pattern
from typing import Any

from ..errors import InvalidRequestError
from . import checks
from .file import home, raw

INPUT = "input"
"""The variable that is what was asked."""

LIMIT_BYTES = 1024 * 1024
NAME = re.compile(r"\w[\w.-]{0,63}")
"""What a template may be called: never a way to another folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """`prompt`, `system`: texts with `$name`; `$$` is a dollar sign. `model`: "" is as configured.

    `temperature`: None is as configured. `defaults`: values of variables that nobody gives.
    """

    prompt: str = ""
    system: str = ""
    model: str = ""
    temperature: float | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> list[str]:
        """The names in its texts, in their order."""
        return list(dict.fromkeys([*Pattern(self.prompt).get_identifiers(), *Pattern(self.system).get_identifiers()]))


def folder() -> Path:
    """Where templates are, whether there are any or not."""
    return home() / "templates"


def names() -> list[str]:
    """The templates that there are, by name."""
    try:
        return sorted(path.stem for path in folder().glob("*.toml") if NAME.fullmatch(path.stem) and path.is_file())
    except OSError:
        return []


def load(name: str) -> Template:
    """The template of that name. Raises: InvalidRequestError, naming the file and the key (I22, M7)."""
    if not NAME.fullmatch(name):
        raise InvalidRequestError(f"a template's name has letters, digits and . _ - only, not {name[:80]!a}")
    path = folder() / f"{name}.toml"
    table = _read(name, path)
    rows = {row.name for row in fields(Template)}
    for key in table:
        if key not in rows:
            near = difflib.get_close_matches(key, rows, 1, 0.5)
            meant = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(sorted(rows))}"
            raise InvalidRequestError(f"{path}: there is no key {key!r}{meant}")
    try:
        return Template(**{key: _CHECKS[key](value) for key, value in table.items()})
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: {error}") from None


def _read(name: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), 1, 0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidRequestError(f"there is no template {name!r}: no file {path}{meant}")
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise ValueError(f"it is larger than {LIMIT_BYTES:,} bytes")
        return raw(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}") from None


def _pattern(name: str) -> Any:
    def check(value: object) -> str:
        text = checks.text(name)(value)
        if not Pattern(text).is_valid():
            raise InvalidRequestError(f"{name} has a $ that begins no variable; $$ is a dollar sign")
        return text

    return check


def _defaults(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError("defaults must be a table")
    return {name: checks.text(f"defaults.{name}")(text) for name, text in value.items()}


_CHECKS: Mapping[str, Any] = {
    "prompt": _pattern("prompt"),
    "system": _pattern("system"),
    "model": checks.text("model"),
    "temperature": checks.temperature,
    "defaults": _defaults,
}


def filled(name: str, asked: str, values: Mapping[str, str]) -> Template:
    """The template with its variables filled in; `asked` is `$input`, or follows a prompt that has none.

    What is filled in is not looked into again. Raises: InvalidRequestError for what is missing or not wanted.
    """
    template = load(name)
    wanted = template.variables
    given = dict(values) | ({INPUT: asked} if asked else {})
    if INPUT in values:
        raise InvalidRequestError(f"${INPUT} is what is asked: give it as the question")
    if unwanted := [key for key in values if key not in wanted]:
        there = ", ".join(key for key in wanted if key != INPUT) or "none"
        raise InvalidRequestError(f"template {name!r} has no variable {unwanted[0]!r}; its variables: {there}")
    if missing := [key for key in wanted if key not in given and key not in template.defaults]:
        how = "; ".join("ask something" if key == INPUT else f"-p {key}=VALUE" for key in missing)
        raise InvalidRequestError(f"template {name!r} wants {', '.join(missing)}", hint=how)
    all_values = {**template.defaults, **given}
    prompt = Pattern(template.prompt).substitute(all_values)
    if asked and INPUT not in wanted:
        prompt = f"{prompt}\n\n{asked}" if prompt else asked
    return Template(
        prompt=prompt,
        system=Pattern(template.system).substitute(all_values),
        model=template.model,
        temperature=template.temperature,
    )
