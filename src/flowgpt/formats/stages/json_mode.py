"""JSON by instruction: what the model is told, and the function pieces → pieces that takes the JSON from its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ..pieces import Again, End, Failure, JsonOutput, Piece, Stage, ToolCall
from . import repair, schema
from .schema import Complaints

LIMIT_CHARACTERS = 8 * 1024 * 1024
"""How long an answer may be that is held to be checked."""

FENCE = "```"


def instruction(output: JsonOutput) -> str:
    """What the model is told."""
    if output.schema is None:
        return "Your answer must be one JSON object and nothing else: no words around it, no code fence."
    return (
        "Your answer must be JSON and nothing else: no words around it, no code fence. "
        f"It must be valid by this JSON schema:\n{json.dumps(output.schema, ensure_ascii=False)}"
    )


def stage(complaints: Complaints | None) -> Stage:
    """Hold the answer, and give the JSON in it as one text, just as the model wrote it. None: any object is right.

    Without JSON that is valid, the model is asked once more; then it is a Failure, invalid_output. With a tool call
    the answer needs no JSON.
    """
    return _JsonMode(complaints)


class _JsonMode:
    def __init__(self, complaints: Complaints | None) -> None:
        self._any_object = complaints is None
        self._wrong = complaints or _no_object
        self._asked_again = False
        self._begin()

    def _begin(self) -> None:
        self._held: list[str] = []
        self._size = 0
        self._called = False

    def __call__(self, pieces: Sequence[Piece]) -> list[Piece]:
        given: list[Piece] = []
        for piece in pieces:
            if self._called:
                given.append(piece)
            elif isinstance(piece, str):
                self._held.append(piece)
                self._size += len(piece)
                if self._size > LIMIT_CHARACTERS:
                    fault = f"it is longer than {LIMIT_CHARACTERS:,} characters."
                    return [*given, repair.failure("".join(self._held), fault)]
            elif isinstance(piece, End):
                given += self._ended(piece)
            else:  # of a Failure, its error has the text: half of a JSON is nothing to be read
                given += [piece] if isinstance(piece, Failure) else [*self._held, piece]
                self._held = []
                self._called = isinstance(piece, ToolCall)
        if given and isinstance(given[-1], (End, Again)):
            self._begin()  # a stage behind this one, or this one, may have the model asked again
        return given

    def _ended(self, end: End) -> list[Piece]:
        said = "".join(self._held)
        faults: list[str] = []
        for text in _candidates(said, any_object=self._any_object):
            try:
                value = schema.parse(text)
            except ValueError as error:
                faults = faults or [f"it is not JSON: {error}"]
                continue
            wrong = self._wrong(value)
            if not wrong:
                return [text, end]
            faults = wrong  # of what is JSON: worth more than what is not
        fault = "; ".join(faults) + "."
        if self._asked_again:
            return [repair.failure(said, fault)]
        self._asked_again = True
        return [repair.again(said, fault, "Write the JSON alone: no words around it, no code fence.")]


def _candidates(said: str, *, any_object: bool) -> Iterator[str]:
    """Where the JSON may be: the whole text, the first fenced block, the outermost braces or brackets."""
    yield said.strip()
    if FENCE in said:
        _, fence, rest = said.partition(FENCE + "json")
        block = (rest if fence else said.partition(FENCE)[2]).partition(FENCE)[0]
        yield block.removeprefix("JSON").strip()
    pairs = [("{", "}")] if any_object else sorted([("{", "}"), ("[", "]")], key=lambda pair: said.find(pair[0]))
    for begin, end in pairs:
        first, last = said.find(begin), said.rfind(end)
        if 0 <= first < last:
            yield said[first : last + 1]


def _no_object(value: object) -> list[str]:
    return [] if isinstance(value, dict) else ["it is JSON, but no object"]
