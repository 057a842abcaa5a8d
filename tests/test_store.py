"""The store: what it keeps, who else may write to it, and what a broken file, disk or home is. All for real."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt import config, store
from flowgpt.errors import InvalidRequestError, StoreError
from flowgpt.store import MIGRATIONS, Store, StoredResponse

EXAMPLES = settings(max_examples=100)

NOW_S = 1_800_000_000.5


@pytest.fixture(params=["delete", "wal"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a store may be, with an SQLite that is not sound with WAL, and one that is."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3 if request.param == "wal" else 2))
    return tmp_path / "new" / "flowgpt.db"


@pytest.fixture
def kept(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path)) as opened:
        yield opened


def record(id_: str = "resp_1", owner: str = "alice", *, made_s: float = NOW_S, lasts_s: float = 60) -> StoredResponse:
    return StoredResponse(id_, owner, made_s, made_s + lasts_s, b'{"id": 1}', b"[1]", b"[2]")


def outside(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """The file, as another program has it open."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0))


def code(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    assert caught.value.hint
    return caught.value.code


# --- stored responses -----------------------------------------------------------------------------------------------


def test_a_response_is_kept_as_it_is_and_survives_a_restart(kept: Store, path: Path) -> None:
    kept.put_response(record())
    assert kept.response("resp_1", "alice", NOW_S) == record()
    kept.close()
    with contextlib.closing(Store(path)) as again:
        assert again.response("resp_1", "alice", NOW_S) == record()


@pytest.mark.parametrize("owner", ["bob", "", "ALICE", "alice "])
def test_a_response_is_its_owners_alone(owner: str, kept: Store) -> None:
    kept.put_response(record())
    assert kept.response("resp_1", owner, NOW_S) is None
    assert not kept.delete_response("resp_1", owner)
    assert kept.response("resp_1", "alice", NOW_S) == record()


def test_a_response_is_gone_when_it_is_deleted_and_only_once(kept: Store) -> None:
    kept.put_response(record())
    kept.put_response(record("resp_2"))
    assert kept.delete_response("resp_1", "alice")
    assert not kept.delete_response("resp_1", "alice")
    assert kept.response("resp_1", "alice", NOW_S) is None
    assert kept.response("resp_2", "alice", NOW_S) is not None


def test_an_id_that_is_taken_is_no_reason_to_lose_what_it_has(kept: Store) -> None:
    kept.put_response(record())
    code(lambda: kept.put_response(record(owner="bob")))
    assert kept.response("resp_1", "alice", NOW_S) == record()


def test_n18_a_response_expires_to_the_second_and_is_dropped_by_the_next_one(kept: Store, path: Path) -> None:
    kept.put_response(record())
    assert kept.response("resp_1", "alice", NOW_S + 59.9) is not None
    assert kept.response("resp_1", "alice", NOW_S + 60) is None
    kept.put_response(record("resp_2", made_s=NOW_S + 60))
    with outside(path) as reader:
        assert reader.execute("SELECT id FROM responses").fetchall() == [("resp_2",)]


def test_n18_one_call_drops_a_bounded_number_of_expired_ones_and_the_file_gets_smaller(kept: Store, path: Path) -> None:
    count = store.LIMIT_DROPPED + 10
    for number in range(count):
        kept.put_response(dataclasses.replace(record(f"resp_{number}"), body=b"x" * 4096))
    kept.put_response(record("one", made_s=NOW_S + 60))
    with outside(path) as reader:
        assert reader.execute("SELECT count(*) FROM responses").fetchall() == [(11,)]
        assert reader.execute("PRAGMA page_count").fetchall() < [(count // 2,)]
        assert reader.execute("PRAGMA freelist_count").fetchall() == [(0,)]


def test_n18_what_is_deleted_is_not_in_the_file_any_more(kept: Store, path: Path) -> None:
    words = b"my darkest secret"
    for number in range(3):
        kept.put_response(dataclasses.replace(record(f"resp_{number}"), body=words * (1 + 1000 * number)))
    assert any(words in file.read_bytes() for file in path.parent.iterdir())
    for number in range(3):
        kept.delete_response(f"resp_{number}", "alice")
    kept.close()
    assert [file.name for file in path.parent.iterdir() if words in file.read_bytes()] == []


@EXAMPLES
@given(text=st.text(alphabet=st.characters(codec=None)) | st.sampled_from(["' OR 1=1 --", "\0", "\ud800", "%", "?1"]))
def test_n11_m7_no_id_or_name_breaks_a_call_or_finds_what_it_does_not_name(text: str, shared: Store) -> None:
    assert shared.response(text, "alice", NOW_S) is None
    assert not shared.delete_response(text, "alice")
    assert not shared.revoke_key(text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for many examples, with a response and a key of unlikely names."""
    with contextlib.closing(Store(tmp_path_factory.mktemp("shared") / "flowgpt.db")) as opened:
        opened.put_response(record("resp_that_nobody_names"))
        opened.add_key("key.that.nobody.names", "d", NOW_S)
        yield opened


@settings(EXAMPLES, max_examples=30)
@given(bodies=st.tuples(st.binary(), st.binary(), st.binary()))
def test_n11_any_bytes_come_back_as_they_were(bodies: tuple[bytes, bytes, bytes], shared: Store) -> None:
    put = StoredResponse("resp_bytes", "", NOW_S, NOW_S + 1, *bodies)
    shared.put_response(put)
    assert shared.response("resp_bytes", "", NOW_S) == put
    assert shared.delete_response("resp_bytes", "")


# --- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_kept_by_digest_and_listed_by_name(kept: Store, path: Path) -> None:
    assert kept.keys() == {}
    kept.add_key("bob", "digest-b", 2.5)
    kept.add_key("alice", "digest-a", 1.5)
    assert kept.keys() == {"digest-a": "alice", "digest-b": "bob"}
    assert kept.key_names() == [("alice", 1.5), ("bob", 2.5)]
    assert (kept.revoke_key("bob"), kept.revoke_key("bob")) == (True, False)
    kept.close()
    with contextlib.closing(Store(path)) as again:
        assert again.keys() == {"digest-a": "alice"}


def test_a_key_that_another_process_makes_or_revokes_counts_at_once(kept: Store, path: Path) -> None:
    for _ in range(3):
        run(path, "store.add_key('alice', 'digest-a', 1.0)")
        assert kept.keys() == {"digest-a": "alice"}
        run(path, "store.revoke_key('alice')")
        assert kept.keys() == {}


def test_keys_are_read_again_only_when_something_was_written(kept: Store) -> None:
    kept.add_key("alice", "digest-a", 1.0)
    assert kept.keys() is kept.keys()
    kept.put_response(record())
    assert kept.keys() == {"digest-a": "alice"}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "a\nb", "a" * 65, "\ud800", "'", "a\0"])
def test_a_keys_name_is_plain(name: str, kept: Store) -> None:
    with pytest.raises(InvalidRequestError, match="a key's name has"):
        kept.add_key(name, "d", NOW_S)
    assert kept.keys() == {}


def test_a_name_is_taken_once_and_free_again_when_it_is_revoked(kept: Store) -> None:
    kept.add_key("alice", "digest-a", NOW_S)
    with pytest.raises(InvalidRequestError, match="there is a key named 'alice' already"):
        kept.add_key("alice", "digest-b", NOW_S)
    assert kept.keys() == {"digest-a": "alice"}
    kept.revoke_key("alice")
    kept.add_key("alice", "digest-b", NOW_S)
    assert kept.keys() == {"digest-b": "alice"}


# --- several at once ------------------------------------------------------------------------------------------------


def run(path: Path, act: str, *arguments: str) -> str:
    """Another process that opens the store and acts; what it printed."""
    done = subprocess.run(child(path, act, *arguments), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def child(path: Path, act: str, *arguments: str) -> list[str]:
    """In the journal mode of the test."""
    code = (
        f"import sqlite3, sys; sqlite3.sqlite_version_info = {sqlite3.sqlite_version_info!r}\n"
        "from pathlib import Path\nfrom flowgpt.store import Store, StoredResponse\n"
        f"store = Store(Path(sys.argv[1]))\n{act}\n"
    )
    return [sys.executable, "-W", "error", "-c", code, str(path), *arguments]


WRITE = """
import threading
def write(thread):
    for number in range(5):
        id_ = f"resp_{sys.argv[2]}_{thread}_{number}"
        store.put_response(StoredResponse(id_, "", 1.0, 2.0 + number % 2 * 1e9, b"", b"", b""))
        assert store.keys() == {}
threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_n1_n2_processes_and_threads_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """They also make the file at once. In this machine's own journal mode: an old SQLite is not sound with WAL."""
    path = tmp_path / "flowgpt.db"
    children = [subprocess.Popen(child(path, WRITE, str(number)), stderr=subprocess.PIPE) for number in range(4)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in children] == [(b"", 0)] * 4
    with outside(path) as reader:
        assert reader.execute("SELECT count(*) FROM responses").fetchall() == [(4 * 4 * 5,)]
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_n1_what_another_process_keeps_locked_is_busy_and_goes_on_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT_S", 0.01)
    with contextlib.closing(Store(path)) as kept, outside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert code(lambda: kept.put_response(record())) == "store_busy"
        other.execute("COMMIT")
        kept.put_response(record())
        assert kept.response("resp_1", "alice", NOW_S) == record()


def test_the_wait_for_another_process_is_five_seconds_and_none_for_keys(kept: Store) -> None:
    for file, wait_ms in ((kept._file, 5000), (kept._keys_file, 0)):
        with file.use() as connection:
            assert connection.execute("PRAGMA busy_timeout").fetchall() == [(wait_ms,)]


def test_n2_a_transaction_is_alone_from_its_first_moment(kept: Store, path: Path) -> None:
    """So that nobody can write between what it reads and what it writes."""
    with kept._file.transaction(), outside(path) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")


def test_n10_a_migration_that_another_process_made_in_the_meantime_is_not_made_again(path: Path) -> None:
    path.parent.mkdir()
    with outside(path) as connection, outside(path) as quicker:
        begun: list[str] = []

        def watch(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE" and not begun:
                begun.append(statement)
                store._prepare(quicker, path)

        connection.set_trace_callback(watch)
        store._prepare(connection, path)
        assert connection.execute("PRAGMA user_version").fetchall() == [(len(MIGRATIONS),)]
        assert begun


def test_n16_keys_neither_wait_nor_change_while_another_process_commits(kept: Store, path: Path) -> None:
    kept.add_key("alice", "digest-a", NOW_S)
    assert kept.keys() == {"digest-a": "alice"}
    with outside(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM keys")
        assert kept.keys() == {"digest-a": "alice"}
        other.execute("COMMIT")
    assert kept.keys() == {}


def test_n16_keys_do_not_wait_for_a_thread_that_writes(kept: Store) -> None:
    entered, leave = threading.Event(), threading.Event()

    def write() -> None:
        with kept._file.transaction():
            entered.set()
            assert leave.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert entered.wait(10)
    assert kept.keys() == {}
    leave.set()
    thread.join(10)
    assert not thread.is_alive()


ACKNOWLEDGE = """
number = 0
while True:
    store.put_response(StoredResponse(f"{sys.argv[2]}-{number}", "", 1.0, 2e9, b"x" * 5000, b"", b""))
    print(number, flush=True)
    number += 1
"""


def test_n3_after_kill_9_what_was_acknowledged_is_there_and_the_file_is_whole(path: Path) -> None:
    for round_ in range(6):
        with subprocess.Popen(child(path, ACKNOWLEDGE, str(round_)), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(1 + 3 * round_):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            acknowledged = 1 + 3 * round_ + process.stdout.read().count(b"\n")
        with contextlib.closing(Store(path)) as kept:
            found = [kept.response(f"{round_}-{number}", "", 1.5) for number in range(acknowledged)]
        assert None not in found
        with outside(path) as reader:
            assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


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
        monkeypatch.setattr(store, "WAIT_S", 0)
        with contextlib.closing(Store(path)) as kept:
            assert kept.keys() == {}
        other.execute("ROLLBACK")
        assert other.execute("PRAGMA journal_mode").fetchall() == [("delete",)]


def test_n4_what_is_acknowledged_was_synced(kept: Store) -> None:
    with kept._file.use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]


def test_n10_a_crash_within_a_migration_is_as_if_it_had_not_begun(path: Path) -> None:
    path.parent.mkdir()
    for kill_point in range(len(MIGRATIONS[0]) + 1):
        crash = f"db.execute('BEGIN IMMEDIATE'); [db.execute(s) for s in MIGRATIONS[0][:{kill_point}]]; os._exit(0)"
        code = (
            "import os, sqlite3, sys; from flowgpt.store import MIGRATIONS\n"
            f"db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('PRAGMA cache_size = 1'); {crash}"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=True)
    with contextlib.closing(Store(path)) as kept:
        kept.put_response(record())
    with outside(path) as reader:
        assert reader.execute("PRAGMA user_version").fetchall() == [(len(MIGRATIONS),)]


def test_n10_a_migration_that_fails_leaves_the_version_before(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put_response(record())
    path = kept._file._path
    kept.close()
    monkeypatch.setattr(store, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (id)", "CREATE TABLE nonsense")))
    code(lambda: Store(path))
    monkeypatch.setattr(store, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (id)",)))
    with contextlib.closing(Store(path)) as later:
        assert later.response("resp_1", "alice", NOW_S) == record()
    monkeypatch.setattr(store, "MIGRATIONS", MIGRATIONS)
    assert code(lambda: Store(path)) == "store_newer"


def test_n10_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    Store(path).close()
    with outside(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    assert code(lambda: Store(path)) == "store_newer"
    assert path.read_bytes() == before


# --- what can break -------------------------------------------------------------------------------------------------


def test_n5_on_a_full_disk_nothing_is_half_done_and_it_goes_on_when_there_is_room(path: Path) -> None:
    """The disk is a limit on a file's size, at every few hundred bytes of what one call writes."""
    said = run(
        path,
        """
import resource
from flowgpt.errors import StoreError
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
        assert store._failure(path, caught.value).code == expected


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
            except StoreError as error:
                found.add(error.code)
    assert "store_corrupt" in found


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


def test_n14_keys_of_a_replaced_file_are_not_remembered_while_the_new_one_is_busy(
    kept: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT_S", 0)
    kept.add_key("alice", "digest-a", NOW_S)
    assert kept.keys() == {"digest-a": "alice"}
    Store(path.with_name("other.db")).close()
    os.replace(path.with_name("other.db"), path)
    with outside(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert code(kept.keys) == "store_error"
        if sqlite3.sqlite_version_info < (3, 51, 3):  # with WAL, nobody who reads waits
            assert code(kept.keys) == "store_busy"
        other.execute("COMMIT")
    assert kept.keys() == {}


def test_a_closed_store_says_so(kept: Store) -> None:
    kept.close()
    kept.close()
    for act in (kept.keys, kept.key_names, lambda: kept.put_response(record()), lambda: kept.response("a", "", 0)):
        with pytest.raises(StoreError, match="the store is closed"):
            act()
