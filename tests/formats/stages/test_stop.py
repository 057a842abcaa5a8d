"""formats/stages/stop.py: stop sequences against a naive search of the joined text, at every cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from flowgpt.errors import StreamInterruptedError
from flowgpt.formats.pieces import End, Failure, Piece, ToolCall
from flowgpt.formats.stages import stop
from tests.formats.stages.conftest import joined, passed, splits

CALL = ToolCall("call_1", "add", '{"a":1}')
FAILURE = Failure(StreamInterruptedError("cut"))


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
        assert joined(passed(stop.stage(sequences), [texts, [End()]])) == naive(text, sequences)
        assert joined(passed(stop.stage(sequences), [*([part] for part in texts), [End()]])) == naive(text, sequences)


@given(
    text=st.text("ab", max_size=30),
    sequences=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 30)),
)
def test_no_split_of_any_text_changes_what_is_given(text: str, sequences: list[str], cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(text)]
    texts = [text[begin:end] for begin, end in itertools.pairwise(places)]

    assert joined(passed(stop.stage(sequences), [*([part] for part in texts), [End()]])) == naive(text, sequences)


@given(text=st.text("ab", max_size=20), sequences=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1))
def test_only_what_may_become_a_sequence_is_held_back(text: str, sequences: list[str]) -> None:
    stopping, given, seen = stop.stage(sequences), "", ""
    for character in text:
        given += "".join(piece for piece in stopping([character]) if isinstance(piece, str))
        seen += character
        if any(sequence in seen for sequence in sequences):
            break
        held = max(
            size for size in range(len(seen) + 1) if any(s[:-1].startswith(seen[len(seen) - size :]) for s in sequences)
        )
        assert given == seen[: len(seen) - held]


def test_texts_go_on_as_they_came() -> None:
    assert stop.stage(["\n\n"])(["Hello", " ", "world\n", "and", " you"]) == [
        "Hello",
        " ",
        "world",
        "\n",
        "and",
        " you",
    ]


def test_a_sequence_that_does_not_complete_is_given_out_at_the_end() -> None:
    assert passed(stop.stage(["STOP"]), [["a STO"], [End()]]) == ["a ", "STO", End()]
    assert passed(stop.stage(["STOP"]), [["a STO"], [FAILURE]]) == ["a ", "STO", FAILURE]


def test_a_sequence_does_not_reach_over_a_tool_call() -> None:
    assert stop.stage(["STOP"])(["ST", CALL, "OP", End("tool_calls")]) == ["ST", CALL, "OP", End("tool_calls")]


def test_nothing_comes_after_the_sequence_in_the_same_batch() -> None:
    assert stop.stage(["."])(["One.", " Two.", CALL, End()]) == ["One", End("stop_sequence", ".")]


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

    given = passed(stop.stage([Counted(sequence)]), [texts, [End()]])

    assert "".join(piece for piece in given if isinstance(piece, str)) == text
    assert 0 < Counted.looks < 12 * len(text)


class Stopping(RuleBasedStateMachine):
    """Texts, calls and the end, in batches of any size, against `str.find` in all that came since the last call."""

    ended = True

    @precondition(lambda self: self.ended)
    @rule(sequences=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
    def begin(self, sequences: list[str]) -> None:
        self.sequences = sequences
        self.stage = stop.stage(sequences)
        self.given: list[Piece] = []
        self.expected: list[Piece] = []
        self.text = ""
        self.ended = False

    @precondition(lambda self: not self.ended)
    @rule(texts=st.lists(st.text("abc", max_size=5), max_size=3), last=st.sampled_from([None, CALL, End(), FAILURE]))
    def batch(self, texts: list[str], last: Piece | None) -> None:
        self.given += self.stage(texts if last is None else [*texts, last])
        self.text += "".join(texts)
        ends = {sequence: self.text.find(sequence) + len(sequence) for sequence in self.sequences}
        found = {sequence: end for sequence, end in ends.items() if sequence in self.text}
        if found:
            first = min(found, key=lambda sequence: (found[sequence], -len(sequence)))
            self.expected += [self.text[: found[first] - len(first)], End("stop_sequence", first)]
        elif last is not None:
            self.expected += [self.text, last]
            self.text = ""
        self.ended = bool(found) or isinstance(last, End | Failure)
        told = joined(self.given)
        whole = joined([*self.expected, *([] if self.ended else [self.text])])
        if self.ended:
            assert told == whole
        else:
            assert told[:-1] == whole[: len(told[:-1])]
            assert str_or_same(told[-1:], whole[len(told) - 1 : len(told)])


def str_or_same(given: list[Piece], expected: list[Piece]) -> bool:
    """Whether the last piece is as expected, or the beginning of the text that is."""
    if given and isinstance(given[0], str):
        return bool(expected) and isinstance(expected[0], str) and expected[0].startswith(given[0])
    return given == expected


TestStopping = Stopping.TestCase
TestStopping.settings = settings(max_examples=60, stateful_step_count=12)
