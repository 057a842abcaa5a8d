"""`flowgpt history` as people meet it: what it shows, what it finds, and what it deletes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from rich.cells import cell_len

from flowgpt import config
from flowgpt.cli import streams
from flowgpt.conversation import Conversation, Turn
from flowgpt.store import Store
from tests.cli.conftest import Invoke, Start

NOW = 1_767_254_400.0
NASTY = "\x1b]0;owned\x07\x1b[2J\u202etitle\x9b31m\nline 2\r"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("TZ", "UTC")
    with contextlib.closing(Store()) as opened:
        yield opened


def keep(
    store: Store, id_: str, *texts: str, title: str = "a title", at: float = NOW, model: str = "gpt-4-turbo"
) -> tuple[Conversation, list[Turn]]:
    """A conversation of these texts, questions and answers in turn."""
    turns = [
        Turn(role="user", text=text, created_s=at)
        if place % 2 == 0
        else Turn(role="assistant", text=text, created_s=at, model=model, verdict="complete")
        for place, text in enumerate(texts)
    ]
    conversation = Conversation(id=id_, title=title, created_s=at, updated_s=at, count=len(turns))
    assert store.conversations.put(conversation, turns)
    return store.conversations.find(id_), turns


def on_terminal(start: Start, *args: str, columns: int) -> str:
    """What the program writes to a terminal of that width."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {"COLUMNS": "", "LINES": ""}
    with open(ours, "rb", buffering=0) as screen:
        child = start(*args, stdout=theirs, env=environment)
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the terminal's other end has gone
            while more := screen.read(65536):
                written += more
        assert child.wait(timeout=30) == 0
    return written.decode().replace("\r\n", "\n")


# --- list and show


@pytest.mark.parametrize("words", [["list"], ["show"], ["show", "latest"], ["export", "--all"]])
def test_where_nothing_is_kept_it_says_so_and_that_is_no_failure(invoke: Invoke, words: list[str]) -> None:
    result = invoke("history", *words)

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == ("" if "export" in words else "flowgpt: no conversation is kept yet\n")


def test_where_nothing_is_kept_there_is_nothing_to_find_to_count_or_to_delete(invoke: Invoke) -> None:
    assert json.loads(invoke("history", "list", "--json").stdout) == {"conversations": []}
    assert json.loads(invoke("history", "search", "x", "--json").stdout) == {"found": []}
    assert invoke("history", "search", "x").stderr == "flowgpt: nothing found\n"
    assert invoke("history", "stats").stdout.startswith("conversations      0\nturns              0\n")
    assert invoke("history", "delete", "--all").stderr == "flowgpt: there is nothing to delete\n"


def test_the_list_is_a_table_with_the_last_first_and_signs_of_two_cells_in_line(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "?", "!", title="What is the capital of France?", model="模型")
    keep(store, "b5nrx2hafe", "?", "!", "?", "!", title="東京 " * 10)

    assert invoke("history", "list").stdout == (
        "id          when              turns  model        title\n"
        f"b5nrx2hafe  2026-01-01 08:00  4      gpt-4-turbo  {'東京 ' * 9}東京\n"
        "kq3wz7tbmd  2026-01-01 08:00  2      模型         What is the capital of France?\n"
    )


def test_the_list_as_json_has_every_fact_and_only_so_many(store: Store, invoke: Invoke) -> None:
    there = [keep(store, f"aaaaaaaaa{sign}", "?", "!")[0] for sign in "abc"]

    listed = invoke("history", "list", "--json", "-n", "2")
    assert json.loads(listed.stdout) == {"conversations": [asdict(there[2]), asdict(there[1])]}
    assert listed.stderr == "flowgpt: the last 2; -n 0 lists all\n"
    assert len(json.loads(invoke("history", "list", "--json", "-n", "0").stdout)["conversations"]) == 3


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_list_fits_the_terminal_and_never_cuts_an_id(store: Store, start: Start, columns: int) -> None:
    keep(store, "kq3wz7tbmd", "?", "!", title="What is the capital of France, and who lives there now?")
    keep(store, "b5nrx2hafe", "?", "!", title="東京から京都まで何キロですか。" * 3, model="m" * 30)

    rows = on_terminal(start, "history", "list", columns=columns).splitlines()
    assert len(rows) == 3
    assert all(cell_len(row) <= columns for row in rows)
    assert [row.split()[0] for row in rows] == ["id", "b5nrx2hafe", "kq3wz7tbmd"]
    assert "東京" in rows[1]
    assert rows[1].endswith("…")
    assert "What is the" in rows[2]


def test_an_excerpt_fits_the_terminal_too(store: Store, start: Start) -> None:
    keep(store, "kq3wz7tbmd", "where is Paris " * 20, "!", title="x" * 60)

    rows = on_terminal(start, "history", "search", "paris", columns=40).splitlines()
    assert [cell_len(row) for row in rows] == [40, 40]


def test_a_conversation_is_shown_by_a_beginning_of_its_id_and_the_latest_by_itself(
    store: Store, invoke: Invoke
) -> None:
    keep(store, "kq3wz7tbmd", "What?", "That.")
    keep(store, "kb5nrx2haf", "Who?", "She.", title="")

    shown = invoke("history", "show", "kq")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == (
        "# a title\n\nkq3wz7tbmd · 2026-01-01 08:00 UTC · 2 turns\n\n## You\n\n> What?\n\n## gpt-4-turbo\n\n> That.\n"
    )
    assert invoke("history", "show").stdout == invoke("history", "show", "latest").stdout
    assert "> Who?" in invoke("history", "show").stdout
    for id_, words in [("k", "more than one"), ("zz", "there is no conversation 'zz'"), ("", "no conversation ''")]:
        refused = invoke("history", "show", id_)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert words in refused.stderr


def test_a_draft_is_shown_and_found_and_marked(store: Store, invoke: Invoke) -> None:
    asked = Turn(role="user", text="Tell me.", created_s=NOW)
    id_ = store.conversations.add(
        None, 0, [asked, Turn(role="assistant", text="", created_s=NOW, verdict="interrupted")]
    )
    store.conversations.draft(id_, 1, "Once upon")
    store.conversations.draft(id_, 1, " a time")

    assert invoke("history", "show").stdout.endswith(
        "## Answer\n\n> Once upon a time\n\n*The answer was stopped before its end.*\n"
    )
    assert json.loads(invoke("history", "search", "upon a", "--json").stdout)["found"][0]["place"] == 1


def test_shown_as_json_it_is_the_line_of_an_export(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "Où?", "Là.")

    shown = invoke("history", "show", "--json").stdout
    assert shown.isascii()
    assert json.loads(shown) == json.loads(invoke("history", "export", "--all", "-f", "jsonl").stdout)


# --- what must not reach a terminal


def test_e14_no_title_model_text_or_id_commands_the_terminal(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", NASTY, NASTY, title=NASTY, model=NASTY)

    for words in (
        ["list"], ["list", "--json"], ["show"], ["show", "--json"], ["search", "line"], ["search", "line", "--json"],
        ["stats"], ["stats", "--json"], ["show", NASTY], ["export", "--all"], ["export", "--all", "-f", "jsonl"],
        ["export", "--all", "-f", "openai"], ["delete", "--all", "-y"],
    ):  # fmt: skip
        result = invoke("history", *words)
        said = result.stdout + result.stderr
        assert said == streams.plain(said), words
        assert "title" in said or "stats" in words
    keep(store, "kq3wz7tbmd", NASTY)
    assert "\x1b[2J" in invoke("history", "show", "--raw").stdout


def test_e14_a_title_stays_on_its_line_of_the_list(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "?", title="one\nb5nrx2hafe  two\u2028three\x85four")

    assert len(invoke("history", "list").stdout.splitlines()) == 2


# --- search

WORDS = [
    "'", '"', '""', "%", "_", "*", "\\", "--", "'; DROP TABLE turns; --", "NEAR(a b)", "a OR b", "a AND NOT b",
    "text:a", "^a", "a*", "(", ")", "{x}", "+", "{0}", "%s", "${HOME}", "a\0b", "?1", "[a-z]", "c++",
    "100%", "snake_case",
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=[f"M7 {index}" for index in range(len(WORDS))])
def test_words_are_never_the_syntax_of_a_query(store: Store, invoke: Invoke, words: str) -> None:
    keep(store, "kq3wz7tbmd", f"before {words} after", "!")
    keep(store, "b5nrx2hafe", "nothing of that", "!", "?", "!")

    found = invoke("history", "search", "--json", "--", words)
    assert found.exit_code == 0
    assert [(each["conversation"]["id"], each["place"]) for each in json.loads(found.stdout)["found"]] == [
        ("kq3wz7tbmd", 0)
    ]


@pytest.mark.parametrize("id_", WORDS, ids=[f"M7 {index}" for index in range(len(WORDS))])
def test_an_id_is_never_the_syntax_of_a_query(store: Store, invoke: Invoke, id_: str) -> None:
    keep(store, "kq3wz7tbmd", "?", "!")

    for words in (["show"], ["export"], ["delete", "--yes"]):
        refused = invoke("history", *words, "--", id_)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("flowgpt: there is no conversation ")
    assert len(store.conversations.list()) == 1


def test_search_shows_the_conversation_once_and_the_turns_under_it(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "Is Paris big?", "PARIS is.", title="On Paris")

    assert invoke("history", "search", "paris").stdout == (
        "kq3wz7tbmd  2026-01-01 08:00  On Paris\n     1  Is Paris big?\n     2  PARIS is.\n"
    )
    assert invoke("history", "search", "paris", "-n", "1").stdout.count("\n") == 2


# --- stats, path


def test_stats_count_what_is_kept(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "four", "five5", model="a")
    keep(store, "b5nrx2hafe", "?", "!", "?", "!", at=NOW + 60, model="the-longest-of-names")

    counted = json.loads(invoke("history", "stats", "--json").stdout)
    size = counted.pop("file_bytes")
    assert counted == {
        "conversations": 2, "turns": 6, "characters": 13, "first_s": NOW, "last_s": NOW + 60,
        "models": {"the-longest-of-names": 2, "a": 1},
    }  # fmt: skip
    assert invoke("history", "stats").stdout == (
        "conversations                    2\nturns                            6\n"
        f"characters                       13\nbytes of the file                {size:,}\n"
        "first                            2026-01-01 08:00\nlast                             2026-01-01 08:01\n"
        "answers of the-longest-of-names  2\nanswers of a                     1\n"
    )


@pytest.mark.usefixtures("unwritable_home")
def test_the_path_is_told_even_where_no_file_can_be(invoke: Invoke) -> None:
    assert invoke("history", "path").stdout == f"{config.home() / 'flowgpt.db'}\n"


# --- delete


def test_nothing_is_deleted_before_somebody_says_yes(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "?", "!")

    asked = invoke("history", "delete", "kq", stdin="n\n")
    assert (asked.exit_code, asked.stdout) == (0, "")
    assert asked.stderr == "flowgpt: kq3wz7tbmd, 2 turns, 2026-01-01 08:00: a title\nDelete it? [y/N]: n\n"
    assert invoke("history", "delete", "kq").exit_code == 130, "nobody answers"
    assert len(store.conversations.list()) == 1

    agreed = invoke("history", "delete", "kq", stdin="y\n")
    assert agreed.stderr.endswith("Delete it? [y/N]: y\nflowgpt: deleted: 1\n")
    assert store.conversations.list() == []


def test_what_is_deleted_is_chosen_by_ids_by_age_or_all_of_it(store: Store, invoke: Invoke) -> None:
    for index in range(12):
        keep(store, f"aaaaaaaa{index:02}", "?", "!", at=NOW if index else time.time())

    assert invoke("history", "delete", "aaaaaaaa01", "aaaaaaaa01", "aaaaaaaa02", "-y").stderr.endswith("deleted: 2\n")
    assert [each.id for each in store.conversations.list()][-1] == "aaaaaaaa00"
    old = invoke("history", "delete", "--older-than", "1", stdin="n\n")
    assert "Delete it" not in old.stderr
    assert "Delete these 9? [y/N]: n" in old.stderr
    assert invoke("history", "delete", "--older-than", "1", "-y").stderr.endswith("deleted: 9\n")
    assert [each.id for each in store.conversations.list()] == ["aaaaaaaa00"]
    assert invoke("history", "delete", "--all", "-y").stderr.endswith("deleted: 1\n")
    assert store.conversations.list() == []


def test_of_many_that_are_to_be_deleted_ten_are_named(store: Store, invoke: Invoke) -> None:
    for index in range(12):
        keep(store, f"aaaaaaaa{index:02}", "?", "!")

    asked = invoke("history", "delete", "--all", stdin="n\n").stderr
    assert asked.count("a title") == 10
    assert asked.endswith("flowgpt: and 2 more\nDelete these 12? [y/N]: n\n")


@pytest.mark.parametrize("words", [[], ["kq", "--all"], ["--all", "--older-than", "3"], ["--older-than", "-1"]])
def test_what_is_to_be_deleted_is_said_in_one_way(store: Store, invoke: Invoke, words: list[str]) -> None:
    keep(store, "kq3wz7tbmd", "?", "!")

    assert invoke("history", "delete", "--yes", *words).exit_code == 2
    assert len(store.conversations.list()) == 1


def test_one_wrong_id_deletes_nothing(store: Store, invoke: Invoke) -> None:
    keep(store, "kq3wz7tbmd", "?", "!")

    assert invoke("history", "delete", "-y", "kq", "zz").exit_code == 2
    assert len(store.conversations.list()) == 1


# --- a file that cannot be used


@pytest.mark.parametrize("words", [["list"], ["show"], ["search", "x"], ["stats"], ["export", "--all"]])
def test_n7_n10_a_damaged_or_newer_file_is_exit_code_9_with_a_next_step(
    store: Store, invoke: Invoke, words: list[str]
) -> None:
    store.close()
    path = config.home() / "flowgpt.db"
    path.write_bytes(path.read_bytes()[:60] + struct.pack(">I", 999) + path.read_bytes()[64:])
    newer = invoke("history", *words)
    path.write_bytes(b"no database at all" * 1000)
    damaged = invoke("history", *words)

    assert [(result.exit_code, result.stdout) for result in (newer, damaged)] == [(9, "")] * 2
    assert "version 999" in newer.stderr
    assert "it is damaged" in damaged.stderr
    assert all("\nhint: " in result.stderr for result in (newer, damaged))


@pytest.mark.usefixtures("unwritable_home")
def test_n6_a_home_that_cannot_be_made_is_exit_code_9(start: Start) -> None:
    child = start("history", "list", stderr=subprocess.PIPE)
    said, words = child.communicate(timeout=30)
    assert (child.returncode, said) == (9, b"")
    assert b"\nhint: check" in words
