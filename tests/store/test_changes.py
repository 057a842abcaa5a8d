"""What a change of conversations is made of: ids, branches, and the order of writing."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import replace
from pathlib import Path

from flowgpt.conversation import Turn
from flowgpt.store import Store
from flowgpt.store.conversations import Conversations

from .conftest import ANSWER, DRAFT, QUESTION, child, outside, said


def texts(conversations: Conversations, id_: str) -> list[str]:
    return [turn.text for turn in conversations.turns(id_)]


def test_an_id_is_short_and_of_chance(conversations: Conversations) -> None:
    ids = {conversations.add(None, 0, [QUESTION]) for _ in range(20)}
    assert len(ids) == 20
    assert {len(id_) for id_ in ids} == {10}
    assert set("".join(ids)) <= set("abcdefghijklmnopqrstuvwxyz234567")


def test_n12_what_goes_on_from_an_earlier_point_is_a_branch(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [said("a"), said("b"), said("c")])
    branch = conversations.add(id_, 1, [said("d")])
    assert branch != id_
    assert texts(conversations, id_) == ["a", "b", "c"]
    assert texts(conversations, branch) == ["a", "d"]
    assert conversations.find(branch).branch_of == id_
    assert conversations.latest() == conversations.find(branch)


def test_a_branch_from_the_very_start_has_the_title_of_what_is_said_in_it(conversations: Conversations) -> None:
    greeting, asked, other = (
        Turn(role="assistant" if text == "Hi." else "user", text=text, created_s=1.0)
        for text in ("Hi.", "One?", "Two?")
    )
    id_ = conversations.add(None, 0, [greeting, asked])

    assert conversations.find(conversations.add(id_, 0, [other])).title == "Two?"
    assert conversations.find(conversations.add(id_, 1, [other])).title == "Two?"
    third = conversations.add(id_, 2, [asked])
    assert conversations.find(conversations.add(third, 2, [other])).title == "One?"


def test_n12_a_branch_of_a_draft_has_what_it_had_and_stays_so(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [QUESTION, DRAFT])
    conversations.draft(id_, 1, "Ray")
    branch = conversations.branch(id_, 2)
    conversations.end(id_, 1, ANSWER)
    assert conversations.turns(branch) == [QUESTION, replace(DRAFT, text="Ray")]
    assert [found.place for found in conversations.search("ray", 9)] == [1, 1]


GO_ON = """
from flowgpt.conversation import Turn
turn = lambda text: Turn(role="user", text=text, created_s=1.0)
id_ = sys.argv[3]
for number in range(8):
    turns = store.conversations.turns(id_)
    id_ = store.conversations.add(id_, len(turns), [turn(f"{sys.argv[2]} {number}")])
"""


def test_n12_n1_processes_that_go_on_with_one_conversation_lose_nothing(path: Path) -> None:
    """Each says eight things, behind all that it has seen; when another was quicker, that begins a branch."""
    with contextlib.closing(Store(path)) as kept:
        id_ = kept.conversations.add(None, 0, [said("begin")])
        children = [subprocess.Popen(child(path, GO_ON, name, id_), stderr=subprocess.PIPE) for name in "abc"]
        assert [(process.communicate(timeout=60)[1], process.returncode) for process in children] == [(b"", 0)] * 3
        kept_all = [texts(kept.conversations, found.id) for found in kept.conversations.list()]
    assert {text for said in kept_all for text in said} == {"begin", *(f"{n} {i}" for n in "abc" for i in range(8))}
    for name in "abc":
        orders = [[text for text in said if text[0] == name and text != "begin"] for said in kept_all]
        assert [f"{name} {number}" for number in range(8)] in orders
    with outside(path) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_n13_the_order_is_that_of_writing_whatever_the_clock_says(conversations: Conversations) -> None:
    first = conversations.add(None, 0, [replace(QUESTION, created_s=500.0)])
    second = conversations.add(None, 0, [replace(QUESTION, created_s=5.0)])
    assert [found.id for found in conversations.list()] == [second, first]
    conversations.add(first, 1, [replace(QUESTION, created_s=1.0)])
    assert [found.id for found in conversations.list()] == [first, second]
    assert [turn.created_s for turn in conversations.turns(first)] == [500.0, 1.0]
    assert conversations.find(first).updated_s == 500.0
    assert conversations.list(1) == [conversations.latest()]
