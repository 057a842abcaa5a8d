"""formats/values.py: a value of an API is frozen, equal to its like, and can be shown."""

from __future__ import annotations

import pytest

from flowgpt.formats.values import Value


class Point(Value, frozen=True, kw_only=True):
    x: int
    label: str = "é"


def test_a_value_is_shown_as_dicts_and_as_json() -> None:
    assert Point(x=1).model_dump() == {"x": 1, "label": "é"}
    assert Point(x=1).model_dump_json() == '{"x":1,"label":"é"}'
    assert Point(x=1).model_dump_json(indent=2) == '{\n  "x": 1,\n  "label": "é"\n}'


def test_a_value_is_frozen_and_compares_by_value() -> None:
    point = Point(x=1)

    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    assert point == Point(x=1)
    assert point != Point(x=2)
