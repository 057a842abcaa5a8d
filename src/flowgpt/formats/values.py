"""What the objects of all dialects are made of. No dialect in here."""

from __future__ import annotations

from typing import Any

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One object of the API, frozen; it compares by value."""

    def model_dump(self) -> dict[str, Any]:
        """The object as plain dicts and lists."""
        builtins: dict[str, Any] = msgspec.to_builtins(self)
        return builtins

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The object as JSON text."""
        text = msgspec.json.encode(self)
        return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()
