"""formats/estimate.py: tokens from characters, and whose characters count."""

from __future__ import annotations

from typing import Any

import pytest

from flowgpt.errors import StreamInterruptedError
from flowgpt.formats.estimate import characters, size, tokens
from flowgpt.formats.pieces import End, Failure, Piece, ToolCall


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (1_000_001, 250_001)])
def test_tokens_are_characters_by_four_rounded_up(count: int, expected: int) -> None:
    assert tokens(count) == expected


@pytest.mark.parametrize(
    ("piece", "count"),
    [
        ("", 0),
        ("é😀", 2),
        (ToolCall("call_1", "add", '{"a":1}'), 7),
        (End(), 0),
        (Failure(StreamInterruptedError("x")), 0),
    ],
)
def test_the_size_of_a_piece_is_that_of_its_text_or_arguments(piece: Piece, count: int) -> None:
    assert size(piece) == count


@pytest.mark.parametrize(
    ("messages", "count"),
    [
        ([], 0),
        ([{"role": "user", "content": "abc"}, {"role": "system", "content": "é"}], 4),
        ([{"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "image_url"}, "?"]}], 2),
        ([{"role": "user"}, {"content": None}, "no message", 5], 0),
    ],
)
def test_the_characters_of_messages_are_those_of_their_texts(messages: list[Any], count: int) -> None:
    assert characters(messages) == count
