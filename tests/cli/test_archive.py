"""Conversations as files: nothing is overwritten unasked, nothing that is read does harm, and others may write."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowgpt import config
from flowgpt.cli import archive
from flowgpt.conversation import Conversation, Turn
from flowgpt.formats import transcripts
from flowgpt.store import Store
from tests.cli.conftest import Invoke, Start

NOW = 1_767_254_400.0


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store()) as opened:
        yield opened


def keep(store: Store, id_: str, *texts: str, title: str = "a title") -> None:
    turns = [
        Turn(role="assistant" if place % 2 else "user", text=text, created_s=NOW) for place, text in enumerate(texts)
    ]
    assert store.conversations.put(Conversation(id=id_, title=title, created_s=NOW, updated_s=NOW), turns)


def everything(store: Store) -> list[tuple[Conversation, list[Turn]]]:
    return [(each, [*store.conversations.turns(each.id)]) for each in store.conversations.list()]


# --- out and in again


def test_what_is_exported_is_imported_as_it_was_and_in_its_order(store: Store, invoke: Invoke, tmp_path: Path) -> None:
    draft = Turn(role="assistant", text="Onc", created_s=NOW, model="m", system="s", verdict="interrupted")
    keep(store, "aaaaaaaaaa", "Où?", "Là.\x1b\u202e")
    id_ = store.conversations.add(None, 0, [Turn(role="user", text="?", created_s=NOW), draft])
    store.conversations.draft(id_, 1, "e upon")
    store.conversations.branch("aaaaaaaaaa", 1)
    before = everything(store)

    assert invoke("history", "export", "--all", "-f", "jsonl", "-o", str(tmp_path / "out")).stderr == (
        f"flowgpt: 3 in {tmp_path / 'out'}\n"
    )
    again = invoke("history", "import", str(tmp_path / "out"))
    assert (again.exit_code, again.stderr) == (0, "flowgpt: imported 0, already here 3, refused 0\n")
    invoke("history", "delete", "--all", "-y")
    assert everything(store) == []
    imported = invoke("history", "import", "-", stdin=(tmp_path / "out").read_bytes())
    assert (imported.exit_code, imported.stdout) == (0, "")
    assert imported.stderr == "flowgpt: imported 3, already here 0, refused 0\n"
    assert everything(store) == before


def test_what_is_exported_for_openai_says_the_same_when_it_is_imported_elsewhere(store: Store, invoke: Invoke) -> None:
    keep(store, "aaaaaaaaaa", "one", "1")
    keep(store, "bbbbbbbbbb", "two", "2", "three", "3")
    lines = invoke("history", "export", "aaaaaaaaaa", "latest", "-f", "openai").stdout
    assert [len(json.loads(line)["messages"]) for line in lines.splitlines()] == [2, 4]

    assert invoke("history", "import", "-", stdin=lines).stderr == "flowgpt: imported 2, already here 0, refused 0\n"
    assert invoke("history", "import", "-", stdin=lines).stderr == "flowgpt: imported 0, already here 2, refused 0\n"
    assert [[turn.text for turn in turns] for _, turns in everything(store)[:2]] == [
        ["two", "2", "three", "3"],
        ["one", "1"],
    ]


def test_markdown_of_several_is_one_text(store: Store, invoke: Invoke, tmp_path: Path) -> None:
    keep(store, "aaaaaaaaaa", "one")
    keep(store, "bbbbbbbbbb", "two")

    shown = [invoke("history", "show", id_).stdout for id_ in ("aaaaaaaaaa", "bbbbbbbbbb")]
    assert invoke("history", "export", "--all").stdout == "\n".join(shown)
    invoke("history", "export", "--all", "-o", str(tmp_path / "out.md"))
    assert (tmp_path / "out.md").read_text("utf-8") == "\n".join(shown)


@pytest.mark.parametrize("words", [[], ["kq", "--all"], ["--all", "-f", "pdf"]])
def test_what_is_exported_and_how_is_said_in_one_way(invoke: Invoke, words: list[str]) -> None:
    assert invoke("history", "export", *words).exit_code == 2


# --- files


def test_n15_files_and_folders_are_their_owners_and_never_replaced_unasked(
    store: Store, invoke: Invoke, tmp_path: Path
) -> None:
    keep(store, "aaaaaaaaaa", "one")
    (file := tmp_path / "out.md").write_text("mine")
    (link := tmp_path / "link").symlink_to(file)
    for name in (file, link):
        refused = invoke("history", "export", "--all", "-o", str(name))
        assert (refused.exit_code, refused.stderr) == (
            2, f"flowgpt: {name} exists already\nhint: --force replaces a file\n",
        )  # fmt: skip
    (dangling := tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert invoke("history", "export", "--all", "-o", str(dangling)).exit_code == 2
    assert file.read_text() == "mine"

    assert invoke("history", "export", "--all", "-o", str(link), "--force").exit_code == 0
    assert (file.read_text(), link.is_symlink()) == ("mine", False), "the link made way, not what it points to"
    assert invoke("history", "export", "--all", "-o", str(tmp_path / "new") + "/").exit_code == 0
    [made] = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE(link.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    assert {path.name for path in tmp_path.iterdir()} >= {"out.md", "link", "new"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_file_is_never_replaced(store: Store, invoke: Invoke, tmp_path: Path) -> None:
    keep(store, "aaaaaaaaaa", "one")
    os.mkfifo(tmp_path / "pipe")
    refused = invoke("history", "export", "--all", "--force", "-o", str(tmp_path / "pipe"))
    assert refused.exit_code == 2
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    for path in (tmp_path / "no" / "folder", tmp_path / "no" / "folders" / ""):
        assert "cannot be made: No such file" in invoke("history", "export", "--all", "-o", f"{path}/").stderr


HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a\0b\n\x1b[2J\u202e",
    "CON",
    "-rf *",
    "C:\\x",
    "~",
    "$(x)",
]


@pytest.mark.parametrize("title", [*HOSTILE, "京" * 300], ids=[f"M6 {index}" for index in range(len(HOSTILE) + 1)])
def test_a_title_cannot_choose_where_a_file_goes(store: Store, invoke: Invoke, tmp_path: Path, title: str) -> None:
    keep(store, "aaaaaaaaaa", "one", title=title)
    (folder := tmp_path / "there").mkdir()
    before = {path for path in tmp_path.rglob("*") if "flowgpt-home" not in str(path)}

    assert invoke("history", "export", "--all", "-o", str(folder)).exit_code == 0
    [made] = {path for path in tmp_path.rglob("*") if "flowgpt-home" not in str(path)} - before
    assert made.parent == folder
    assert made.name.endswith("aaaaaaaaaa.md")
    assert made.name.isprintable()
    assert not set(made.name) & set("/\\:*?\"<>|$~ '`;&()")
    assert not made.name.startswith((".", "-"))
    assert len(made.name.encode()) < 255


def test_an_export_that_fails_leaves_no_half_file(store: Store, start: Start, tmp_path: Path) -> None:
    import resource

    for index in range(5):
        keep(store, f"aaaaaaaaa{index}"[:10], "x" * 400_000)
    child = start(
        "history", "export", "--all", "-o", str(tmp_path / "out"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )  # fmt: skip
    child.communicate(timeout=30)
    assert child.returncode != 0
    assert not (tmp_path / "out").exists()


# --- what is read


def test_m6_lines_that_are_no_conversation_are_refused_by_number_and_the_others_come_in(
    store: Store, invoke: Invoke
) -> None:
    good = transcripts.jsonl(Conversation(id="aaaaaaaaaa", title="t", created_s=0, updated_s=0), [])
    evil = good.replace('"aaaaaaaaaa"', '"../../aaaa"')
    result = invoke("history", "import", "-", stdin=f'{{"a"\n\n{good}{evil}[{{"role":"tool","content":""}}]\n')

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "flowgpt: line 1: no conversation: this is no JSON in UTF-8\n"
        "flowgpt: line 4: no conversation: an id has 1 to 64 of the characters A-Z a-z 0-9 _ -\n"
        "flowgpt: line 5: no conversation: Invalid enum value 'tool' - at `$[0].role`\n"
        "flowgpt: imported 1, already here 0, refused 3\n"
        f"hint: {transcripts.HINT}\n"
    )
    assert [each.id for each in store.conversations.list()] == ["aaaaaaaaaa"]


def test_m6_of_many_lines_that_are_refused_ten_are_told(invoke: Invoke) -> None:
    refused = invoke("history", "import", "-", stdin="\x1b[2J{\n" * 1000).stderr
    assert refused.count("\n") == archive.LIMIT_TOLD + 2
    assert "imported 0, already here 0, refused 1,000\n" in refused
    assert "\x1b" not in refused


@pytest.mark.parametrize("what", ["nowhere", "."])
def test_what_cannot_be_read_is_exit_code_2(invoke: Invoke, what: str) -> None:
    assert invoke("history", "import", what).exit_code == 2


def test_a_closed_standard_input_is_exit_code_2(start: Start) -> None:
    child = start("history", "import", "-", stdin=None, preexec_fn=lambda: os.close(0))
    _, said = child.communicate(timeout=30)
    assert (child.returncode, said) == (2, b"flowgpt: standard input is closed\n")


# --- while others write

WRITER = """
import select
from flowgpt.conversation import Turn
from flowgpt.store import Store

def turn(role, text, verdict=""):
    return Turn(role=role, text=text, created_s=0.0, verdict=verdict)

store = Store()
print("there", flush=True)
number = 0
while True:
    id_ = store.conversations.add(None, 0, [turn("user", f"{number} 0"), turn("assistant", "", "interrupted")])
    for piece in range(3):
        store.conversations.draft(id_, 1, f"{number} {piece} ")
    whole = "".join(f"{number} {piece} " for piece in range(3))
    store.conversations.end(id_, 1, turn("assistant", whole, "complete"))
    number += 1
    print(number, flush=True)
    select.select([], [], [], 0.02)  # a model takes its time: who writes without a pause lets nobody read
"""


def test_n17_an_export_and_a_backup_while_another_process_writes_are_whole(invoke: Invoke, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "there\n"
            for round_ in range(3):
                acknowledged = int(writer.stdout.readline())
                exported = invoke("history", "export", "--all", "-f", "jsonl")
                saved = invoke("history", "backup", str(tmp_path / f"backup{round_}"))
                assert (exported.exit_code, saved.exit_code) == (0, 0)

                read = [transcripts.read(line.encode(), NOW) for line in exported.stdout.splitlines()]
                with contextlib.closing(Store(tmp_path / f"backup{round_}")) as copy:
                    for there in (read, everything(copy)[::-1]):
                        assert len(there) >= acknowledged
                        for number, (_, turns) in enumerate(there):
                            whole = "".join(f"{number} {piece} " for piece in range(3))
                            assert turns[0].text == f"{number} 0"
                            assert whole.startswith(turns[1].text)
                            assert turns[1].text == whole or turns[1].verdict == "interrupted"
        finally:
            writer.kill()


def test_one_that_is_deleted_meanwhile_is_told_of_and_the_others_are_there(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for id_ in ("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"):
        keep(store, id_, "one")
    pages = archive._pages(store, ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"], "openai")
    first, _ = next(pages)
    store.conversations.delete(["bbbbbbbbbb"])

    assert [first.id, *(conversation.id for conversation, _ in pages)] == ["aaaaaaaaaa", "cccccccccc"]
    assert capsys.readouterr().err == "flowgpt: bbbbbbbbbb was deleted meanwhile\n"


# --- backup and restore


def test_n7_n17_a_backup_is_put_in_the_place_of_a_damaged_file_which_is_moved_aside(
    store: Store, invoke: Invoke, tmp_path: Path
) -> None:
    keep(store, "aaaaaaaaaa", "one")
    saved = invoke("history", "backup", str(tmp_path / "backup"))
    assert (saved.exit_code, saved.stderr) == (0, f"flowgpt: all of it is in {tmp_path / 'backup'}\n")
    assert invoke("history", "backup", str(tmp_path / "backup")).exit_code == 2, "never over another file"
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    store.close()
    path = config.home() / "flowgpt.db"
    path.write_bytes(b"damaged" * 1000)
    failed = invoke("history", "list")
    assert failed.exit_code == 9

    kept = invoke("history", "restore", str(tmp_path / "backup"), stdin="n\n")
    assert path.read_bytes() == b"damaged" * 1000
    assert f"Move {path} aside, and put a copy of {tmp_path / 'backup'} in its place? [y/N]: n\n" in kept.stderr
    done = invoke("history", "restore", str(tmp_path / "backup"), stdin="y\n")
    assert done.exit_code == 0
    [aside] = [file for file in config.home().iterdir() if ".corrupt-" in file.name and "-wal" not in file.name]
    assert f"; the old one is {aside}\n" in done.stderr
    assert aside.read_bytes() == b"damaged" * 1000
    assert "aaaaaaaaaa" in invoke("history", "list").stdout

    emptied = invoke("history", "restore", "-y")
    assert "an empty store, without the gateway's keys" in emptied.stderr
    assert invoke("history", "list").stderr == "flowgpt: no conversation is kept yet\n"


def test_what_is_no_backup_is_refused_and_the_store_stays(store: Store, invoke: Invoke, tmp_path: Path) -> None:
    keep(store, "aaaaaaaaaa", "one")
    store.close()
    (tmp_path / "no-backup").write_bytes(b"x" * 5000)
    refused = invoke("history", "restore", "-y", str(tmp_path / "no-backup"))
    assert refused.exit_code in (2, 9)
    assert "aaaaaaaaaa" in invoke("history", "list").stdout
