"""OpenAI's own description of its API, to hold ours against. Provenance: tests/anchors/README.md."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs

DESCRIPTION: dict[str, Any] = json.loads(
    (Path(__file__).parent / "anchors/openai-openapi-subset.json").read_text("utf-8")
)


def faults(value: object, schema: str) -> list[str]:
    """What in a JSON value is not as the schema of that name wants it."""
    return [f"{error.instance_path}: {error.message}" for error in _validator(schema).iter_errors(value)]


@functools.cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    root = {"$ref": f"#/components/schemas/{schema}", "components": _nullable(DESCRIPTION["components"])}
    return jsonschema_rs.Draft202012Validator(root)


def properties(schema: str) -> set[str]:
    """The names of an object's members, those of all its parts together."""
    return set(_properties({"$ref": f"#/components/schemas/{schema}"}))


def _properties(schema: dict[str, Any]) -> Iterator[str]:
    yield from schema.get("properties", ())
    for part in schema.get("allOf", ()):
        yield from _properties(part)
    if "$ref" in schema:
        yield from _properties(DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]])


def _nullable(schema: Any) -> Any:
    """OpenAPI 3.0's `nullable` in the words of JSON schema."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _nullable(value) for name, value in schema.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner
