"""JSON that a model wrote: read strictly, and checked by a JSON schema that a stranger wrote. No words to models.

A schema is hostile until it is weighed: it may refer to nothing outside itself, its patterns are bounded by the engine,
and its work is bounded by what it weighs with every reference written out, since the engine walks it so. All schemas of
one request share one budget, of some 50 ms on the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

import jsonschema_rs

from ...errors import InvalidRequestError
from ..pieces import Ask

LIMIT_WEIGHT = 6_000
"""How many subschemas a request may have, each as often as it is referred to. OpenAI allows 5,000 properties."""

LIMIT_VALUES = 50_000
"""How many JSON values the schemas of a request may have in all, as they are written; long enums are not subschemas."""

PATTERN_WEIGHT = 75
UNEVALUATED_WEIGHT = 4
"""A pattern is compiled (up to a millisecond); what is unevaluated is found by evaluating all below it again."""

LIMIT_EFFORT = 50_000
"""Up to how many errors, at worst, the complaints are listed; each costs some ten microseconds."""

LIMIT_COMPLAINTS = 5
LIMIT_COMPLAINT = 300
"""How many complaints are listed, and their characters."""

PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=1000, size_limit=1 << 17, dfa_size_limit=1 << 17)
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


@dataclass(slots=True)
class Budget:
    """What the schemas of one request may still cost."""

    weight: int = LIMIT_WEIGHT
    values: int = LIMIT_VALUES


@dataclass(frozen=True, slots=True)
class Rules:
    """What answers to one question are checked by. `output`: None without a schema. `tools`: of the strict ones."""

    output: Complaints | None
    tools: Mapping[str, Complaints]


def rules(ask: Ask) -> Rules:
    """Compile what a question wants, once for all of its answers.

    Raises: InvalidRequestError for a schema that cannot be used, or when there is too much of them.
    """
    budget = Budget()
    tools = {
        tool.name: complaints(tool.parameters, tool.param, budget)
        for tool in ask.tools
        if tool.strict and tool.parameters
    }
    wanted = ask.output
    if wanted is None or wanted.schema is None:
        return Rules(None, tools)
    return Rules(complaints(wanted.schema, wanted.param, budget), tools)


def complaints(schema: Mapping[str, Any], param: str | None = None, budget: Budget | None = None) -> Complaints:
    """Compile a schema, which stands at `param` in the request. `format` only annotates, as the standard has it.

    Raises: InvalidRequestError for one that cannot be used, or is more than the budget has left.
    """
    root = dict(schema)
    try:
        weight = _weighed(root, budget or Budget())
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


def _weighed(root: dict[str, Any], budget: Budget) -> _Weight:
    """Take a schema from the budget.

    Raises: ValueError for one that is too heavy, or refers to what is not in it; RecursionError.
    """
    if "draft-04" in str(root.get("$schema")):
        raise ValueError("draft 4 is too old: write it in draft 7 or later")
    budget.values -= _extent(root)[0]
    if budget.values < 0:
        raise ValueError(f"there are more than {LIMIT_VALUES:,} values in the schemas")
    known: dict[int, _Weight | None] = {}  # None: being weighed

    def weigh(schema: dict[str, Any] | list[Any]) -> _Weight:
        if id(schema) in known:
            return known[id(schema)] or _Weight(0, 1)
        known[id(schema)] = None
        schemas, loops = 0, 0
        for below in schema if isinstance(schema, list) else _below(schema, root):
            if isinstance(below, (dict, list)):
                more = weigh(below)
                schemas, loops = schemas + more.schemas, loops + more.loops
        if isinstance(schema, dict):
            named = schema.get("patternProperties")
            patterns = ("pattern" in schema) + (len(named) if isinstance(named, dict) else 0)
            again = UNEVALUATED_WEIGHT if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
            schemas, loops = (schemas + 1 + patterns * PATTERN_WEIGHT) * again, loops * again
        if schemas > budget.weight:
            raise ValueError(f"with all references written out there are more than {LIMIT_WEIGHT:,} parts")
        known[id(schema)] = weight = _Weight(schemas, loops)
        return weight

    weight = weigh(root)
    budget.weight -= weight.schemas
    return weight


def _below(schema: Mapping[str, Any], root: dict[str, Any]) -> Iterator[Any]:
    """The schemas that stand in a schema, and the one that it refers to. Raises: ValueError."""
    for keyword, value in schema.items():
        if keyword == "$ref" and isinstance(value, str):
            yield _target(value, root)
        elif keyword in ("$dynamicRef", "$recursiveRef") or (keyword == "$id" and schema is not root):
            raise ValueError(f"{keyword} is not supported")
        elif not isinstance(value, (dict, list)):
            continue
        elif keyword in BY_NAME and isinstance(value, dict):
            yield from value.values()
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
    parts, depth = _extent(value)
    growth: int = max(1, weight.loops) ** depth
    return parts * weight.schemas * growth


def _extent(value: Any) -> tuple[int, int]:
    """How many JSON values there are in a value, itself among them; and how deep it is."""
    level, parts, depth = [value], 0, 0
    while level:
        parts, depth = parts + len(level), depth + 1
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [part for several in inner for part in several]
    return parts, depth


def _words(error: Exception) -> str:
    if not isinstance(error, jsonschema_rs.ValidationError):
        return str(error)[:LIMIT_COMPLAINT]
    place = "".join(f"/{step}" for step in error.instance_path)
    return (f"at {place}: {error.message}" if place else error.message)[:LIMIT_COMPLAINT]


def _no_retrieval(uri: str) -> NoReturn:
    raise ValueError("nothing is fetched")


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")
