"""Another file in the place of a damaged one: what is moved, what is put there, and what is refused."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from flowgpt import config
from flowgpt.conversation import Turn
from flowgpt.errors import InvalidRequestError, StoreError
from flowgpt.store import Store, restore

from .conftest import NOW_S, code, outside

TURN = Turn(role="user", text="Why?", created_s=1.0)
DAMAGED = b"SQLite format 3\0" + b"\xff" * 9000


@pytest.fixture
def backup(path: Path, tmp_path: Path) -> Path:
    """Of a store with a key and a conversation, which is damaged after it."""
    target = tmp_path / "backup.db"
    with contextlib.closing(Store(path)) as kept:
        kept.add_key("alice", "digest-a", NOW_S)
        kept.conversations.add(None, 0, [TURN])
        kept.backup(target)
    path.write_bytes(DAMAGED)
    return target


def test_n7_a_damaged_file_is_moved_aside_and_the_backup_put_in_its_place(backup: Path, path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert "flowgpt history restore" in str(caught.value.hint)
    aside = restore(NOW_S, backup, path)
    assert aside == path.with_name(f"flowgpt.db.corrupt-{int(NOW_S)}")
    assert aside.read_bytes() == DAMAGED
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with contextlib.closing(Store(path)) as kept:
        assert kept.keys() == {"digest-a": "alice"}
        assert kept.conversations.turns(kept.conversations.list()[0].id) == [TURN]
    assert backup.is_file()


def test_n7_without_a_backup_the_next_store_is_empty_and_nothing_is_lost(backup: Path, path: Path) -> None:
    assert backup.is_file()
    assert [restore(NOW_S, path=path), restore(NOW_S, path=path)][1] is None
    with contextlib.closing(Store(path)) as kept:
        assert kept.keys() == {}
    again = restore(NOW_S, path=path)
    assert again == path.with_name(f"flowgpt.db.corrupt-{int(NOW_S) + 1}")
    assert path.with_name(f"flowgpt.db.corrupt-{int(NOW_S)}").read_bytes() == DAMAGED


def test_n7_what_stands_beside_the_file_goes_with_it(backup: Path, path: Path) -> None:
    for end in ("-wal", "-journal"):
        path.with_name(path.name + end).write_text(end)
    aside = restore(NOW_S, backup, path)
    assert [Path(f"{aside}{end}").read_text() for end in ("-wal", "-journal")] == ["-wal", "-journal"]
    assert sorted(found.name for found in path.parent.iterdir() if ".corrupt-" not in found.name) == [path.name]


@pytest.mark.parametrize("wrong", ["damaged", "no store", "newer", "missing"])
def test_n7_a_backup_that_is_none_is_refused_and_nothing_is_moved(wrong: str, backup: Path, path: Path) -> None:
    data = backup.read_bytes()
    if wrong == "damaged":
        backup.write_bytes(data[: len(data) // 2] + b"\xff" * 4096 + data[len(data) // 2 + 4096 :])
    elif wrong == "no store":
        backup.write_bytes(b"")
    elif wrong == "newer":
        with outside(backup) as newer:
            newer.execute("PRAGMA user_version = 99")
    else:
        backup.unlink()
    if wrong == "missing":
        with pytest.raises(InvalidRequestError, match="there is no file"):
            restore(NOW_S, backup, path)
    else:
        assert code(lambda: restore(NOW_S, backup, path)) == {"newer": "store_newer"}.get(wrong, "store_corrupt")
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == DAMAGED


def test_n7_killed_between_its_steps_there_is_a_new_file_or_the_backup(backup: Path, path: Path) -> None:
    """What a kill leaves after the file was moved and before what stands beside it was."""
    path.with_name(f"{path.name}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\xff" * 5000)
    os.rename(path, path.with_name("aside"))
    with contextlib.closing(Store(path)) as kept:
        assert kept.keys() == {}
    restore(NOW_S, backup, path)
    with contextlib.closing(Store(path)) as kept:
        assert kept.keys() == {"digest-a": "alice"}


def test_n7_n14_a_store_that_is_open_meanwhile_learns_of_it(backup: Path, path: Path) -> None:
    path.unlink()
    with contextlib.closing(Store(path)) as kept:
        kept.add_key("bob", "digest-b", NOW_S)
        restore(NOW_S, backup, path)
        with pytest.raises(StoreError, match="was replaced while it was open"):
            kept.keys()
        assert kept.keys() == {"digest-a": "alice"}


def test_the_store_of_the_home_is_meant_unless_another_is_named() -> None:
    Store().close()
    assert restore(NOW_S) == config.home() / f"flowgpt.db.corrupt-{int(NOW_S)}"
    assert not (config.home() / "flowgpt.db").exists()


def test_n6_what_cannot_be_moved_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert code(lambda: restore(NOW_S, path=tmp_path / "file" / "flowgpt.db")) == "store_read_only"
