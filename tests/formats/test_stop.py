"""formats/stop.py: stop sequences against a naive search of the joined text, and the limit of length; at every cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.errors import StreamInterruptedError
from flowgpt.formats.pieces import Again, End, Failure, Piece, Stage, ToolCall
from flowgpt.formats.stop import Search, length, stop

CALL = ToolCall("call_1", "add", '{"a":1}')
FAILURE = Failure(StreamInterruptedError("cut"))


def passed(stage: Stage, batches: Sequence[Sequence[Piece]]) -> list[Piece]:
    """What comes out, until the stage has ended the answer."""
    given: list[Piece] = []
    for batch in batches:
        given += stage(batch)
        if given and isinstance(given[-1], (End, Failure, Again)):
            break
    return given


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same with texts that follow one another put together."""
    told: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and told and isinstance(told[-1], str):
            told[-1] += piece
        elif piece != "":
            told.append(piece)
    return told


def splits(text: str) -> Iterator[list[str]]:
    """Every cut in two, and character by character."""
    for place in range(len(text) + 1):
        yield [text[:place], text[place:]]
    yield list(text)


def naive(text: str, sequences: Sequence[str]) -> list[Piece]:
    """The answer up to the sequence that ends first; of several that end together, the longest."""
    for end in range(1, len(text) + 1):
        ending = [sequence for sequence in sequences if text.endswith(sequence, 0, end)]
        if ending:
            found = max(ending, key=len)
            return [*filter(None, [text[: end - len(found)]]), End("stop_sequence", found)]
    return [*filter(None, [text]), End()]


@pytest.mark.parametrize(
    ("text", "sequences", "before", "found"),
    [
        ("one\nUser: two", ["\nUser:"], "one", "\nUser:"),
        ("STOP", ["STOP"], "", "STOP"),
        ("aab", ["ab"], "a", "ab"),
        ("aaaab", ["aab"], "aa", "aab"),
        ("abcabcabd", ["abcabd"], "abc", "abcabd"),
        ("xabcd", ["abcd", "bc"], "xa", "bc"),  # what ends first wins, though another began earlier
        ("xabc", ["abc", "bc", "c"], "x", "abc"),  # of those that end together, the longest
        ("a]^-b", ["]^-"], "a", "]^-"),
        ("é😀€", ["😀"], "é", "😀"),
    ],
)
def test_the_answer_ends_before_the_first_sequence(text: str, sequences: list[str], before: str, found: str) -> None:
    assert naive(text, sequences) == [*filter(None, [before]), End("stop_sequence", found)]
    for texts in splits(text):
        assert joined(passed(stop(sequences), [texts, [End()]])) == naive(text, sequences)
        assert joined(passed(stop(sequences), [*([part] for part in texts), [End()]])) == naive(text, sequences)


@given(
    text=st.text("ab", max_size=30),
    sequences=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 30)),
)
def test_no_split_of_any_text_changes_what_is_given(text: str, sequences: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    texts = [text[begin:end] for begin, end in itertools.pairwise(places)]

    assert joined(passed(stop(sequences), [*([part] for part in texts), [End()]])) == naive(text, sequences)


@given(text=st.text("ab", max_size=20), sequences=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1))
def test_only_what_may_become_a_sequence_is_held_back(text: str, sequences: list[str]) -> None:
    stage, given, seen = stop(sequences), "", ""
    for character in text:
        given += "".join(piece for piece in stage([character]) if isinstance(piece, str))
        seen += character
        if any(sequence in seen for sequence in sequences):
            break
        held = max(
            size for size in range(len(seen) + 1) if any(s[:-1].startswith(seen[len(seen) - size :]) for s in sequences)
        )
        assert given == seen[: len(seen) - held]


def test_texts_go_on_as_they_came() -> None:
    assert stop(["\n\n"])(["Hello", " ", "world\n", "and", " you"]) == ["Hello", " ", "world", "\n", "and", " you"]


def test_a_sequence_that_does_not_complete_is_given_out_at_the_end() -> None:
    assert passed(stop(["STOP"]), [["a STO"], [End()]]) == ["a ", "STO", End()]
    assert passed(stop(["STOP"]), [["a STO"], [FAILURE]]) == ["a ", "STO", FAILURE]


def test_a_sequence_does_not_reach_over_a_tool_call() -> None:
    assert stop(["STOP"])(["ST", CALL, "OP", End("tool_calls")]) == ["ST", CALL, "OP", End("tool_calls")]


def test_nothing_comes_after_the_sequence_in_the_same_batch() -> None:
    assert stop(["."])(["One.", " Two.", CALL, End()]) == ["One", End("stop_sequence", ".")]


class Counted(str):
    """A text that counts how many of its characters are looked at."""

    looks = 0

    def __getitem__(self, key: object) -> Counted:
        got = Counted(super().__getitem__(key))  # type: ignore[index]
        Counted.looks += len(got)
        return got


@pytest.mark.parametrize(
    ("sequence", "text"),
    [
        ("a" * 2000 + "b", "a" * 20_000),  # each character moves what is held by one
        ("a" * 2000 + "b", ("a" * 2000 + "c") * 10),
        ("ab" * 1000 + "c", "ab" * 10_000),
    ],
)
@pytest.mark.parametrize("cut", [lambda text: [text], lambda text: [text[:2000], *text[2000:]], list])
def test_the_work_is_linear_in_the_text(sequence: str, text: str, cut: Callable[[str], list[str]]) -> None:
    texts = [Counted(part) for part in cut(text)]
    Counted.looks = 0

    given = passed(stop([Counted(sequence)]), [texts, [End()]])

    assert "".join(piece for piece in given if isinstance(piece, str)) == text
    assert 0 < Counted.looks < 12 * len(text)


def test_a_search_begins_anew_after_a_find_and_says_where() -> None:
    search = Search(["<a>", "</a>"])

    assert search.feed("x<a>y</a>z<") == (["x"], "<a>", 4)
    assert search.feed("x<a>y</a>z<", 4) == (["y"], "</a>", 9)
    assert search.feed("x<a>y</a>z<", 9) == (["z"], None, 11)
    assert search.rest() == ["<"]
    assert search.feed("a>") == (["a>"], None, 2)


# The limit of length


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
    assert passed(length(2), batches) == expected


@given(text=st.text(max_size=20), tokens=st.integers(1, 4))
def test_no_split_changes_where_the_limit_cuts(text: str, tokens: int) -> None:
    kept = [*filter(None, [text[: tokens * 4]]), End("length" if len(text) > tokens * 4 else "stop")]
    for texts in splits(text):
        assert joined(passed(length(tokens), [*([part] for part in texts), [End()]])) == kept
