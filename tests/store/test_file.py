"""The file: what it is, how it is brought up to date, and what a broken file, disk or home is. All for real."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from flowgpt import config
from flowgpt.conversation import Turn
from flowgpt.errors import InvalidRequestError, StoreError
from flowgpt.store import Store, file

from .conftest import NOW_S, child, code, outside, record, run

# --- the file -------------------------------------------------------------------------------------------------------


def test_n15_file_and_folder_are_their_owners_alone(kept: Store, path: Path) -> None:
    kept.put_response(record())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_n15_a_file_that_others_may_read_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    Store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_is_in_the_home_unless_another_is_named() -> None:
    Store().close()
    assert (config.home() / "flowgpt.db").is_file()


@pytest.mark.parametrize("name", ["a b?.db", "100%#.db", "é.db"])
def test_any_path_will_do(name: str, tmp_path: Path) -> None:
    Store(tmp_path / name).close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("version", "mode"),
    [((3, 40, 1), "delete"), ((3, 51, 2), "delete"), ((3, 51, 3), "wal"), ((3, 52, 0), "wal"), ((4, 0, 0), "wal")],
)
def test_n8_wal_is_for_sqlite_from_3_51_3_on(
    version: tuple[int, int, int], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    Store(tmp_path / "flowgpt.db").close()
    with outside(tmp_path / "flowgpt.db") as reader:
        assert reader.execute("PRAGMA journal_mode").fetchall() == [(mode,)]


def test_n8_a_file_with_wal_is_taken_out_of_it_or_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flowgpt.db"
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    with contextlib.closing(Store(path)):
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
        assert code(lambda: Store(path)) == "store_busy"
    Store(path).close()
    with outside(path) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchall() == [("delete",)]


def test_n9_a_file_that_cannot_have_wal_now_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flowgpt.db"
    Store(path).close()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    with outside(path) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM keys").fetchall()
        monkeypatch.setattr(file, "WAIT_S", 0)
        with contextlib.closing(Store(path)) as kept:
            assert kept.keys() == {}
        other.execute("ROLLBACK")
        assert other.execute("PRAGMA journal_mode").fetchall() == [("delete",)]


def test_n4_what_is_acknowledged_was_synced(kept: Store) -> None:
    with kept._connection.use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]


def test_n1_what_another_process_keeps_locked_is_busy_and_goes_on_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "WAIT_S", 0.01)
    with contextlib.closing(Store(path)) as kept, outside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert code(lambda: kept.put_response(record())) == "store_busy"
        other.execute("COMMIT")
        kept.put_response(record())
        assert kept.response("resp_1", "alice", NOW_S) == record()


def test_n2_a_transaction_is_alone_from_its_first_moment(kept: Store, path: Path) -> None:
    """So that nobody can write between what it reads and what it writes."""
    with (
        kept._connection.transaction(),
        outside(path) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")


def test_the_wait_for_another_process_is_five_seconds_and_none_for_keys(kept: Store) -> None:
    for connections, wait_ms in ((kept._connection, 5000), (kept._keys_connection, 0)):
        with connections.use() as connection:
            assert connection.execute("PRAGMA busy_timeout").fetchall() == [(wait_ms,)]


# --- what can break -------------------------------------------------------------------------------------------------


def test_n5_on_a_full_disk_nothing_is_half_done_and_it_goes_on_when_there_is_room(path: Path) -> None:
    """The disk is a limit on a file's size, at every few hundred bytes of what one call writes."""
    said = run(
        path,
        """
import resource
from flowgpt.errors import InvalidRequestError, StoreError
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
store.put_response(StoredResponse("before", "", 1.0, 2e9, b"", b"", b""))
size = Path(sys.argv[1]).stat().st_size
codes = set()
for room in range(-size, 30_000, 700):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, most))
    try:
        store.put_response(StoredResponse(f"r{room}", "", 1.0, 2e9, b"x" * 20_000, b"", b""))
    except StoreError as error:
        codes.add(error.code)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert store.response(f"r{room}", "", 1.5) is None
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert store.delete_response(f"r{room}", "")
    assert store.response("before", "", 1.5)
store.put_response(StoredResponse("after", "", 1.0, 2e9, b"x" * 20_000, b"", b""))
assert store.response("after", "", 1.5)
print(codes)
""",
    )
    assert said == "{'store_full'}\n"


def test_n6_a_home_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert code(lambda: Store(tmp_path / "file" / "home" / "flowgpt.db")) == "store_read_only"


def test_n6_a_folder_in_the_files_place_is_a_store_error(tmp_path: Path) -> None:
    assert code(lambda: Store(tmp_path)) == "store_read_only"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("CREATE TABLE t (a)", "store_read_only"),
        ("SELECT * FROM nothing", "store_error"),
    ],
)
def test_n6_sqlites_own_refusals_have_codes(statement: str, expected: str, path: Path) -> None:
    """On a connection that may only read: a test that runs as root can write to any file."""
    Store(path).close()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        with pytest.raises(sqlite3.Error) as caught:
            reader.execute(statement)
        assert file._failure(path, caught.value).code == expected


@pytest.mark.parametrize("content", [b"hello, I am no database" * 100, b"SQLite format 3\0" + b"\xff" * 4080])
def test_n7_what_is_no_store_is_named_and_left_as_it_is(content: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)) as caught:
        Store(path)
    assert caught.value.code == "store_corrupt"
    assert path.read_bytes() == content


def test_n7_with_any_page_damaged_there_are_answers_or_store_errors_and_nothing_else(path: Path) -> None:
    with contextlib.closing(Store(path)) as kept:
        kept.add_key("alice", "digest-a", NOW_S)
        for number in range(8):
            kept.put_response(dataclasses.replace(record(f"resp_{number}"), body=b"x" * 3000))
        turn = Turn(role="assistant", text="some words " * 400, created_s=NOW_S, verdict="interrupted", model="m")
        id_ = kept.conversations.add(None, 0, [turn, turn])
        kept.conversations.draft(id_, 1, "and more")
    good, found = path.read_bytes(), set()
    for start in range(0, len(good), 4096):
        for damage in (b"\0" * 4096, b"\xff" * 4096, bytes(range(256)) * 16):
            path.write_bytes(good[:start] + damage + good[start + 4096 :])
            try:
                with contextlib.closing(Store(path)) as kept:
                    kept.keys()
                    kept.response("resp_3", "alice", NOW_S)
                    kept.put_response(record("new"))
                    kept.delete_response("resp_3", "alice")
                    kept.conversations.list()
                    kept.conversations.search("more words", 3)
                    kept.conversations.turns(id_)
                    kept.conversations.stats()
                    kept.conversations.end(kept.conversations.add(id_, 2, [turn]), 2, turn)
                    kept.conversations.delete([id_])
            except InvalidRequestError:  # a conversation or a turn that is not there any more
                continue
            except StoreError as error:
                found.add(error.code)
    assert "store_corrupt" in found


def test_an_interrupt_at_any_moment_leaves_the_store_usable(kept: Store) -> None:
    """Where CPython raises KeyboardInterrupt: when a function of Python begins, and when one of C has returned."""

    def interrupted(act: Callable[[], object], moment: int) -> bool:
        moments = itertools.count()

        def look(frame: FrameType, event: str, _: object) -> None:
            ours = frame.f_code.co_filename in {file.__file__, contextlib.__file__}
            if ours and event in {"call", "c_return"} and next(moments) == moment:
                raise KeyboardInterrupt

        sys.setprofile(look)
        try:
            act()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False

    acts: list[Callable[[], object]] = [
        kept.keys,
        kept.key_names,
        kept.conversations.stats,
        lambda: kept.revoke_key("a"),
    ]
    for act in acts:
        moments = itertools.takewhile(functools.partial(interrupted, act), itertools.count())
        for _ in moments:
            for each in (kept._connection, kept._keys_connection):
                assert not each._lock.locked()
                with each.use() as connection:
                    assert not connection.in_transaction
    kept.close()


@pytest.mark.parametrize("replacement", ["another", "nothing"])
def test_n14_a_file_that_was_replaced_is_said_once_and_the_new_one_opened(
    replacement: str, kept: Store, path: Path
) -> None:
    kept.add_key("alice", "digest-a", NOW_S)
    assert kept.keys() == {"digest-a": "alice"}
    if replacement == "another":
        Store(path.with_name("other.db")).close()
        os.replace(path.with_name("other.db"), path)
    else:
        path.unlink()
    with pytest.raises(StoreError, match="was replaced while it was open"):
        kept.keys()
    assert kept.keys() == {}
    kept.add_key("bob", "digest-b", NOW_S)
    assert kept.keys() == {"digest-b": "bob"}


@pytest.mark.parametrize("first", ["keys", "key_names"])
def test_n14_keys_of_a_replaced_file_are_not_remembered_while_the_new_one_is_busy(
    first: str, kept: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "WAIT_S", 0)
    kept.add_key("alice", "digest-a", NOW_S)
    assert kept.keys() == {"digest-a": "alice"}
    Store(path.with_name("other.db")).close()
    os.replace(path.with_name("other.db"), path)
    with outside(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert code(getattr(kept, first)) == "store_error"
        if sqlite3.sqlite_version_info < (3, 51, 3):  # with WAL, nobody who reads waits
            assert code(kept.keys) == "store_busy"
        other.execute("COMMIT")
    assert kept.keys() == {}


def test_n14_keys_of_a_replaced_file_are_forgotten_whoever_notices_it(path: Path) -> None:
    """Both files are as new to SQLite: it counts changes from when it opened one."""
    for name, key in ((path, "alice"), (path.with_name("other.db"), "bob")):
        with contextlib.closing(Store(name)) as made:
            made.add_key(key, f"digest of {key}", NOW_S)
    with contextlib.closing(Store(path)) as opened:
        assert opened.keys() == {"digest of alice": "alice"}
        os.replace(path.with_name("other.db"), path)
        assert code(opened.key_names) == "store_error"
        assert opened.keys() == {"digest of bob": "bob"}


def test_a_closed_store_says_so(kept: Store) -> None:
    kept.close()
    kept.close()
    for act in (kept.keys, kept.key_names, lambda: kept.put_response(record()), lambda: kept.response("a", "", 0)):
        with pytest.raises(StoreError, match="the store is closed"):
            act()


def test_n1_a_file_that_is_free_again_within_the_second_wait_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other ends between the first try and the second."""
    monkeypatch.setattr(file, "WAIT_S", 0)
    with contextlib.closing(Store(path)) as kept, outside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(random, "uniform", lambda *_: other.execute("COMMIT") and 0.0)
        kept.put_response(record())
        assert kept.response("resp_1", "alice", NOW_S) == record()


@pytest.mark.parametrize("words", ["no such module: fts5", "no such tokenizer: trigram"])
def test_an_sqlite_that_cannot_search_is_named(words: str, path: Path) -> None:
    failure = file._failure(path, sqlite3.OperationalError(words))
    assert (failure.code, failure.hint) == ("store_error", "use a Python with SQLite 3.34 or later, with FTS5")


# --- a copy ---------------------------------------------------------------------------------------------------------

WRITE_ON = """
from flowgpt.conversation import Turn
turn = Turn(role="user", text="x" * 3000, created_s=1.0)
id_ = store.conversations.add(None, 0, [turn, turn])
print("begun", flush=True)
count = 2
while True:
    store.conversations.add(id_, count, [turn, turn])
    count += 2
"""


def test_n17_a_backup_is_one_moment_of_a_file_that_is_written_all_the_time(kept: Store, path: Path) -> None:
    """Another process adds two turns at a time: no backup has one of them."""
    kept.add_key("alice", "digest-a", NOW_S)
    counts = []
    with subprocess.Popen(child(path, WRITE_ON), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for number in range(5):
            target = path.with_name(f"backup-{number}.db")
            kept.backup(target)
            with outside(target) as reader:
                counts += reader.execute("SELECT count(*) FROM turns").fetchone()
                assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert reader.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        process.kill()
    assert [count % 2 for count in counts] == [0] * 5
    assert sorted(counts) == counts
    backups = [found for found in path.parent.iterdir() if found.name.startswith("backup-")]
    assert {stat.S_IMODE(found.stat().st_mode) for found in backups} == {0o600}
    assert len(backups) == 5
    with contextlib.closing(Store(target)) as again:
        assert again.keys() == {"digest-a": "alice"}
        assert again.conversations.list()[0].count == counts[-1]


def test_n17_a_backup_overwrites_nothing(kept: Store, path: Path) -> None:
    target = path.with_name("precious")
    target.write_text("precious")
    with pytest.raises(InvalidRequestError, match="precious exists already"):
        kept.backup(target)
    assert target.read_text() == "precious"


def test_n17_a_backup_that_cannot_be_made_is_a_store_error_and_leaves_no_file(kept: Store, path: Path) -> None:
    assert code(lambda: kept.backup(path / "in a file")) == "store_read_only"
    kept.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])
    assert code(lambda: kept.backup(path.with_name("backup"))) == "store_corrupt"
    assert not path.with_name("backup").exists()
