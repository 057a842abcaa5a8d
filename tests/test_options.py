"""docs/options.md: its tables are made from `flowgpt.config`, and its example is a file that is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from flowgpt.config import OPTIONS, Options, Timeouts, home

PAGE = (Path(__file__).parent.parent / "docs" / "options.md").read_text("utf-8")

AS_WRITTEN = {
    "str": "string",
    "Secret | None": "string",
    "Proxy | None": "string",
    "str | None": "string",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "tuple[str, ...]": "list of strings",
    "Mapping[str, Any]": "table",
    "Timeouts": "number or table",
}
"""What a person writes for a type."""


def table(*rows: tuple[str, ...]) -> str:
    """Rows of Markdown, the first one the head."""
    head, *rest = ("| " + " | ".join(row) + " |\n" for row in rows)
    return head + "|---" * len(rows[0]) + "|\n" + "".join(rest)


def default(option: Field[Any]) -> str:
    value = getattr(Options(), option.name)
    if isinstance(value, Timeouts):
        return "see below"
    if value in ("", None, (), {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def options() -> Iterator[tuple[str, ...]]:
    yield "option", "type", "default", "environment", "meaning"
    for name, option in OPTIONS.items():
        variable = option.metadata["env"]
        words = option.metadata["help"].replace("|", "\\|")
        yield f"`{name}`", AS_WRITTEN[str(option.type)], default(option), f"`{variable}`" if variable else "", words


def parts() -> Iterator[tuple[str, ...]]:
    yield "part", "seconds"
    for part in fields(Timeouts):
        yield f"`{part.name}`", "no limit" if part.default is None else f"{part.default}"


@pytest.mark.parametrize("rows", [options, parts])
def test_the_tables_of_the_page_are_those_of_the_source(rows: Any) -> None:
    """When it fails: what is expected here belongs into docs/options.md."""
    expected = table(*rows())
    head = expected.splitlines()[0]
    (shown,) = re.findall(rf"^{re.escape(head)}\n(?:\|.*\n)*", PAGE, re.MULTILINE)

    assert shown == expected


def test_the_example_of_the_page_is_a_file_that_is_loaded() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    home().mkdir()
    (home() / "config.toml").write_text(example, "utf-8")

    assert Options.resolve() == Options(
        base_url="http://127.0.0.1:8000",
        model="gemini",
        temperature=0.2,
        max_retries=1,
        extra_models=("my-own-model",),
        timeout=Timeouts(total_s=120, idle_s=30),
        extra_body={"language": "en"},
    )
