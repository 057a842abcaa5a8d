"""formats/stages/length.py: where an answer is cut, whatever the cuts of its texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.errors import StreamInterruptedError
from flowgpt.formats.pieces import End, Failure, Piece, ToolCall
from flowgpt.formats.stages import length
from tests.formats.stages.conftest import joined, passed, splits

CALL = ToolCall("call_1", "add", '{"a":1}')
FAILURE = Failure(StreamInterruptedError("cut"))


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([["12345678"], [End()]], ["12345678", End()]),  # just the limit: nothing was cut
        ([["123456789"]], ["12345678", End("length")]),
        ([["1234", "5678", "9"]], ["1234", "5678", End("length")]),
        ([["12345678"], ["", "9"]], ["12345678", "", End("length")]),
        ([["é😀€xyz", "abcd"]], ["é😀€xyz", "ab", End("length")]),
        ([["1"], [CALL, End("tool_calls")]], ["1", CALL, End("tool_calls")]),
        ([["12"], [CALL, End("tool_calls")]], ["12", End("length")]),  # half a call is of no use
        ([[CALL, "12", End()]], [CALL, "1", End("length")]),
        ([["12345678", FAILURE]], ["12345678", FAILURE]),
        ([["1234"], [End(None)]], ["1234", End(None)]),
    ],
)
def test_the_answer_ends_at_the_limit(batches: list[list[Piece]], expected: list[Piece]) -> None:
    assert passed(length.stage(2), batches) == expected


@given(text=st.text(max_size=20), tokens=st.integers(1, 4))
def test_no_split_changes_where_the_limit_cuts(text: str, tokens: int) -> None:
    kept = [*filter(None, [text[: tokens * 4]]), End("length" if len(text) > tokens * 4 else "stop")]
    for texts in splits(text):
        assert joined(passed(length.stage(tokens), [*([part] for part in texts), [End()]])) == kept
