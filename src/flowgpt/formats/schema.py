"""JSON that a model wrote: read strictly, and checked by a JSON schema that a stranger wrote. No words to models.

A schema is hostile until it is weighed: it may refer to nothing outside itself, its patterns are bounded by the engine,
and its work is bounded by what it weighs with every reference written out, since the engine walks it so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

import jsonschema_rs

from ..errors import InvalidRequestError

LIMIT_WEIGHT = 10_000
"""How many subschemas a schema may have, each counted as often as it is referred to. OpenAI allows 5,000 properties."""

PATTERN_WEIGHT = 50
UNEVALUATED_WEIGHT = 4
"""A pattern is compiled (up to a millisecond); what is unevaluated is found by evaluating all below it again."""

LIMIT_EFFORT = 50_000
"""Up to how many errors, at worst, the complaints are listed; each costs some ten microseconds."""

LIMIT_COMPLAINTS = 5
LIMIT_COMPLAINT = 300
"""How many complaints are listed, and their characters."""

PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=1000, size_limit=1 << 20, dfa_size_limit=1 << 20)
"""With look-around, since generators of schemas write it (pydantic, for a Decimal)."""

BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
DATA = ("enum", "const", "default", "examples", "example")
"""Keywords whose members are schemas by name; and those whose values are no schemas."""

Complaints = Callable[[Any], list[str]]
"""A value to what is wrong with it, in a few words each; nothing when it is valid."""


def parse(text: str) -> Any:
    """A JSON value, strictly. Raises: ValueError."""
    try:
        return json.loads(text, parse_constant=_not_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def complaints(schema: Mapping[str, Any], param: str | None = None) -> Complaints:
    """Compile a schema, which stands at `param` in the request. `format` only annotates, as the standard has it.

    Raises: InvalidRequestError for one that cannot be used.
    """
    root = dict(schema)
    try:
        weight = _weighed(root)
        validator = jsonschema_rs.validator_for(
            root, validate_formats=False, retriever=_no_retrieval, pattern_options=PATTERNS
        )
    except (ValueError, TypeError, RecursionError) as error:
        words = "it is nested too deeply" if isinstance(error, RecursionError) else _words(error)
        raise InvalidRequestError(f"{param or 'the JSON schema'} cannot be used: {words}", param=param) from None

    def wrong(value: Any) -> list[str]:
        try:
            if validator.is_valid(value):
                return []
            if _effort(value, weight) <= LIMIT_EFFORT:
                return [_words(error) for error in islice(validator.iter_errors(value), LIMIT_COMPLAINTS)]
        except ValueError as error:  # what the engine cannot read: a lone surrogate, a number of thousands of digits
            return [_words(error)]
        return ["the JSON is not valid by the schema"]

    return wrong


class _Weight(NamedTuple):
    """`schemas`: with all references written out. `loops`: how many of them lead back to where they stand."""

    schemas: int
    loops: int

    def plus(self, other: _Weight) -> _Weight:
        return _Weight(self.schemas + other.schemas, self.loops + other.loops)


def _weighed(root: dict[str, Any]) -> _Weight:
    """Raises: ValueError for a schema that is too heavy, or refers to what is not in it; RecursionError."""
    if "draft-04" in str(root.get("$schema")):
        raise ValueError("draft 4 is too old: write it in draft 7 or later")
    known: dict[int, _Weight | None] = {}  # None: being weighed

    def weigh(schema: Any) -> _Weight:
        total = _Weight(0, 0)
        if isinstance(schema, list):
            for member in schema:
                total = total.plus(weigh(member))
        if not isinstance(schema, dict):
            return total
        if id(schema) in known:
            return known[id(schema)] or _Weight(0, 1)
        known[id(schema)] = None
        total = _Weight(1, 0)
        for below in _below(schema, root):
            total = total.plus(weigh(below))
        named = schema.get("patternProperties")
        patterns = ("pattern" in schema) + (len(named) if isinstance(named, dict) else 0)
        again = UNEVALUATED_WEIGHT if {"unevaluatedProperties", "unevaluatedItems"} & schema.keys() else 1
        total = _Weight((total.schemas + patterns * PATTERN_WEIGHT) * again, total.loops * again)
        if total.schemas > LIMIT_WEIGHT:
            raise ValueError(f"with its references written out it has more than {LIMIT_WEIGHT:,} parts")
        known[id(schema)] = total
        return total

    return weigh(root)


def _below(schema: Mapping[str, Any], root: dict[str, Any]) -> Iterator[Any]:
    """The schemas that stand in a schema, and the one that it refers to. Raises: ValueError."""
    for keyword, value in schema.items():
        if keyword in BY_NAME and isinstance(value, dict):
            yield from value.values()
        elif keyword == "$ref" and isinstance(value, str):
            yield _target(value, root)
        elif keyword in ("$dynamicRef", "$recursiveRef") or (keyword == "$id" and schema is not root):
            raise ValueError(f"{keyword} is not supported")
        elif keyword not in DATA:
            yield value


def _target(reference: str, root: dict[str, Any]) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        raise ValueError(f"{reference[:LIMIT_COMPLAINT]!r} refers to what is not in it; nothing is fetched")
    place: Any = root
    for step in unquote(reference).split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            place = place[int(step)] if isinstance(place, list) else place[step]
        except (LookupError, ValueError, TypeError):
            raise ValueError(f"{reference[:LIMIT_COMPLAINT]!r} points to nothing") from None
    return place


def _effort(value: Any, weight: _Weight) -> int:
    """How many errors a value may have at worst: each part by each subschema, and more where the schema branches."""
    level, parts, depth = [value], 0, 0
    while level:
        parts, depth = parts + len(level), depth + 1
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [part for several in inner for part in several]
    growth: int = max(1, weight.loops) ** depth
    return parts * weight.schemas * growth


def _words(error: Exception) -> str:
    if not isinstance(error, jsonschema_rs.ValidationError):
        return str(error)[:LIMIT_COMPLAINT]
    place = "".join(f"/{step}" for step in error.instance_path)
    return (f"at {place}: {error.message}" if place else error.message)[:LIMIT_COMPLAINT]


def _no_retrieval(uri: str) -> NoReturn:
    raise ValueError("nothing is fetched")


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")
