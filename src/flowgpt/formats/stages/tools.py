"""Tools by instruction and parsing: what the model is told, tool turns as plain messages, and the function pieces →
pieces that takes the calls from its answer. What people write is data here: it is never looked into for calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ...messages import Message
from ..pieces import Again, Ask, End, Failure, Piece, Stage, ToolCall, Turn
from . import repair, schema
from .schema import Complaints
from .search import Search

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FORM = f'{OPEN}{{"name": "the tool\'s name", "arguments": {{...}}}}{CLOSE}'

LIMIT_BLOCK = 1024 * 1024
"""How many characters a call may have."""

FENCED = re.compile(r"```(?:json)?(.*)```", re.DOTALL | re.IGNORECASE)


def instruction(ask: Ask) -> str:
    """What the model is told: the tools, and how to call them."""
    described = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters or {"type": "object"}}
        for tool in ask.tools
    ]
    rules = [
        "`arguments` is a JSON object that is valid by the tool's `parameters`, a JSON schema.",
        "Write nothing after a call: its result comes in the next message, as <tool_result>.",
        "For several calls, write one such block for each."
        if ask.parallel_tool_calls
        else "Call one tool at a time: never write more than one such block.",
    ]
    if ask.tool_choice == "required":
        rules.append("You must call a tool now." if len(ask.tools) > 1 else f"You must call {ask.tools[0].name} now.")
    else:
        rules.append("Call a tool only when it helps; else answer as usual, without such a block.")
    if ask.output is not None:
        rules.append("What is said of the answer's form does not hold for calls.")
    listed = "\n".join(f"- {rule}" for rule in rules)
    return f"You can call these tools:\n{_json(described)}\n\nTo call one, write exactly:\n{FORM}\n{listed}"


def render(turns: Iterable[Turn]) -> list[Message]:
    """Turns as plain messages: calls as blocks in the assistant's text, results in a row as one message of the user."""
    messages: list[Message] = []
    names: dict[str, str] = {}
    results: list[str] = []
    for turn in turns:
        if turn.role == "tool":
            results.append(_result(turn, names.get(turn.call_id, "")))
            if len(results) > 1:
                messages.pop()
            messages.append({"role": "user", "content": "\n".join(results)})
            continue
        results = []
        names |= {call.id: call.name for call in turn.calls}
        said = [turn.text] if turn.text or not turn.calls else []
        messages.append({"role": turn.role, "content": "\n".join([*said, *map(_block, turn.calls)])})
    return messages


def _block(call: ToolCall) -> str:
    try:
        schema.parse(call.arguments)
        arguments = call.arguments
    except ValueError:
        arguments = _json(call.arguments)
    inner = f'{{"name": {_json(call.name)}, "arguments": {arguments}, "id": {_json(call.id)}}}'
    return OPEN + inner.replace("</", "<\\/") + CLOSE  # the same JSON, in which the block cannot end


def _result(turn: Turn, name: str) -> str:
    text = turn.text.replace("</tool_result", "<\\/tool_result")  # so that a result cannot forge another one
    return f'<tool_result id="{escape(turn.call_id)}" name="{escape(name)}">{text}</tool_result>'


def _json(value: Any, separators: tuple[str, str] = (", ", ": ")) -> str:
    """Raises: ValueError for a number that JSON has not."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators)


def stage(ask: Ask, new_id: Callable[[str], str], complaints: Mapping[str, Complaints], *, hold: bool) -> Stage:
    """Take the calls from the answer. `complaints`: by tool, of those whose arguments are checked.

    Text before them goes on at once; but where a call is required, and with `hold`, it waits for a call or the end.
    A call that is wrong, or missing though required: while nothing has been given out, the model is asked once more;
    else it is a Failure, invalid_output.
    """
    return _Tools(ask, new_id, complaints, hold=hold or ask.tool_choice == "required")


class _Wrong(Exception):
    """What is wrong with the answer, as a sentence."""


class _Tools:
    def __init__(
        self, ask: Ask, new_id: Callable[[str], str], complaints: Mapping[str, Complaints], *, hold: bool
    ) -> None:
        self._ask = ask
        self._names = [tool.name for tool in ask.tools]
        self._new_id = new_id
        self._complaints = complaints
        self._hold = hold
        self._asked_again = False
        self._begin()

    def _begin(self) -> None:
        self._said: list[str] = []
        self._held: list[str] = []  # blanks, or all the text
        self._block: list[str] | None = None
        self._size = 0
        self._given = False  # anything, to the next stage
        self._called = self._after_call = False
        self._search = self._markers = Search([OPEN])
        self._plain, self._quoted = Search([CLOSE, '"']), Search(['"', '\\"', "\\\\"])

    def __call__(self, pieces: Sequence[Piece]) -> list[Piece]:
        given: list[Piece] = []
        for piece in pieces:
            try:
                self._take(piece, given)
            except _Wrong as wrong:
                given.append(self._refused(str(wrong), given=self._given or bool(given)))
            if given and isinstance(given[-1], (End, Again, Failure)):
                self._begin()  # a stage behind this one, or this one, may have the model asked again
                return given
        self._given = self._given or bool(given)
        return given

    def _take(self, piece: Piece, given: list[Piece]) -> None:
        """Raises: _Wrong."""
        if isinstance(piece, str):
            self._said.append(piece)
            self._read(piece, given)
        elif isinstance(piece, End):
            self._end(piece, given)
        else:
            block = [] if self._block is None else [OPEN, *self._block]
            given += [*self._held, *block, *self._search.rest(), piece]

    def _read(self, text: str, given: list[Piece]) -> None:
        place = 0
        while place < len(text):
            texts, found, place = self._search.feed(text, place)
            if self._block is None:
                self._speak(texts, given)
                if found is not None:
                    self._block, self._size, self._search = [], 0, self._plain
                continue
            read = texts if found is None else [*texts, found]
            self._block += read
            self._size += sum(map(len, read))
            if self._size > LIMIT_BLOCK:
                raise _Wrong(f"a call is longer than {LIMIT_BLOCK:,} characters.")
            if found == '"':
                self._search = self._quoted if self._search is self._plain else self._plain
            elif found == CLOSE:
                call = self._call("".join(self._block[:-1]))
                before = "".join(self._held).rstrip()
                given += [before, call] if before else [call]
                self._held, self._block, self._search = [], None, self._markers
                self._called = self._after_call = True
                if not self._ask.parallel_tool_calls:
                    given.append(End("tool_calls"))
                    return

    def _speak(self, texts: Iterable[str], given: list[Piece]) -> None:
        """Give text out, but no blanks that may stand before a call."""
        for text in texts:
            words = text.rstrip()
            if not words or (self._hold and not self._called):
                self._held.append(text)
                continue
            said = "".join([*self._held, words])
            given.append(said.lstrip() if self._after_call else said)
            self._held = [text[len(words) :]] if len(words) < len(text) else []
            self._after_call = False

    def _end(self, end: End, given: list[Piece]) -> None:
        if self._block is not None:
            closed = CLOSE in "".join(self._block)
            raise _Wrong("a call is not JSON." if closed else f"a call does not end with {CLOSE}.")
        self._speak(self._search.rest(), given)
        if self._called:
            given.append(End("tool_calls" if end.reason else None))
            return
        if self._ask.tool_choice == "required":
            raise _Wrong("no tool is called, though one must be.")
        given += [*self._held, end]

    def _refused(self, fault: str, *, given: bool) -> Again | Failure:
        said = "".join(self._said)
        if given or self._asked_again:
            return repair.failure(said, fault)
        self._asked_again = True
        return repair.again(said, fault, f"To call a tool, write exactly: {FORM}")

    def _call(self, block: str) -> ToolCall:
        """Read one call, with the slips that models make. Raises: _Wrong."""
        text = block.strip()
        fenced = FENCED.fullmatch(text)
        try:
            call = schema.parse(fenced[1] if fenced else text)
        except ValueError as error:
            raise _Wrong(f"a call is not JSON: {error}.") from None
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(name, str):
            raise _Wrong("a call is no JSON object with a name.")
        if name not in self._names:
            raise _Wrong(f"there is no tool {name[:64]!r}; there are: {', '.join(self._names)}.")
        arguments = call.get("arguments", call.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = schema.parse(arguments or "{}")
            except ValueError as error:
                raise _Wrong(f"the arguments of {name} are not JSON: {error}.") from None
        return ToolCall(self._new_id("call_"), name, self._checked(name, arguments))

    def _checked(self, name: str, arguments: Any) -> str:
        """The arguments as compact JSON. Raises: _Wrong."""
        if not isinstance(arguments, dict):
            raise _Wrong(f"the arguments of {name} are no JSON object.")
        if wrong := name in self._complaints and self._complaints[name](arguments):
            raise _Wrong(f"the arguments of {name} are not valid: {'; '.join(wrong)}.")
        try:
            text = _json(arguments, (",", ":"))
            text.encode()
        except ValueError as error:
            raise _Wrong(f"the arguments of {name} are no JSON that can be sent: {error}.") from None
        return text
