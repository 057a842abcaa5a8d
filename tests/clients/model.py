"""A responder that plays an obedient model: it reads the gateway's instructions, calls tools, writes JSON, or talks.

For the tests with real clients. It knows no dialect: what it is told is plain text, as a real model is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from flowgpt.protocol.request import ChatRequest

PIECE = re.compile(r".{1,7}", re.DOTALL)
"""Small, so that markers and JSON are cut everywhere."""

TOOLS = re.compile(r"^You can call these tools:\n(\[.*\])$", re.MULTILINE)
SCHEMA = re.compile(r"^Your answer must be JSON and nothing else.*\n(\{.*\})$", re.MULTILINE)
ANY_OBJECT = "Your answer must be one JSON object and nothing else"
RESULT = re.compile(r"<tool_result [^>]*>(.*?)</tool_result>", re.DOTALL)

QUOTED = re.compile(r"(?<!\w)'([^']+)'(?!\w)|\"([^\"]+)\"")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
NAMES_SAY_NOTHING = {"tool", "tools", "function", "call", "with", "from", "this", "that"}

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}

DEEP = 4
"""From this depth on only what is required is written, so that a schema of trees comes to an end."""


async def model(request: ChatRequest) -> AsyncGenerator[str, None]:
    """What a model would say that does all it is told."""
    for piece in PIECE.findall(said(request)):
        yield piece


def said(request: ChatRequest) -> str:
    """The whole answer."""
    system, question = request.prompt.system, request.prompt.question
    results = RESULT.findall(question)
    offered = TOOLS.search(system)
    if offered and not results:
        calls = wanted(json.loads(offered[1]), question, required="- You must call " in system)
        if "- Call one tool at a time" in system:
            del calls[1:]
        if calls:
            return "\n".join(block(tool, part(question, tool["name"], calls)) for tool in calls)
    if schema := SCHEMA.search(system):
        rule = json.loads(schema[1])
        return json.dumps(Written(rule, " ".join(results) or question).value(rule), ensure_ascii=False)
    if ANY_OBJECT in system:
        names = [one or other for one, other in QUOTED.findall(question)] or ["answer"]
        return json.dumps(dict.fromkeys(names, question), ensure_ascii=False)
    if results:
        return f"The result is: {' and '.join(results)}"
    if "earlier" in question.lower().split():
        turns = [turn.content for turn in request.prompt.history if turn.role == "user"]
        return f"Earlier you said: {' | '.join(turns)}"
    return f"The model says: {question}"


def wanted(tools: list[dict[str, Any]], question: str, *, required: bool) -> list[dict[str, Any]]:
    """The tools that the question names, in its order; else one that it has a word of; else any, if one must be."""
    named = {tool["name"]: re.search(rf"\b{re.escape(tool['name'])}\b", question) for tool in tools}
    by_name = [tool for tool in tools if named[tool["name"]]]
    if by_name:
        return sorted(by_name, key=lambda tool: match.start() if (match := named[tool["name"]]) else 0)
    words = set(re.findall(r"[a-z]{4,}", question.lower())) - NAMES_SAY_NOTHING
    by_word = [tool for tool in tools if words & set(re.split(r"[^a-z]+", tool["name"].lower()))]
    return by_word[:1] or (tools[:1] if required else [])


def part(question: str, name: str, calls: list[dict[str, Any]]) -> str:
    """What the question says behind the tool's name, up to the next one's, where there is something to take from it."""
    others = "|".join(rf"\b{re.escape(tool['name'])}\b" for tool in calls)
    said = re.split(others, question.partition(name)[2])[0]
    return said if NUMBER.search(said) or QUOTED.search(said) else question.replace(name, " ", 1)


def block(tool: Mapping[str, Any], question: str) -> str:
    """The call of a tool, with arguments made from its schema and the question."""
    rule = tool["parameters"]
    arguments = Written(rule, question).value({"type": "object", **rule})
    return f"<tool_call>{json.dumps({'name': tool['name'], 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


class Written:
    """A value that is valid by a schema; its numbers and strings are those of the question, in their order."""

    def __init__(self, root: Mapping[str, Any], question: str) -> None:
        self._root = root
        self._question = question
        self._strings = [one or other for one, other in QUOTED.findall(question)]
        self._numbers = [float(number) for number in NUMBER.findall(question)]

    def value(self, rule: Any, depth: int = 0) -> Any:
        if not isinstance(rule, dict):
            return self._question
        rule = self._resolved(rule)
        if "const" in rule:
            return rule["const"]
        if "enum" in rule:
            return next((one for one in rule["enum"] if str(one).lower() in self._question.lower()), rule["enum"][0])
        for several in ("anyOf", "oneOf"):
            if several in rule:
                return self.value(self._chosen(rule, several, depth), depth)
        kinds = rule.get("type", "object" if "properties" in rule else "array" if "items" in rule else "string")
        kind = next((one for one in kinds if one != "null"), "null") if isinstance(kinds, list) else kinds
        match kind:
            case "object":
                return self._object(rule, depth)
            case "array":
                return self._array(rule, depth)
            case "integer" | "number":
                return self._number(rule, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
        return self._string(rule)

    def _resolved(self, rule: dict[str, Any]) -> dict[str, Any]:
        """The rule with its reference followed, and what stands in `allOf` put into it."""
        while "$ref" in rule:
            place: Any = self._root
            for step in rule["$ref"].split("/")[1:]:
                place = place[step.replace("~1", "/").replace("~0", "~")]
            rule = {**place, **{name: value for name, value in rule.items() if name != "$ref"}}
        for part in map(self._resolved, rule.get("allOf", ())):
            properties = {**rule.get("properties", {}), **part.get("properties", {})}
            required = [*rule.get("required", ()), *part.get("required", ())]
            rule = {**part, **rule, **({"properties": properties, "required": required} if properties else {})}
        return rule

    def _chosen(self, rule: dict[str, Any], several: str, depth: int) -> dict[str, Any]:
        around = {name: value for name, value in rule.items() if name != several}
        choices = [self._resolved(choice) for choice in rule[several]]
        something = [choice for choice in choices if choice.get("type") != "null"]
        simple = [choice for choice in choices if choice.get("type") not in ("object", "array")]
        return {**around, **((simple if depth >= DEEP else something) or choices)[0]}

    def _object(self, rule: dict[str, Any], depth: int) -> dict[str, Any]:
        required = rule.get("required", ())
        return {
            name: self.value(inner, depth + 1)
            for name, inner in rule.get("properties", {}).items()
            if name in required or (depth < DEEP and not (isinstance(inner, dict) and "default" in inner))
        }

    def _array(self, rule: dict[str, Any], depth: int) -> list[Any]:
        first = [self.value(inner, depth + 1) for inner in rule.get("prefixItems", ())]
        least = rule.get("minItems", 1 if depth < DEEP and not first else 0)
        count = min(least, rule.get("maxItems", least)) - len(first)
        return first + [self.value(rule.get("items", {}), depth + 1) for _ in range(count)]

    def _number(self, rule: dict[str, Any], *, whole: bool) -> float:
        number = self._numbers.pop(0) if self._numbers else 1.0
        step = rule.get("multipleOf", 1)
        number = max(number, rule.get("minimum", number), rule.get("exclusiveMinimum", number - step) + step)
        number = min(number, rule.get("maximum", number), rule.get("exclusiveMaximum", number + step) - step)
        if whole or "multipleOf" in rule:
            number = number // step * step
        return int(number) if number == int(number) else number

    def _string(self, rule: dict[str, Any]) -> str:
        if rule.get("format") in FORMATS:
            return FORMATS[rule["format"]]
        text = self._strings.pop(0) if self._strings else self._question
        return text.ljust(rule.get("minLength", 0), ".")[: rule.get("maxLength")]
