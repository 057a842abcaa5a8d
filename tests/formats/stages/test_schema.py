"""formats/stages/schema.py: what a schema may be, what is wrong with a value, and that hostile schemas cost nothing."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from flowgpt.errors import InvalidRequestError
from flowgpt.formats.pieces import Ask, JsonOutput, Tool
from flowgpt.formats.stages import schema
from flowgpt.formats.stages.schema import LIMIT_COMPLAINT, LIMIT_COMPLAINTS, LIMIT_WEIGHT, complaints, parse, rules

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
SURROGATE = "'utf-8' codec can't encode character '\\ud800'"

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "left": {"$ref": "#/$defs/Node"}, "right": {"anyOf": [
                {"$ref": "#/$defs/Node"}, {"type": "null"}]}},
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/Node",
}  # fmt: skip


def doubling(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    """A few hundred bytes of schema that are 2^levels of work."""
    pair = [[{"$ref": f"#/$defs/{level + 1}"}] * 2 for level in range(levels)]
    return {"$defs": {**{str(n): {keyword: two} for n, two in enumerate(pair)}, str(levels): {}}, "$ref": "#/$defs/0"}


def branching(levels: int) -> dict[str, Any]:
    """The same without a list."""
    pairs = {str(n): {"if": {"$ref": f"#/$defs/{n + 1}"}, "else": {"$ref": f"#/$defs/{n + 1}"}} for n in range(levels)}
    return {"$defs": {**pairs, str(levels): {}}, "$ref": "#/$defs/0"}


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        ({"type": "integer"}, "x", ['"x" is not of type "integer"']),
        ({"properties": {"a": {"items": {"type": "null"}}}}, {"a": [None, 1]}, ['at /a/1: 1 is not of type "null"']),
        ({"required": ["a", "b"]}, {}, ['"a" is a required property', '"b" is a required property']),
        ({"pattern": r"^(?!0)\d+$"}, "01", [r'"01" does not match "^(?!0)\d+$"']),
        ({"$schema": DRAFT_7, "items": [{"const": 1}]}, [2], ["at /0: 1 was expected"]),
        (TREE, {"value": 1, "left": {"value": "x"}}, ['at /left/value: "x" is not of type "integer"']),
        ({"a~/%": {"const": 1}, "$ref": "#/a~0~1%25"}, 2, ["1 was expected"]),
        ({"type": "string"}, "\ud800", [f"{SURROGATE} in position 0: surrogates not allowed"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(rule: dict[str, Any], value: Any, words: list[str]) -> None:
    assert complaints(rule)(value) == words


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({}, None),
        (TREE, {"value": 1, "left": {"value": 2, "right": None}}),
        ({"$schema": DRAFT_7, "format": "email"}, "no address"),  # annotates only
        ({"properties": {"$ref": {"type": "string"}, "pattern": {}}, "enum": [{"$ref": "http://h/"}]}, {"$ref": "http://h/"}),
        ({"$id": "http://example.org/answer", "$defs": {"a": {}}, "$ref": "#/$defs/a"}, 1),
        ({"type": "integer"}, 10**400),
    ],
)  # fmt: skip
def test_a_valid_value_has_no_complaint(rule: dict[str, Any], value: Any) -> None:
    assert complaints(rule)(value) == []


def test_few_and_short_complaints_are_made() -> None:
    many = complaints({"items": {"type": "string"}})([*range(100)])
    long = complaints({"enum": ["x" * 10_000]})("y" * 10_000)

    assert (len(many), [len(words) for words in long]) == (LIMIT_COMPLAINTS, [LIMIT_COMPLAINT])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"type": "objct"}, "is not valid under any"),
        ({"pattern": "("}, 'is not a "regex"'),
        ({"pattern": "(a{500}){100}"}, 'is not a "regex"'),  # bounded more tightly than by default
        ({"patternProperties": [1]}, "object"),
        ({"required": 3}, "not of type"),
        ({"$ref": "#/$defs/none"}, "points to nothing"),
        ({"$ref": "#/allOf/x", "allOf": [{}]}, "points to nothing"),
        ({"$ref": "other.json"}, "refers to what is not in it"),
        ({"properties": {"a": {"$id": "x", "$ref": "#/b"}}}, "$id is not supported"),
        ({"$dynamicRef": "#x", "$dynamicAnchor": "x"}, "$dynamicRef is not supported"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft 4"),
        ({"$schema": "http://example.org/of-my-own"}, "Unknown meta-schema"),
        ({"const": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_broken_schema_is_refused_by_its_place_before_anything_is_asked(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        complaints(rule, "text.format.schema")

    assert refused.value.param == "text.format.schema"
    assert refused.value.message.startswith("text.format.schema cannot be used: ")
    assert words in refused.value.message


def nested(levels: int, **more: object) -> dict[str, Any]:
    """With `unevaluatedProperties`, each level evaluates those below it several times."""
    rule: dict[str, Any] = {}
    for _ in range(levels):
        rule = {"allOf": [rule], **more}
    return rule


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (doubling(40), "more than 6,000 parts"),
        (doubling(40, "anyOf"), "more than 6,000 parts"),
        ({"items": doubling(40)["$defs"]["0"], **doubling(40), "$ref": "#/items"}, "more than 6,000 parts"),
        (branching(40), "more than 6,000 parts"),
        (nested(20, unevaluatedProperties=False), "more than 6,000 parts"),
        ({"properties": {str(n): {"pattern": f"a{{{n}}}"} for n in range(1000)}}, "more than 6,000 parts"),
        ({"patternProperties": {f"a{{{n}}}": {} for n in range(1000)}}, "more than 6,000 parts"),
        (nested(300), "Recursion limit reached"),
        ({"enum": [[n] for n in range(25_000)]}, "more than 50,000 values"),
    ],
    ids=["doubling", "doubling any", "by place", "branching", "unevaluated", "patterns", "names", "depth", "enum"],
)
def test_a_hostile_schema_is_refused_before_it_costs_anything(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        complaints(rule)


@pytest.mark.parametrize(
    "rule", [doubling(8), nested(3, unevaluatedProperties=False), {"properties": {str(n): {} for n in range(5000)}}]
)
def test_a_large_schema_is_taken(rule: dict[str, Any]) -> None:
    assert complaints(rule)({}) == []


def patterned(count: int) -> dict[str, Any]:
    return {"properties": {str(n): {"pattern": f"^[a-z]{{{n}}}$"} for n in range(count)}}


def wanting(*tools: Tool, **more: Any) -> Ask:
    return Ask(model="m", turns=(), tools=tools, **more)


def test_i4_all_schemas_of_a_request_share_one_budget() -> None:
    """Each of them alone is far from it: twenty such tools held the gateway up for seconds."""
    each = LIMIT_WEIGHT // schema.PATTERN_WEIGHT // 4
    tools = [Tool(name=f"t{n}", parameters=patterned(each), strict=True, param=f"tools[{n}]") for n in range(3)]

    assert rules(wanting(*tools)).tools.keys() == {"t0", "t1", "t2"}
    for more, param in (
        ({"output": JsonOutput(schema=patterned(each), param="text")}, "text"),
        ({"tools": (*tools, Tool(name="t3", parameters=patterned(each), strict=True, param="tools[3]"))}, "tools[3]"),
    ):
        with pytest.raises(InvalidRequestError, match="more than 6,000 parts") as refused:
            rules(Ask(**{"model": "m", "turns": (), "tools": tuple(tools)} | more))
        assert refused.value.param == param


def test_long_lists_share_one_budget_too() -> None:
    listed = {"enum": [*range(schema.LIMIT_VALUES // 2)]}

    with pytest.raises(InvalidRequestError, match="more than 50,000 values") as refused:
        rules(wanting(Tool(name="a", parameters=listed, strict=True), output=JsonOutput(schema=listed, param="text")))
    assert refused.value.param == "text"


def test_only_what_answers_are_checked_by_is_compiled() -> None:
    broken = {"type": "objct"}

    free = rules(wanting(Tool(name="a", parameters=broken), Tool(name="b", strict=True), output=JsonOutput()))
    assert (free.output, free.tools) == (None, {})

    wanted = rules(wanting(output=JsonOutput(schema={})))
    assert wanted.output is not None
    assert wanted.output("anything") == []


def test_a_schema_that_branches_into_itself_is_judged_but_not_explained_in_deep_values() -> None:
    twice = {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2, "type": "object"}
    value: Any = 3
    for _ in range(60):
        value = {"a": value}

    assert complaints(json.loads(json.dumps(twice)))(value) == ["the JSON is not valid by the schema"]


def test_a_pattern_cannot_hold_the_gateway_up() -> None:
    assert complaints({"pattern": r"^(?=a)(a+)+\1$"})("a" * 5000 + "b") != []


@pytest.mark.parametrize("keyword", ["$ref", "$schema"])
@pytest.mark.parametrize("kind", ["http", "file"])
def test_m3_nothing_is_fetched_for_a_schema(keyword: str, kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"const": "secret"}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        addresses = {"http": f"http://127.0.0.1:{server.getsockname()[1]}/", "file": secret.as_uri()}

        with pytest.raises(InvalidRequestError) as refused:
            complaints({keyword: addresses[kind]})
        with pytest.raises(BlockingIOError):
            server.accept()

    assert 'secret"' not in str(refused.value)


def test_the_engine_itself_is_told_to_fetch_nothing() -> None:
    with pytest.raises(ValueError, match="nothing is fetched"):
        schema._no_retrieval("http://127.0.0.1/")


@pytest.mark.parametrize("text", ["", "{", "{} {}", "NaN", "[Infinity]", "-Infinity", "[" * 100_000, "1" * 5000, "'a'"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)
