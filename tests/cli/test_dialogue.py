"""A conversation that goes on: what the model is sent, what is kept, and how it goes on after every kind of end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt import Client, config
from flowgpt.cli.dialogue import Dialogue, saved
from flowgpt.conversation import Turn
from flowgpt.errors import RateLimitError
from flowgpt.messages import Messages
from flowgpt.providers.base import AsyncGeneratorProvider
from flowgpt.reply import Reply, TextSource
from flowgpt.store import Store

from .conftest import Write


class Echo(AsyncGeneratorProvider):
    """Answers "re: " and the question, two texts; what is asked "fail" fails, and "cut" fails after its first text."""

    @classmethod
    async def create_async_generator(  # type: ignore[override]  # a stranger's bare form
        cls, model: str = "", messages: Messages = (), *_: Any, **__: Any
    ) -> AsyncIterator[str]:
        question = messages[-1]["content"]
        if question == "fail":
            raise RateLimitError("slower", status_code=429)
        yield "re: "
        if question == "cut":
            raise RateLimitError("slower", status_code=429)
        yield question


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store()) as store:
        yield store


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def dialogue(store: Store, told: list[str]) -> Iterator[Dialogue]:
    with talking(store, told) as dialogue:
        yield dialogue


@contextlib.contextmanager
def talking(store: Store | None, told: list[str], **how: Any) -> Iterator[Dialogue]:
    with Client(provider=Echo) as client, contextlib.closing(Dialogue(client, store, tell=told.append, **how)) as it:
        yield it


def said(turns: Sequence[Turn]) -> list[str]:
    return [f"{turn.role[0]} {turn.text}" + (f" [{turn.verdict}]" if turn.verdict else "") for turn in turns]


def test_question_and_answer_are_kept_with_how_it_went(dialogue: Dialogue, store: Store) -> None:
    dialogue.system, dialogue.temperature, dialogue.model = "Be brief.", 0.2, "gemini"

    assert [*dialogue.ask("one")] == ["re: ", "one"]

    assert dialogue.id is not None
    question, answer = store.conversations.turns(dialogue.id)
    assert (question.role, question.text, question.verdict) == ("user", "one", "")
    assert (answer.text, answer.model, answer.system, dict(answer.parameters), answer.verdict, answer.code) == (
        "re: one",
        "gemini",
        "Be brief.",
        {"temperature": 0.2},
        "complete",
        "",
    )
    assert answer.first_text_s is not None
    assert answer.total_s is not None
    assert dialogue.turns == [question, answer]


def test_the_model_is_sent_what_was_said_before(dialogue: Dialogue) -> None:
    seen: list[Messages] = []

    class Seeing(Echo):
        @classmethod
        async def create_async_generator(  # type: ignore[override]
            cls, model: str = "", messages: Messages = (), *_: Any, **__: Any
        ) -> AsyncIterator[str]:
            seen.append(messages)
            yield "yes"

    with Client(provider=Seeing) as client, contextlib.closing(Dialogue(client, None, tell=print)) as talk:
        talk.greet("Hello.")
        for question in ("one", "two"):
            [*talk.ask(question)]

    assert [message["content"] for message in seen[-1]] == ["Hello.", "one", "yes", "two"]


@pytest.mark.parametrize(("question", "kept"), [("fail", ""), ("cut", "re: ")])
def test_a_failure_is_kept_as_far_as_it_came_and_raised(
    question: str, kept: str, dialogue: Dialogue, store: Store
) -> None:
    with pytest.raises(RateLimitError):
        [*dialogue.ask(question)]

    assert dialogue.id is not None
    answer = store.conversations.turns(dialogue.id)[-1]
    assert (answer.text, answer.verdict, answer.code) == (kept, "truncated", "rate_limited")
    assert [*dialogue.ask("on")] == ["re: ", "on"]


def test_what_is_left_early_is_interrupted(dialogue: Dialogue, store: Store) -> None:
    with contextlib.closing(dialogue.ask("one")) as texts:
        assert next(texts) == "re: "

    assert dialogue.id is not None
    assert said(store.conversations.turns(dialogue.id)) == ["u one", "a re:  [interrupted]"]


def test_a_question_without_a_word_of_an_answer_is_asked_again_in_its_place(dialogue: Dialogue, store: Store) -> None:
    for _ in range(3):
        with pytest.raises(RateLimitError):
            [*dialogue.ask("fail")]

    assert dialogue.id is not None
    assert said(store.conversations.turns(dialogue.id)) == ["u fail", "a  [truncated]"]
    assert len(store.conversations.list()) == 1


def test_what_is_said_after_an_undo_is_a_branch_and_nothing_is_lost(dialogue: Dialogue, store: Store) -> None:
    [*dialogue.ask("one")]
    [*dialogue.ask("two")]
    first = dialogue.id
    taken = dialogue.undo()
    [*dialogue.ask("three")]

    assert taken is not None
    assert taken.text == "two"
    assert dialogue.id != first
    assert first is not None
    assert dialogue.id is not None
    assert said(store.conversations.turns(first)) == [
        "u one", "a re: one [complete]", "u two", "a re: two [complete]",
    ]  # fmt: skip
    assert said(store.conversations.turns(dialogue.id)) == [
        "u one", "a re: one [complete]", "u three", "a re: three [complete]",
    ]  # fmt: skip
    assert store.conversations.find(dialogue.id).branch_of == first


def test_what_was_taken_back_at_the_end_is_not_there_tomorrow(store: Store, told: list[str]) -> None:
    with talking(store, told) as dialogue:
        [*dialogue.ask("one")]
        first = dialogue.id
        [*dialogue.ask("two")]
        dialogue.undo()
    latest = store.conversations.latest()

    assert latest is not None
    assert latest.branch_of == first
    assert latest.id == dialogue.id
    assert said(store.conversations.turns(latest.id)) == ["u one", "a re: one [complete]"]
    assert len(store.conversations.turns(first or "")) == 4


def test_what_was_taken_back_as_a_whole_leaves_nothing_new(store: Store, told: list[str]) -> None:
    with talking(store, told) as dialogue:
        dialogue.greet("Hello.")
        [*dialogue.ask("one")]
        dialogue.undo()

    assert len(store.conversations.list()) == 1


def test_a_draft_says_how_it_was_asked_for(store: Store, told: list[str]) -> None:
    """So that a conversation goes on as it was after a kill during its first answer."""
    with talking(store, told, model="gemini", system="Be brief.", temperature=0.2) as dialogue:
        texts = dialogue.ask("one")
        next(texts)
        assert dialogue.id is not None
        draft = store.conversations.find(dialogue.id)
        texts.close()

    assert (draft.model, draft.system, draft.parameters["temperature"]) == ("gemini", "Be brief.", 0.2)


def test_a_draft_says_who_was_asked_when_no_model_was_named(store: Store, told: list[str]) -> None:
    with talking(store, told, default_model="gpt-3.5-turbo") as dialogue:
        texts = dialogue.ask("one")
        next(texts)
        assert dialogue.id is not None
        draft = store.conversations.turns(dialogue.id)[-1]
        texts.close()

    assert (draft.verdict, draft.model) == ("interrupted", "gpt-3.5-turbo")


def test_an_undo_of_nothing_takes_nothing_back(dialogue: Dialogue) -> None:
    dialogue.greet("Hello.")

    assert dialogue.undo() is None
    assert said(dialogue.turns) == ["a Hello."]


def test_a_fork_leaves_the_conversation_as_it_is(dialogue: Dialogue, store: Store) -> None:
    [*dialogue.ask("one")]
    first = dialogue.id
    other = dialogue.fork()
    [*dialogue.ask("two")]

    assert first is not None
    assert other == dialogue.id != first
    assert len(store.conversations.turns(first)) == 2
    assert len(dialogue.turns) == 4


def test_a_greeting_is_kept_with_the_first_question(dialogue: Dialogue, store: Store) -> None:
    dialogue.greet("Hello, I am Ada.")
    assert dialogue.id is None
    [*dialogue.ask("one")]

    assert dialogue.id is not None
    assert said(store.conversations.turns(dialogue.id)) == ["a Hello, I am Ada.", "u one", "a re: one [complete]"]
    assert store.conversations.find(dialogue.id).title == "one"


def test_a_conversation_goes_on_as_it_was_asked(store: Store, told: list[str]) -> None:
    with talking(store, told, model="gemini", system="Be brief.", temperature=0.0) as before:
        [*before.ask("one")]
    conversation = store.conversations.latest()
    assert conversation is not None

    with talking(store, told) as after:
        after.resume(conversation, store.conversations.turns(conversation.id))
        [*after.ask("two")]

        assert (after.model, after.system, after.temperature) == ("gemini", "Be brief.", 0.0)
        assert after.id == before.id

    with talking(store, told, model="gpt-4-turbo", system="Be long.", temperature=1.0) as other:
        other.resume(conversation, store.conversations.turns(conversation.id))
        [*other.ask("three")]

        assert (other.model, other.system, other.temperature) == ("gpt-4-turbo", "Be long.", 1.0)
    assert told == []


def test_m6_a_conversation_of_a_stranger_does_not_say_where_to_or_break_the_talk(store: Store, told: list[str]) -> None:
    """Its turns, and the key, would be sent to whoever made the file that was imported."""
    sent: dict[str, Any] = {"base_url": "http://evil.example", "proxy": "http://evil.example", "api_key": "k"}
    wrong = {"model": ["x"], "temperature": {"a": 1}, "user_name": 5, "stream": False, "messages": []}
    answer = Turn(
        role="assistant", text="a", created_s=1, model="m", verdict="complete", parameters=sent | wrong | {"nsfw": True}
    )
    id_ = store.conversations.add(None, 0, [Turn(role="user", text="q", created_s=1), answer])
    with talking(store, told) as dialogue:
        dialogue.resume(store.conversations.find(id_), store.conversations.turns(id_))
        [*dialogue.ask("one")]

        assert (dialogue.model, dialogue.temperature, dialogue.options) == ("m", None, {"nsfw": True})
        assert dialogue.id == id_
    assert told == []


def test_an_alias_is_asked_for_again(store: Store, told: list[str]) -> None:
    class Named(Echo):
        @classmethod
        def stream(cls, model: str = "", messages: Messages = (), **options: Any) -> Reply:
            asked.append(model)
            return Reply(TextSource(cls.create_async_generator(model, messages)), model="its own name")

    asked: list[str] = []
    with Client(provider=Named) as client, contextlib.closing(Dialogue(client, store, tell=told.append)) as before:
        before.model = "alias"
        [*before.ask("one")]
    conversation = store.conversations.latest()
    assert conversation is not None
    for model in ("", "other"):
        with Client(provider=Named) as client, contextlib.closing(Dialogue(client, store, tell=told.append)) as after:
            after.model = model
            after.resume(conversation, store.conversations.turns(conversation.id))
            [*after.ask("two")]

    assert conversation.model == "its own name"
    assert asked == ["alias", "alias", "other"]


def test_n12_two_that_go_on_from_the_same_turn_lose_nothing(store: Store, told: list[str]) -> None:
    with talking(store, told) as one, talking(store, told) as other:
        [*one.ask("first")]
        assert one.id is not None
        conversation = store.conversations.find(one.id)
        other.resume(conversation, store.conversations.turns(conversation.id))
        [*one.ask("mine")]
        [*other.ask("yours")]

        assert one.id is not None
        assert other.id is not None
        assert one.id == conversation.id != other.id
        kept = {id_: said(store.conversations.turns(id_))[2::2] for id_ in (one.id, other.id)}
        assert kept == {one.id: ["u mine"], other.id: ["u yours"]}


def test_without_a_store_the_talk_is_the_same(told: list[str]) -> None:
    with talking(None, told) as talk:
        [*talk.ask("one")]

        assert talk.id is None
        assert talk.fork() is None
        assert len(talk.turns) == 2


def test_what_is_not_to_be_saved_is_not(configure: Write, told: list[str]) -> None:
    with saved(told.append, wanted=False) as store:
        assert store is None
    configure("[history]\nsave = false\n")
    with saved(told.append) as store:
        assert store is None
    assert told == []


@pytest.mark.usefixtures("unwritable_home")
def test_n6_a_store_that_cannot_be_opened_is_told(told: list[str]) -> None:
    with saved(told.append) as store:
        assert store is None

    assert len(told) == 1
    assert told[0].startswith("flowgpt: this conversation is not being saved: ")


def test_n18_what_is_older_than_wanted_goes(store: Store, configure: Write, told: list[str]) -> None:
    for created_s in (1.0, 4e9):
        store.conversations.add(None, 0, [Turn(role="user", text="old?", created_s=created_s)])
    configure("[history]\nretention_days = 30\n")

    with saved(told.append) as kept:
        assert kept is not None
        assert [conversation.created_s for conversation in kept.conversations.list()] == [4e9]


def test_n18_that_the_old_cannot_be_deleted_does_not_mean_that_nothing_is_saved(
    store: Store, configure: Write, told: list[str]
) -> None:
    store.conversations.add(None, 0, [Turn(role="user", text="old?", created_s=1.0)])
    configure("[history]\nretention_days = 30\n")
    with contextlib.closing(sqlite3.connect(config.home() / "flowgpt.db")) as other:
        other.execute("CREATE TRIGGER no BEFORE DELETE ON conversations BEGIN SELECT raise(ABORT, 'no'); END")

    with saved(told.append) as kept:
        assert kept is not None

    assert [line.partition(": ")[2].partition(":")[0] for line in told] == ["old conversations are not deleted"]


STEPS = st.lists(st.sampled_from(["one", "two", "fail", "cut", "leave", "undo", "fork", "reopen"]), max_size=12)


@pytest.mark.slow
@given(STEPS)
def test_n12_the_store_has_what_was_said_whatever_happens(steps: list[str]) -> None:
    """And whatever was said at any time is still there in the end."""
    ever: set[tuple[str, str]] = set()
    with contextlib.closing(Store()) as store, contextlib.ExitStack() as stack:
        talk = stack.enter_context(talking(store, []))
        for step in steps:
            if step == "undo":
                talk.undo()
            elif step == "fork":
                talk.fork()
            elif step == "reopen":
                if talk.id is not None and talk.turns:
                    conversation, turns = store.conversations.find(talk.id), store.conversations.turns(talk.id)
                    talk = stack.enter_context(talking(store, []))
                    talk.resume(conversation, turns)
            elif step == "leave":
                with contextlib.closing(talk.ask("leave")) as texts:
                    next(texts)
            else:
                with contextlib.suppress(RateLimitError):
                    [*talk.ask(step)]
            if step not in ("undo", "fork", "reopen"):
                assert talk.id is not None
                assert [*store.conversations.turns(talk.id)] == talk.turns
            ever |= {(turn.role, turn.text) for turn in talk.turns if turn.text}
        ids = [conversation.id for conversation in store.conversations.list()]
        assert ever <= {(turn.role, turn.text) for id_ in ids for turn in store.conversations.turns(id_)}
        store.conversations.delete(ids)
