"""Kill -9 at any moment: is everything that was acknowledged in the store, and how far behind is a half answer?

Real processes talk with nobody, as a chat does: they begin conversations, draft answers text by text, end and delete
them, and write down in a log what was acknowledged. Each is killed at a moment of chance, and then the file is held
against the logs. Every fourth time two of them share it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowgpt.cli.recording import BEHIND_BYTES, Recording
from flowgpt.conversation import Turn
from flowgpt.errors import InvalidRequestError
from flowgpt.store import Store, sqlite

LONGEST = 40_000
"""Characters of an answer, at most."""

DRAFT = Turn(role="assistant", text="", created_s=1.0, verdict="interrupted")


def run(kills: int, behind_s: float) -> bool:
    """Print figures for each tenth. Returns whether nothing was lost, and nothing older than `behind_s` of a draft."""
    seed = random.randrange(10**6)
    print(f"crash: {kills:,} kills, SQLite {sqlite()[0]}, seed {seed}", flush=True)
    chance, counts, wrong = random.Random(seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            wal = number % 2 == 1
            round_ = Path(folder, "wal" if wal else "delete")
            round_.mkdir(exist_ok=True)
            # An SQLite whose WAL is unsound with several writers may have it with one: both journals are played.
            together = 2 if number % 4 == (3 if sqlite()[1] else 2) else 1
            wrong += _round(round_, wal, number, together, chance, counts, behind_s)
            if (number + 1) % max(1, kills // 10) == 0:
                print(f"  {number + 1:,} kills: {_figures(counts)}", flush=True)
    print("\n".join(wrong) or "  nothing is lost")
    return not wrong


def _figures(counts: Counter[str]) -> str:
    order = ("conversations", "ended", "half", "deleted", "most behind")
    return ", ".join(f"{word} {counts[word]:,}" for word in order) + " bytes"


def _round(
    folder: Path, wal: bool, number: int, together: int, chance: random.Random, counts: Counter[str], behind_s: float
) -> list[str]:
    setattr(sqlite3, "sqlite_version_info", (3, 51, 3 if wal else 2))  # noqa: B010  # which the store goes by
    path = folder / "flowgpt.db"
    logs = [folder / f"{number}-{one}.log" for one in range(together)]
    children = [(_start(path, log, chance.randrange(10**9)), log) for log in logs]
    chance.shuffle(children)
    killed_s = {}
    for process, log in children:
        time.sleep(chance.uniform(0, 0.2) if chance.random() < 0.8 else chance.uniform(0, 1.6))
        killed_s[log] = time.monotonic()
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    with contextlib.closing(Store(path)) as store:
        with contextlib.closing(sqlite3.connect(path)) as reader:
            whole = reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        wrong = [] if whole else ["the file is damaged"]
        for log in logs:
            wrong += _judge(store, _read(log), killed_s[log], counts, behind_s)
            log.unlink(missing_ok=True)
        store.conversations.delete([found.id for found in store.conversations.list()])
    return [f"kill {number} ({'wal' if wal else 'delete'}, {together} processes): {words}" for words in wrong]


# --- who is killed -----------------------------------------------------------------------------------------------


def _start(path: Path, log: Path, seed: int) -> int:
    """A fork, since a thousand interpreters would take their time; of a process with one thread and no store open."""
    process = os.fork()
    if not process:
        try:
            _talk(path, os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), random.Random(seed))
        finally:
            os._exit(1)
    return process


def _talk(path: Path, log: int, chance: random.Random) -> None:
    def note(what: str, *facts: Any) -> None:
        os.write(log, json.dumps([what, *facts]).encode() + b"\n")

    store = Store(path)
    for conversation in itertools.count():
        recording = Recording(store, lambda line: note("trouble", line))
        turns: list[Turn] = []
        id_ = ""
        for place in range(1, 2 * chance.randint(1, 3), 2):
            turns = [*turns, Turn(role="user", text=f"question {conversation} {place}", created_s=1.0), DRAFT]
            recording.begin(turns)
            id_ = recording.settle() or ""
            note("begun", id_, place, turns[-2].text)
            length = _stream(recording, id_, place, chance, note)
            turns[-1] = replace(DRAFT, text=_text(id_, place, length), verdict="complete")
            note("ending", id_, place, length)
            recording.end(turns[-1])
            recording.settle()
            note("ended", id_, place, length)
        recording.close()
        if chance.random() < 0.3:
            note("deleting", id_)
            store.conversations.delete([id_])
            note("deleted", id_)


def _stream(recording: Recording, id_: str, place: int, chance: random.Random, note: Any) -> int:
    pause_s = chance.choice([0, 0, 0.001, 0.02])
    whole = _text(id_, place, LONGEST)
    length = 0
    for _ in range(chance.randint(0, 60)):
        more = chance.randint(1, 600)
        recording.add(whole[length : length + more])
        length += more
        note("sent", id_, place, length, time.monotonic())
        time.sleep(pause_s)
    return length


def _text(id_: str, place: int, length: int) -> str:
    """The answer at that place, as far as that: no two are the same."""
    return "".join(f"{id_} {place} {number} é散\n" for number in range(length // 15 + 1))[:length]


# --- what is left ------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """An answer, as its process logged it. `sent`: lengths and when."""

    question: str
    sent: list[tuple[int, float]] = field(default_factory=list)
    ending: int | None = None
    ended: bool = False


def _read(log: Path) -> list[list[Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _judge(store: Store, log: list[list[Any]], killed_s: float, counts: Counter[str], behind_s: float) -> list[str]:
    said: dict[str, dict[int, Said]] = {}
    deleting, deleted, wrong = set(), set(), []
    for what, *facts in log:
        match what:
            case "begun":
                said.setdefault(facts[0], {})[facts[1]] = Said(facts[2])
            case "sent":
                said[facts[0]][facts[1]].sent.append((facts[2], facts[3]))
            case "ending":
                said[facts[0]][facts[1]].ending = facts[2]
            case "ended":
                said[facts[0]][facts[1]].ended = True
            case "deleting":
                deleting.add(facts[0])
            case "deleted":
                deleted.add(facts[0])
            case _:
                wrong.append(f"{what}: {facts}")
    counts.update(conversations=len(said), deleted=len(deleted))
    for id_, answers in said.items():
        try:
            turns = store.conversations.turns(id_)
        except InvalidRequestError:
            wrong += [] if id_ in deleting else [f"{id_} is lost"]
            continue
        wrong += [f"{id_} is not deleted"] if id_ in deleted else []
        wrong += [
            f"{id_} {place}: {words}"
            for place, answer in answers.items()
            for words in _compare(id_, place, answer, turns[place - 1 : place + 1], killed_s, counts, behind_s)
        ]
    return wrong


def _compare(
    id_: str, place: int, answer: Said, turns: Any, killed_s: float, counts: Counter[str], behind_s: float
) -> list[str]:
    if [turn.role for turn in turns] != ["user", "assistant"] or turns[0].text != answer.question:
        return [f"is {turns}"]
    text, verdict = turns[1].text, turns[1].verdict
    counts["ended" if verdict == "complete" else "half"] += 1
    if verdict == "complete":
        right = answer.ending is not None and text == _text(id_, place, answer.ending)
        return [] if right else ["is complete, and not as it ended"]
    if answer.ended or verdict != "interrupted":
        return [f"was acknowledged, and is {verdict}"]
    longest = _text(id_, place, LONGEST)
    if not longest.startswith(text):
        return ["is no beginning of what was sent"]
    sent = max((length for length, _ in answer.sent), default=0)
    behind = len(longest[len(text) : sent].encode())
    counts["most behind"] = max(counts["most behind"], behind)
    old = max((length for length, at_s in answer.sent if at_s < killed_s - behind_s), default=0)
    if len(text) < old and behind > BEHIND_BYTES:
        return [f"is {behind} bytes behind, and of what is older than {behind_s} s it misses {old - len(text)}"]
    return []
