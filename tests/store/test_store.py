"""The store: keys and stored responses, and who else may write to them. All for real."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt import store
from flowgpt.errors import InvalidRequestError
from flowgpt.store import Store, StoredResponse

from .conftest import NOW_S, child, code, outside, record, run

EXAMPLES = settings(max_examples=100)


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


# --- several at once --------------------------------------------------------------------------------------------------


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
        with kept._connection.transaction():
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
