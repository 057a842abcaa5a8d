"""Where a person types: lines that go on, and what is remembered of them. test_chat.py has a screen."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from flowgpt.cli import prompt, streams
from flowgpt.errors import InvalidRequestError


def given(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def lines(read: prompt.Read) -> list[str]:
    said = []
    try:
        while True:
            said.append(read(""))
    except EOFError:
        return said


def typed(keys: str, history: Path | None = None) -> list[str]:
    """What the prompt gives for these keys, until Ctrl-D."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys + "\x04")
        return lines(prompt.edited(lambda _: ["/model "], lambda: "", history))


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("", False),
        ("a", False),
        ("a\\", True),
        ("```", True),
        ("a ```", False),
        ("```\nx\n```", False),
        ("``` a\n```\n ```", True),
    ],
)
def test_a_line_goes_on_after_a_backslash_and_in_a_fence(text: str, more: bool) -> None:
    assert prompt.unfinished(text) is more


def test_bare_lines_are_taken_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, b"\xef\xbb\xbfone\r\n\ntwo\\\nmore\n```\ncode\n```\nlast \xff")

    assert lines(prompt.bare(sign=False)) == ["one", "", "two\nmore", "```\ncode\n```", "last \ufffd"]


def test_a_bare_line_has_a_limit_and_the_next_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, b"x" * (3 * streams.LIMIT_STDIN_BYTES) + b"\nnext\n")
    read = prompt.bare(sign=False)

    with pytest.raises(InvalidRequestError, match="longer than"):
        read("")
    assert lines(read) == ["next"]


def test_no_standard_input_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    assert lines(prompt.bare(sign=False)) == []


def test_a_line_that_waits_is_signed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given(monkeypatch, b"one\\\ntwo\n")

    assert lines(prompt.bare(sign=True)) == ["one\ntwo"]
    assert capsys.readouterr() == ("", "> . > ")


def test_keys_make_lines() -> None:
    assert typed("one\rtwo\\\rmore\r\x1b[200~pasted\nlines\n\x1b[201~\rgone\x03a\x1b\rb\r```\rx\r```\r") == [
        "one",
        "two\nmore",
        "pasted\nlines\n",
        "a\nb",
        "```\nx\n```",
    ]


def test_what_was_typed_is_remembered_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "history"
    typed("one\rtwo\\\rmore\r", path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*prompt._history(path).load_history_strings()] == ["two\nmore", "one"]


def test_what_was_typed_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"".join(b"\n# now\n+line %d\n" % place for place in range(100_000)))
    typed("", path)

    assert path.stat().st_size <= prompt.LIMIT_HISTORY_BYTES
    assert path.read_bytes().startswith(b"\n# now\n+line ")
    assert path.read_bytes().endswith(b"+line 99999\n")


def test_a_history_that_cannot_be_kept_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert typed("one\r", tmp_path / "file" / "history") == ["one"]
    assert typed("two\r", tmp_path) == ["two"]  # a folder
    assert isinstance(prompt._history(None), InMemoryHistory)
