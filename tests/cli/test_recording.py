"""The thread that keeps a conversation: how far behind it may be, and what it does when the store fails."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flowgpt import config
from flowgpt.cli.recording import BEHIND_BYTES, Recording
from flowgpt.conversation import Turn
from flowgpt.store import Store

QUESTION = Turn(role="user", text="Why?", created_s=1.0)
DRAFT = Turn(role="assistant", text="", created_s=1.0, verdict="interrupted")


def ended(text: str) -> Turn:
    return replace(DRAFT, text=text, verdict="complete", model="m", total_s=1.5)


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store()) as store:
        yield store


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def recording(store: Store, told: list[str]) -> Iterator[Recording]:
    with contextlib.closing(Recording(store, told.append)) as recording:
        yield recording


def kept(store: Store, recording: Recording) -> list[Turn]:
    id_ = recording.settle()
    assert id_ is not None
    return [*store.conversations.turns(id_)]


def test_n3_a_draft_is_less_than_4_kib_behind(store: Store, recording: Recording) -> None:
    recording.begin([QUESTION, DRAFT])
    sent = ""
    for _ in range(30):
        sent += "é" * 500
        recording.add("é" * 500)
        text = kept(store, recording)[-1].text

        assert sent.startswith(text)
        assert len(sent.encode()) - len(text.encode()) < BEHIND_BYTES
    assert kept(store, recording)[-1].verdict == "interrupted"


def test_n3_a_draft_of_one_text_is_written_when_nothing_follows(store: Store, recording: Recording) -> None:
    recording.begin([QUESTION, DRAFT])
    recording.add("Because")
    deadline_s = time.monotonic() + 30

    while kept(store, recording)[-1].text != "Because":
        assert time.monotonic() < deadline_s


def test_what_ended_is_what_is_kept(store: Store, recording: Recording) -> None:
    recording.begin([QUESTION, DRAFT])
    recording.add("Beca")
    recording.end(ended("Because."))

    assert kept(store, recording) == [QUESTION, ended("Because.")]


def test_n14_a_store_that_fails_is_told_of_once_and_then_has_it_all(
    store: Store, recording: Recording, told: list[str]
) -> None:
    recording.begin([QUESTION, DRAFT])
    recording.settle()
    path = config.home() / "flowgpt.db"
    os.rename(path, path.with_suffix(".moved"))
    recording.end(ended("Because."))  # this is the call that learns of it
    recording.settle()

    assert len(told) == 1
    assert told[0].startswith("flowgpt: this conversation is not being saved: ")

    turns = [QUESTION, ended("Because."), replace(QUESTION, text="And?"), DRAFT]
    recording.begin(turns)
    assert kept(store, recording) == turns
    assert told[1:] == ["flowgpt: this conversation is being saved again"]


def test_what_was_deleted_meanwhile_is_kept_anew(store: Store, recording: Recording, told: list[str]) -> None:
    recording.begin([QUESTION, DRAFT])
    first = recording.settle()
    assert first is not None
    store.conversations.delete([first])
    recording.end(ended("Because."))
    turns = [QUESTION, ended("Because."), replace(QUESTION, text="And?"), DRAFT]
    recording.begin(turns)

    assert kept(store, recording) == turns
    assert recording.settle() != first


def test_closing_writes_what_could_not_be_written(store: Store, told: list[str]) -> None:
    path = config.home() / "flowgpt.db"
    with contextlib.closing(Recording(store, told.append)) as recording:
        os.rename(path, path.with_suffix(".moved"))
        recording.begin([QUESTION, DRAFT])
        recording.settle()
        assert len(told) == 1
    [conversation] = store.conversations.list()

    assert [*store.conversations.turns(conversation.id)] == [QUESTION, DRAFT]
