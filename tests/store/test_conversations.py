"""Conversations: what is kept of them, branches, drafts, search, and what is left of those that were deleted."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.conversation import Conversation
from flowgpt.errors import InvalidRequestError, StoreError
from flowgpt.store import Store, rows
from flowgpt.store.conversations import Conversations

from .conftest import ANSWER, DRAFT, QUESTION, outside, run, said

EXAMPLES = settings(max_examples=60)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversations]:
    """One for many examples."""
    with contextlib.closing(Store(tmp_path_factory.mktemp("shared") / "flowgpt.db")) as opened:
        yield opened.conversations


def texts(conversations: Conversations, id_: str) -> list[str]:
    return [turn.text for turn in conversations.turns(id_)]


# --- while somebody talks -------------------------------------------------------------------------------------------


def test_a_conversation_is_kept_as_it_was_and_survives_a_restart(kept: Store, path: Path) -> None:
    id_ = kept.conversations.add(None, 0, [QUESTION, ANSWER])
    assert kept.conversations.add(id_, 2, [said("And at night?"), replace(ANSWER, text="Dark.")]) == id_
    turns = kept.conversations.turns(id_)
    assert turns == [QUESTION, ANSWER, said("And at night?"), replace(ANSWER, text="Dark.")]
    kept.close()
    with contextlib.closing(Store(path)) as again:
        assert again.conversations.turns(id_) == turns
        assert again.conversations.find(id_) == Conversation(
            id=id_,
            title="Why is the sky blue?",
            created_s=100.0,
            updated_s=101.0,
            count=4,
            model="gpt",
            system="Be brief.",
            parameters=ANSWER.parameters,
        )


def test_n3_a_draft_is_interrupted_from_the_start_and_has_what_came(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [QUESTION, DRAFT])
    for piece in ("Ray", "leigh", " 散乱"):
        conversations.draft(id_, 1, piece)
    assert conversations.turns(id_) == [QUESTION, replace(DRAFT, text="Rayleigh 散乱")]
    conversations.end(id_, 1, ANSWER)
    assert conversations.turns(id_) == [QUESTION, ANSWER]
    assert conversations.find(id_).updated_s == 103.5


def test_n3_an_answer_that_is_begun_again_is_a_draft_again(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [QUESTION, DRAFT])
    conversations.end(id_, 1, replace(DRAFT, verdict="truncated", code="rate_limited"))
    conversations.draft(id_, 1, "Ray")
    assert conversations.turns(id_)[1] == replace(DRAFT, text="Ray")


def test_n4_a_draft_need_not_be_synced_where_the_file_cannot_be_damaged_by_that(kept: Store) -> None:
    """In a rollback journal it could be, so there it is synced."""
    id_ = kept.conversations.add(None, 0, [QUESTION, DRAFT])
    kept.conversations.draft(id_, 1, "Ray")
    with kept._connection.use() as connection:
        [[mode]] = connection.execute("PRAGMA journal_mode").fetchall()
        assert connection.execute("PRAGMA synchronous").fetchall() == [(1 if mode == "wal" else 2,)]
    kept.conversations.end(id_, 1, ANSWER)
    with kept._connection.use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]


@pytest.mark.parametrize("act", ["add", "add behind more", "draft", "end", "branch", "branch of more", "turns"])
def test_what_is_not_there_is_said(act: str, conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [QUESTION])
    acts: dict[str, Callable[[], object]] = {
        "add": lambda: conversations.add("nothing", 0, [QUESTION]),
        "add behind more": lambda: conversations.add(id_, 2, [QUESTION]),
        "draft": lambda: conversations.draft(id_, 1, "Ray"),
        "end": lambda: conversations.end("nothing", 0, ANSWER),
        "branch": lambda: conversations.branch("nothing", 0),
        "branch of more": lambda: conversations.branch(id_, 2),
        "turns": lambda: conversations.turns("nothing"),
    }
    with pytest.raises(InvalidRequestError, match=r"no conversation|no turn 1|has 1 turns, not 2"):
        acts[act]()
    assert conversations.turns(id_) == [QUESTION]
    assert len(conversations.list()) == 1


def test_n14_a_file_that_was_replaced_is_said_once(kept: Store, path: Path) -> None:
    id_ = kept.conversations.add(None, 0, [QUESTION])
    path.unlink()
    with pytest.raises(StoreError, match="was replaced while it was open"):
        kept.conversations.add(id_, 1, [QUESTION])
    assert kept.conversations.list() == []
    kept.conversations.add(None, 0, [QUESTION])
    assert len(kept.conversations.list()) == 1


def test_n3_after_kill_9_at_any_moment_nothing_that_was_acknowledged_is_lost() -> None:
    """Twenty kills of `make crash`, which has a thousand, and looks at how far behind a draft is too."""
    done = subprocess.run(
        [sys.executable, "-m", "load", "crash", "20", "60"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert "  nothing is lost" in done.stdout.splitlines()
    assert done.returncode == 0


# --- any text -------------------------------------------------------------------------------------------------------

ANY = st.text(alphabet=st.characters(codec=None)) | st.sampled_from(["\0", "\ud83d", "a\0b", "\r\n", "' OR 1 --"])


@EXAMPLES
@given(text=ANY, more=ANY, system=ANY, model=ANY, code=ANY, parameters=st.dictionaries(ANY, ANY | st.none()))
def test_n11_any_text_comes_back_but_for_nul_and_half_surrogates(
    text: str, more: str, system: str, model: str, code: str, parameters: dict[str, str], shared: Conversations
) -> None:
    turn = replace(DRAFT, text=text, system=system, model=model, code=code, parameters=parameters)
    id_ = shared.add(None, 0, [said(text), turn])
    shared.draft(id_, 1, more)
    [question, answer] = shared.turns(id_)
    assert question.text == rows.clean(text)
    assert answer == replace(
        turn,
        text=rows.clean(text) + rows.clean(more),
        system=rows.clean(system),
        model=rows.clean(model),
        code=rows.clean(code),
    )
    shared.end(id_, 1, replace(turn, verdict="complete"))
    assert shared.turns(id_)[1].text == rows.clean(text)
    shared.search(text, 3)
    shared.delete([text, id_])


# --- finding --------------------------------------------------------------------------------------------------------


def test_one_is_found_by_the_beginning_of_its_id(conversations: Conversations) -> None:
    for id_ in ("abcdefghij", "abcxyzxyzx", "abc"):
        conversations.put(Conversation(id=id_, title=id_, created_s=1.0, updated_s=2.0), [QUESTION])
    assert conversations.find("abcd").id == "abcdefghij"
    assert conversations.find("abc").id == "abc"
    with pytest.raises(InvalidRequestError, match="more than one conversation begins with 'ab': abc, abcx"):
        conversations.find("ab")
    with pytest.raises(InvalidRequestError, match="there is no conversation 'abcdefghix'; did you mean abcdefghij"):
        conversations.find("abcdefghix")


@pytest.mark.parametrize("wanted", ["", "%", "_", "a%", "\0", "\ud800", "' OR 1 --"])
def test_m7_a_wrong_id_finds_nothing(wanted: str, conversations: Conversations) -> None:
    conversations.add(None, 0, [QUESTION])
    with pytest.raises(InvalidRequestError, match="there is no conversation"):
        conversations.find(wanted)


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("rayleigh", [1]),
        ("RAYLEIGH", [1]),
        ("ayle", [1]),
        ("sky blue", [0, 3]),
        ("blue sky", [0, 3]),
        ("sky rayleigh", []),
        ("散乱", [2]),
        ("レイリー散乱", [2]),
        ("乱", [2]),
        ("is", [0, 2, 3]),
        ("is 散乱", [2]),
        ("небо", [2]),
        ("НЕБО", [2]),
        ("100%", [3]),
        ("%", [3]),
        ('"quoted', [3]),
        ("", []),
        (" \n", []),
        ("nothing", []),
    ],
)
def test_words_are_found_in_any_language_and_by_their_parts(
    words: str, places: list[int], conversations: Conversations
) -> None:
    turns = [QUESTION, ANSWER, said("This is レイリー散乱, небо"), said('sky: 100% "quoted" blue, is it?')]
    id_ = conversations.add(None, 0, turns)
    found = conversations.search(words, 10)
    assert [turn.place for turn in found] == places
    assert {turn.conversation.id for turn in found} <= {id_}


@pytest.mark.parametrize(
    "words", ["a OR b", 'sky" OR "blue', "sky AND", "NEAR(sky blue)", "sky*", "^sky", "text:sky", '"', "(", "-sky", "+"]
)
def test_m7_words_are_never_a_query(words: str, conversations: Conversations) -> None:
    conversations.add(None, 0, [QUESTION])
    assert conversations.search(words, 10) == []
    conversations.add(None, 0, [said(f"He said {words} and no more")])
    assert [found.excerpt for found in conversations.search(words, 10)] == [f"He said {words} and no more"]


@EXAMPLES
@given(said_=st.lists(st.text("abcAB \n", max_size=12), max_size=5), words=st.text("abcAB ", max_size=6))
def test_search_finds_what_reading_everything_would_find(said_: list[str], words: str, shared: Conversations) -> None:
    id_ = shared.add(None, 0, [said("?"), *map(said, said_)])
    expected = [
        place
        for place, text in enumerate(said_, 1)
        if words.split() and all(word.casefold() in text.casefold() for word in words.split())
    ]
    assert [found.place for found in shared.search(words, 100)] == expected
    shared.delete([id_])


def test_n3_a_draft_is_found_while_it_grows_and_what_it_has_become_after_it(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [QUESTION, DRAFT])
    conversations.draft(id_, 1, "Half of a sen")
    conversations.draft(id_, 1, "tence")
    assert [found.place for found in conversations.search("sentence", 9)] == [1]
    conversations.end(id_, 1, ANSWER)
    assert conversations.search("sentence", 9) == []
    assert [found.place for found in conversations.search("rayleigh", 9)] == [1]


def test_search_gives_as_many_as_asked_for_the_latest_first(conversations: Conversations) -> None:
    ids = [conversations.add(None, 0, [QUESTION]) for _ in range(4)]
    assert [found.conversation.id for found in conversations.search("sky", 3)] == ids[:0:-1]
    assert len(conversations.search("sky", 10**30)) == len(conversations.list(10**30)) == 4


# --- in and out -----------------------------------------------------------------------------------------------------


def test_what_is_imported_keeps_its_id_and_times_and_is_taken_once(conversations: Conversations) -> None:
    one = Conversation(id="mine-1", title="A title", created_s=5.0, updated_s=6.0, count=2, branch_of="gone")
    assert conversations.put(one, [QUESTION, DRAFT])
    assert conversations.find("mine-1") == one
    assert not conversations.put(replace(one, title="Another"), [QUESTION])
    assert conversations.find("mine-1") == one
    conversations.put(replace(one, id=""), [QUESTION])
    assert len({found.id for found in conversations.list()} - {"", "mine-1"}) == 1


@pytest.mark.parametrize("id_", ["../../etc/passwd", "a b", "a" * 65, "\ud800", "a\n", "é"])
def test_m6_an_imported_id_is_plain(id_: str, conversations: Conversations) -> None:
    with pytest.raises(InvalidRequestError, match="an id has"):
        conversations.put(Conversation(id=id_, title="", created_s=1.0, updated_s=1.0), [])
    assert conversations.list() == []


SECRET = "mŷ dàrkest sécret"


def left(path: Path, word: str) -> list[str]:
    """The files beside the store, and itself, which have the word or any three letters of it, as the index has them."""
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    parts = [word, *(word[start : start + 3] for start in range(len(word) - 2))]
    special = [part.encode() for part in parts if not part.isascii()]
    return [name for name, data in files.items() if any(part in data for part in special)]


def test_n18_nothing_of_what_is_deleted_is_in_the_file_while_it_is_open(kept: Store, path: Path) -> None:
    conversations = kept.conversations
    turns = [said(SECRET), said(SECRET * 99), replace(ANSWER, system=SECRET), DRAFT]
    ids = [conversations.add(None, 0, turns) for _ in range(4)]
    for id_ in ids:
        conversations.draft(id_, 3, SECRET * 99)
    conversations.end(ids[0], 3, replace(ANSWER, text=SECRET * 9))
    other = conversations.add(None, 0, [QUESTION])
    assert left(path, SECRET) != []
    assert conversations.delete([*ids, "nothing"]) == 4
    assert left(path, SECRET) == []
    assert conversations.search("sky", 9)[0].conversation.id == other
    assert [found.id for found in conversations.list()] == [other]
    with outside(path) as reader:
        assert reader.execute("SELECT count(*) FROM drafts").fetchall() == [(0,)]
        reader.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_n18_the_words_of_a_draft_are_not_in_the_file_when_its_answer_has_others(kept: Store, path: Path) -> None:
    id_ = kept.conversations.add(None, 0, [QUESTION, DRAFT])
    kept.conversations.draft(id_, 1, SECRET)
    kept.conversations.end(id_, 1, ANSWER)
    kept.close()
    assert left(path, SECRET) == []


def test_n18_those_that_are_older_than_wanted_are_deleted_and_the_file_gets_smaller(kept: Store, path: Path) -> None:
    conversations = kept.conversations
    for number in range(20):
        conversations.add(None, 0, [replace(said("words " * 2000), created_s=float(number))])
    with outside(path) as reader:
        [[before]] = reader.execute("PRAGMA page_count").fetchall()
    assert conversations.delete_older(18.0) == 18
    assert [found.updated_s for found in conversations.list()] == [19.0, 18.0]
    assert conversations.delete_older(18.0) == 0
    with outside(path) as reader:
        assert reader.execute("PRAGMA page_count").fetchall() < [(before // 3,)]


def test_a_branch_outlives_what_it_is_a_branch_of(conversations: Conversations) -> None:
    id_ = conversations.add(None, 0, [QUESTION, ANSWER])
    branch = conversations.branch(id_, 2)
    conversations.delete([id_])
    assert conversations.turns(branch) == [QUESTION, ANSWER]
    assert [found.conversation.id for found in conversations.search("rayleigh", 9)] == [branch]


def test_figures_are_of_all_that_is_there(conversations: Conversations, path: Path) -> None:
    assert (conversations.stats().turns, conversations.stats().first_s, conversations.latest()) == (0, None, None)
    id_ = conversations.add(None, 0, [QUESTION, ANSWER])
    conversations.add(None, 0, [replace(QUESTION, text="é" * 5, created_s=50.0), replace(DRAFT, created_s=60.0)])
    conversations.add(id_, 2, [replace(ANSWER, model="other"), replace(ANSWER, text="")])
    stats = conversations.stats()
    assert (stats.conversations, stats.turns, stats.first_s, stats.last_s) == (2, 6, 50.0, 101.0)
    assert stats.characters == len(QUESTION.text) + 2 * len(ANSWER.text) + 5
    assert list(stats.models.items()) == [("gpt", 2), ("other", 1)]
    assert stats.file_bytes >= os.stat(path).st_size > 0


# --- what can break -------------------------------------------------------------------------------------------------


def test_n5_on_a_full_disk_a_conversation_is_as_it_was_and_goes_on_when_there_is_room(path: Path) -> None:
    """The disk is a limit on a file's size, at every few kilobytes of what one call writes."""
    said = run(
        path,
        """
import resource
from flowgpt.conversation import Turn
from flowgpt.errors import StoreError
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
question = Turn(role="user", text="Why?", created_s=1.0)
draft = Turn(role="assistant", text="", created_s=1.0, verdict="interrupted")
answer = Turn(role="assistant", text="Because " * 3000, created_s=1.0, verdict="complete")
kept = store.conversations
codes, done, size = set(), 0, Path(sys.argv[1]).stat().st_size
for room in range(-size, 120_000, 6_000):
    id_ = kept.add(None, 0, [question, draft])
    turns = kept.turns(id_)
    for act in (lambda: kept.draft(id_, 1, "x" * 9000), lambda: kept.end(id_, 1, answer), lambda: kept.delete([id_])):
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(0, Path(sys.argv[1]).stat().st_size + room), most))
        try:
            act()
            done += 1
        except StoreError as error:
            codes.add(error.code)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            assert kept.turns(id_) == turns
            act()
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        turns = kept.turns(id_) if kept.list() else []
    assert kept.list() == [] and kept.search("because", 9) == []
print(*sorted(codes), done > 9)
""",
    )
    # Of a limit or a quota, SQLite's index of words says no more than "disk I/O error".
    assert said in ("store_full True\n", "store_error store_full True\n")


def test_conversations_of_a_closed_store_say_so(kept: Store) -> None:
    kept.close()
    with pytest.raises(StoreError, match="the store is closed"):
        kept.conversations.list()
