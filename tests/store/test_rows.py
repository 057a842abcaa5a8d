"""Rows and values: what a row may have, and what is cut or replaced for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowgpt.store import rows
from flowgpt.store.conversations import Conversations

from .conftest import ANSWER, DRAFT, QUESTION, code, said


def test_n11_what_is_no_text_becomes_a_mark_and_all_else_stays() -> None:
    assert rows.clean("a\0b\ud83dc\U0001f600d\x1b\ufffe") == "a\ufffdb\ufffdc\U0001f600d\x1b\ufffe"


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_n11_a_text_that_is_too_long_is_cut_and_says_so(
    role: str, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LIMIT_TEXT", 10)
    turn = replace(ANSWER if role == "assistant" else QUESTION, system="")
    id_ = conversations.add(None, 0, [replace(turn, text="é" * 10), replace(turn, text="é" * 11)])
    fits, cut = conversations.turns(id_)
    assert (fits.text, fits.verdict, fits.code) == ("é" * 10, turn.verdict, "")
    assert (cut.text, cut.verdict, cut.code) == ("é" * 10, "truncated", "too_long")


def test_n11_a_draft_that_is_too_long_is_cut(conversations: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LIMIT_TEXT", 10)
    id_ = conversations.add(None, 0, [QUESTION, DRAFT])
    for piece in ("é" * 6, "a" * 6, "b"):
        conversations.draft(id_, 1, piece)
    assert conversations.turns(id_)[1].text == "éééééé" + "aaaa"


def test_n11_50_mb_of_text_are_cut_and_take_no_time_that_anybody_would_notice(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [said("x" * 50_000_000)])
    [turn] = conversations.turns(id_)
    assert (len(turn.text), turn.code) == (rows.LIMIT_TEXT, "too_long")


def test_an_excerpt_is_one_line_around_the_first_word(conversations: Conversations) -> None:
    conversations.add(None, 0, [said("before " * 100 + "\n\nthe NEEDLE\tis here " + "after " * 100)])
    [found] = conversations.search("needle", 9)
    assert "the NEEDLE is here" in found.excerpt
    assert found.excerpt.startswith("…")
    assert found.excerpt.endswith("…")
    assert len(found.excerpt) < 100


@pytest.mark.parametrize("damaged", ["", "{", "[1]", "null", None, b"\xff"])
def test_n7_a_row_whose_options_are_damaged_is_a_store_error(damaged: object) -> None:
    row = ("user", "", 1.0, "", "", damaged, "", "", None, None)
    assert code(lambda: rows.turn(row)) == "store_corrupt"
