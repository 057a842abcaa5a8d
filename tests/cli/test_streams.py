"""The three standard streams, with what can be wrong with them."""

from __future__ import annotations

import errno
import io
import pty
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt import InvalidRequestError
from flowgpt.cli import streams

ESCAPES = "a\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\x00\x7f\r\nb\tc\u202egnp.exe\u2066x"


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def stdin(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data))


def test_e14_an_answer_commands_no_terminal() -> None:
    """ANSI, OSC, C1 and bidi."""
    assert streams.plain(ESCAPES) == "a[31mred[0m]0;title2J\nb\tcgnp.exex"


@pytest.mark.parametrize("place", range(len(ESCAPES) + 1))
def test_e14_an_escape_that_is_split_over_texts_commands_nothing_either(place: int) -> None:
    assert streams.plain(ESCAPES[:place]) + streams.plain(ESCAPES[place:]) == streams.plain(ESCAPES)


@given(st.text())
def test_e14_only_controls_and_directions_are_taken_from_a_text(text: str) -> None:
    kept = streams.plain(text)

    assert all(char in "\n\t" or unicodedata.category(char) != "Cc" for char in kept)
    assert kept == "".join(
        char
        for char in text
        if char in "\n\t" or not (unicodedata.category(char) == "Cc" or unicodedata.bidirectional(char) in DIRECTIONS)
    )


DIRECTIONS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def test_standard_input_is_read_as_utf8_without_its_last_newlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", stdin(b"\xef\xbb\xbf  \xc3\xa9\n\nb\r\n\n"))

    assert streams.piped()
    assert streams.read() == "  é\n\nb"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a\xff", "standard input is not UTF-8, at byte 1"),
        (b"a" * (streams.LIMIT_STDIN_BYTES + 1), "standard input is larger than 4,194,304 bytes"),
    ],
)
def test_j9_standard_input_that_cannot_be_a_question_is_an_error(
    monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin(data))

    with pytest.raises(InvalidRequestError) as caught:
        streams.read()

    assert caught.value.message == words
    assert caught.value.hint


def test_j10_closed_streams_take_and_give_nothing_but_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)

    streams.prepare()
    streams.note("a")
    with pytest.raises(OSError, match="standard output is closed") as caught:
        streams.write("a")
    streams.abandon()

    assert not streams.piped()
    assert caught.value.errno == errno.EBADF


def test_j10_what_a_locale_has_no_bytes_for_is_shown_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)

    streams.prepare()
    streams.write("é\ud83d")

    assert screen.buffer.getvalue() == rb"\xe9\ud83d"


def test_a_note_is_one_line_that_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    streams.note("flowgpt: a\n\x1b[31mb   c")

    assert capsys.readouterr() == ("", "flowgpt: a [31mb c\n")


def test_a_note_is_broken_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an address, which somebody may copy, not at all."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "20")
    with open(theirs, "w") as terminal, open(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        streams.note("a note of several words, and http://127.0.0.1:8000/a-long-address")

        assert screen.read(4096) == b"a note of several\r\nwords, and\r\nhttp://127.0.0.1:8000/a-long-address\r\n"


def test_a_note_that_nobody_can_read_is_no_failure_but_an_answer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken())
    monkeypatch.setattr(sys, "stdout", Broken())

    streams.note("a")
    with pytest.raises(BrokenPipeError):
        streams.write("a")
