"""A file of every version, brought up to date, and what a kill or a failure leaves of it."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

import pytest

from flowgpt.store import Store, file
from flowgpt.store.migrations import MIGRATIONS

from .conftest import NOW_S, code, outside, record, run

EVERY_KILL = """
import os, sqlite3
from flowgpt.store import file

class Killing(tuple):
    def __iter__(self):
        for number, statement in enumerate(tuple.__iter__(self)):
            if number == point:
                os._exit(9)
            yield statement
        if number + 1 == point:
            os._exit(9)

store.close()
known = tuple(file.MIGRATIONS)
for version in range(len(known)):
    for point in range(len(known[version]) + 1):
        path = Path(sys.argv[1]).with_name(f"{version}-{point}.db")
        if version:  # what an older flowgpt wrote
            file.MIGRATIONS = known[:version]
            old = Store(path)
            old.add_key("alice", "digest-a", 1.0)
            old.close()
        file.MIGRATIONS = (*known[:version], Killing(known[version]), *known[version + 1:])
        child = os.fork()
        if not child:
            Store(path)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        with sqlite3.connect(path) as reader:
            assert reader.execute("PRAGMA user_version").fetchall() == [(version,)]
        reader.close()
        file.MIGRATIONS = known
        new = Store(path)
        assert new.keys() == ({"digest-a": "alice"} if version else {})
        new.close()
        with sqlite3.connect(path) as reader:
            assert reader.execute("PRAGMA user_version").fetchall() == [(len(known),)]
            assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        reader.close()
        print(version, point)
"""


def test_n10_killed_at_any_step_of_any_migration_the_file_is_as_before_and_the_next_one_migrates_it(path: Path) -> None:
    points = [f"{version} {point}" for version, steps in enumerate(MIGRATIONS) for point in range(len(steps) + 1)]
    assert run(path, EVERY_KILL).splitlines() == points


def test_n10_before_a_file_is_changed_a_copy_of_it_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MIGRATIONS", MIGRATIONS[:1])
    with contextlib.closing(Store(path)) as old:
        old.add_key("alice", "digest-a", NOW_S)
    path.with_name("flowgpt.db.part").write_bytes(b"of one that was killed")
    monkeypatch.setattr(file, "MIGRATIONS", MIGRATIONS)
    with contextlib.closing(Store(path)) as new:
        new.add_key("bob", "digest-b", NOW_S)
        assert new.conversations.list() == []
    before = path.with_name("flowgpt.db.before-2")
    assert [found.name for found in path.parent.iterdir() if found != path] == [before.name]
    assert stat.S_IMODE(before.stat().st_mode) == 0o600
    with outside(before) as reader:
        assert reader.execute("SELECT name FROM keys").fetchall() == [("alice",)]
        assert reader.execute("PRAGMA user_version").fetchall() == [(1,)]


def test_n10_a_new_file_has_nothing_that_a_copy_could_keep(path: Path) -> None:
    Store(path).close()
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_n10_a_migration_that_fails_leaves_the_version_before(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put_response(record())
    path = kept._path
    kept.close()
    monkeypatch.setattr(file, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (id)", "CREATE TABLE nonsense")))
    code(lambda: Store(path))
    monkeypatch.setattr(file, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (id)",)))
    with contextlib.closing(Store(path)) as later:
        assert later.response("resp_1", "alice", NOW_S) == record()
    monkeypatch.setattr(file, "MIGRATIONS", MIGRATIONS)
    assert code(lambda: Store(path)) == "store_newer"


def test_n10_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    Store(path).close()
    with outside(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    assert code(lambda: Store(path)) == "store_newer"
    assert path.read_bytes() == before


def test_n10_a_migration_that_another_process_made_in_the_meantime_is_not_made_again(path: Path) -> None:
    path.parent.mkdir()
    with outside(path) as connection, outside(path) as quicker:
        begun: list[str] = []

        def watch(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE" and not begun:
                begun.append(statement)
                file._prepare(quicker, path)

        connection.set_trace_callback(watch)
        file._prepare(connection, path)
        assert connection.execute("PRAGMA user_version").fetchall() == [(len(MIGRATIONS),)]
        assert begun
