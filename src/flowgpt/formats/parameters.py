"""The parameters of the dialects' requests: how a row of their table is written, read from a body, and listed; and what
all dialects say of a wrong one.

The table is the request classes themselves (ChatRequest, ResponsesRequest ...): one annotated field a parameter, with
its type, what becomes of it, and why in words. The documents and /openapi.json are made from it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NoReturn, TypeVar, get_args, get_type_hints

import msgspec

from ..errors import InvalidRequestError
from .pieces import Tool

T = TypeVar("T", bound=msgspec.Struct)

Handling = Literal["honoured", "emulated", "ignored", "refused"]

LIMIT_BRACKETS = 250_000
"""How many `[` and `{` a body may have, those in texts too: an empty list costs as much to read as forty letters."""

LIMIT_MEMBERS = 50_000
"""How many members of objects a body may have; bounds the time that reading it takes."""

LIMIT_NAMES = 32
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""How many ignored names are listed, and what one may look like to be listed: they go into a header."""


def honoured(words: str) -> msgspec.Meta:
    """FlowGPT takes it, or it concerns the answer's form."""
    return _row("honoured", words)


def emulated(words: str, *, harmless: Sequence[Any] = ()) -> msgspec.Meta:
    """Done here, since FlowGPT cannot. `harmless`: values that ask for nothing."""
    return _row("emulated", words, harmless)


def ignored(words: str = "FlowGPT has no word for it", *, harmless: Sequence[Any] = ()) -> msgspec.Meta:
    """Accepted without effect, and listed in x-flowgpt-ignored."""
    return _row("ignored", words, harmless)


def refused(words: str, *, harmless: Sequence[Any] = ()) -> msgspec.Meta:
    """Answered with 400, since the answer would not be what was asked for."""
    return _row("refused", words, harmless)


def _row(handling: Handling, words: str, harmless: Sequence[Any] = ()) -> msgspec.Meta:
    written = json.dumps(list(harmless))  # as text, since typing takes equal rows for one, and False equals 0
    return msgspec.Meta(description=words, extra={"handling": handling, "harmless": written})


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter of one dialect."""

    name: str
    handling: Handling
    words: str
    harmless: Sequence[Any] = ()

    def asks_for(self, value: object) -> bool:
        """Whether the value wants something; null never does."""
        return value is not None and not any(value == none and type(value) is type(none) for none in self.harmless)


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """A request as read. `ignored`, `emulated`: the names of its parameters that are."""

    values: T
    ignored: tuple[str, ...]
    emulated: tuple[str, ...]


@functools.cache
def rows(kind: type[msgspec.Struct]) -> Mapping[str, Row]:
    """The table of a request class, by name."""
    table = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        metas = [meta for meta in get_args(hint) if isinstance(meta, msgspec.Meta) and meta.extra]
        assert metas, f"{kind.__name__}.{name} says not what becomes of it"
        extra: Mapping[str, Any] = metas[0].extra or {}
        table[name] = Row(name, extra["handling"], metas[0].description or "", json.loads(extra["harmless"]))
    return table


def read(body: bytes, kind: type[T]) -> Read[T]:
    """Read a body. Raises: InvalidRequestError, with `param` where it is one's fault."""
    raw = decode(body)
    table = rows(kind)
    ignored, emulated = [], []
    for name, value in raw.items():
        row = table.get(name)
        if row is None:
            ignored.append(name if NAME.fullmatch(name) else "?")
        elif row.asks_for(value):
            if row.handling == "refused":
                raise wrong(name, row.words, "unsupported_parameter")
            if row.handling == "ignored":
                ignored.append(name)
            elif row.handling == "emulated":
                emulated.append(name)
    try:
        values = msgspec.convert({name: value for name, value in raw.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    return Read(values, tuple(ignored[:LIMIT_NAMES]), tuple(emulated))


def _invalid(error: msgspec.ValidationError) -> InvalidRequestError:
    words, _, path = str(error).partition(" - at `$")
    param = path.rstrip("`").lstrip(".") or None
    if "missing required field" in words:
        field = words.rpartition("field `")[2].rstrip("`")
        param = f"{param}.{field}" if param else field
    return wrong(param, words) if param else InvalidRequestError(words)


def wrong(param: str, words: str, code: str | None = None) -> InvalidRequestError:
    """A parameter's fault, or that of its part, as "messages[0].content"."""
    return InvalidRequestError(f"{param}: {words}", code=code, param=param)


def offered(
    tools: Sequence[Tool],
    mode: Literal["none", "auto", "required"],
    chosen: Collection[str] | None = None,
    param: str = "tool_choice",
) -> tuple[tuple[Tool, ...], Literal["auto", "required"]]:
    """The tools that may be called, and whether one must be. `chosen`: their names, unless all are meant.

    Raises: InvalidRequestError, with `param` for a choice that cannot be made.
    """
    names = {tool.name for tool in tools}
    if len(names) < len(tools):
        raise wrong("tools", "two have the same name")
    if unknown := {*(chosen or ())} - names:
        raise wrong(param, f"there is no tool {min(unknown)[:64]!a} in `tools`")
    if mode == "none":
        return (), "auto"
    left = tuple(tool for tool in tools if chosen is None or tool.name in chosen)
    if mode == "required" and not left:
        raise wrong(param, "there is no tool that could be called")
    return left, mode


def decode(body: bytes) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no lone surrogates, no duplicate names, only finite numbers.

    Raises: InvalidRequestError.
    """
    # Before it is read, for reading is what costs; of `":` those within strings are escaped.
    if body.count(b"[") + body.count(b"{") > LIMIT_BRACKETS:
        raise InvalidRequestError(f"the body has more than {LIMIT_BRACKETS:,} opening brackets and braces")
    if body.count(b'":') - body.count(b'\\":') > LIMIT_MEMBERS:
        raise InvalidRequestError(f"the body has more than {LIMIT_MEMBERS:,} members")
    fault = "the body is not JSON"
    try:
        value = (_read if body.count(b":") <= LIMIT_MEMBERS else _reader(LIMIT_MEMBERS))(body.decode())
        if b"\\ud" in body.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except InvalidRequestError:
        raise
    except RecursionError:
        fault = "the body is nested too deeply"
    except UnicodeDecodeError as error:
        fault = f"the body is not UTF-8, at byte {error.start}"
    except UnicodeEncodeError:
        fault = "the body has a string with a lone surrogate"
    except ValueError as error:
        fault = f"the body is not JSON: {error}"
    else:
        if isinstance(value, dict):
            return value
        fault = "the body is not a JSON object"
    raise InvalidRequestError(fault)


def _reader(limit: int) -> Callable[[str], Any]:
    """Reads one text that has no more than so many members."""
    left = limit

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal left
        left -= len(pairs)
        if left < 0:
            raise InvalidRequestError(f"the body has more than {LIMIT_MEMBERS:,} members")
        return _object(pairs)

    return json.JSONDecoder(object_pairs_hook=members, parse_constant=_not_finite, parse_float=_finite).decode


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise InvalidRequestError("the body has an object that names a member twice")
    return made


def _not_finite(word: str) -> NoReturn:
    raise InvalidRequestError(f"{word} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise InvalidRequestError("a number of the body is too large")
    return value


_read = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_not_finite, parse_float=_finite).decode
"""For texts that have too few colons for too many members: nothing is counted, and one reader serves all."""
