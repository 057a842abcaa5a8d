"""Turns as a provider takes them, and the line that stands for a conversation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.conversation import LIMIT_TITLE, Turn, messages, title


def asked(text: str) -> Turn:
    return Turn(role="user", text=text, created_s=0.0)


def answered(text: str) -> Turn:
    return Turn(role="assistant", text=text, created_s=0.0, verdict="complete")


def test_turns_become_messages_in_their_order_after_the_system_prompt() -> None:
    turns = [answered("Hello, I am Ada."), asked("Who?"), answered("Ada."), asked("Why?")]

    assert messages(turns, "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hello, I am Ada."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": "Why?"},
    ]
    assert messages([]) == []


def test_what_was_asked_and_got_no_word_is_not_sent_again() -> None:
    turns = [asked("one"), answered("1"), asked("two"), answered(""), asked("three")]

    assert [message["content"] for message in messages(turns)] == ["one", "1", "three"]
    assert messages([answered("")], "Be brief.") == [{"role": "system", "content": "Be brief."}]


def test_an_empty_question_that_was_answered_stays() -> None:
    assert [message["content"] for message in messages([asked(""), answered("yes?")])] == ["", "yes?"]


@given(st.lists(st.builds(lambda role, text: asked(text) if role else answered(text), st.booleans(), st.text())))
def test_every_answer_that_has_words_is_sent(turns: list[Turn]) -> None:
    sent = [message["content"] for message in messages(turns) if message["role"] == "assistant"]

    assert sent == [turn.text for turn in turns if turn.role == "assistant" and turn.text]


@pytest.mark.parametrize(
    ("turns", "line"),
    [
        ([], ""),
        ([asked("What is\n the  capital?")], "What is the capital?"),
        ([answered("Hello."), asked("Who are you?")], "Who are you?"),
        ([answered("Hello.")], "Hello."),
        ([asked("x" * 100)], "x" * (LIMIT_TITLE - 1) + "…"),
        ([asked("y" * LIMIT_TITLE)], "y" * LIMIT_TITLE),
    ],
)
def test_a_title_is_one_line_of_the_first_question(turns: list[Turn], line: str) -> None:
    assert title(turns) == line
