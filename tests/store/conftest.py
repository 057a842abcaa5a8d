"""A store in both journal modes, and who else has its file open: another connection, another process."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowgpt.conversation import Turn
from flowgpt.errors import StoreError
from flowgpt.store import Store, StoredResponse
from flowgpt.store.conversations import Conversations

NOW_S = 1_800_000_000.5


QUESTION = Turn(role="user", text="Why is the sky blue?", created_s=100.0)
DRAFT = Turn(role="assistant", text="", created_s=101.0, verdict="interrupted")
ANSWER = replace(
    DRAFT,
    text="Rayleigh scattering.",
    model="gpt",
    system="Be brief.",
    parameters={"temperature": 0.2, "stop": ["a"], "model": None},
    verdict="complete",
    code="",
    first_text_s=0.25,
    total_s=2.5,
)


@pytest.fixture(params=["delete", "wal"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a store may be, with an SQLite that is not sound with WAL, and one that is."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3 if request.param == "wal" else 2))
    return tmp_path / "new" / "flowgpt.db"


@pytest.fixture
def kept(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path)) as opened:
        yield opened


@pytest.fixture
def conversations(kept: Store) -> Conversations:
    return kept.conversations


def record(id_: str = "resp_1", owner: str = "alice", *, made_s: float = NOW_S, lasts_s: float = 60) -> StoredResponse:
    return StoredResponse(id_, owner, made_s, made_s + lasts_s, b'{"id": 1}', b"[1]", b"[2]")


def said(turn: str) -> Turn:
    return replace(QUESTION, text=turn)


def outside(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """The file, as another program has it open."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0))


def code(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    assert caught.value.hint
    return caught.value.code


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
