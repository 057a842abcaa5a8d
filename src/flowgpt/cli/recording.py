"""What keeps a conversation while it goes on: a thread that writes what has come, at most 1 s or 4 KiB behind it.

A store that fails is told of once, and again when it works; the talk goes on, and what could not be written is written
with what comes after it. Nothing here asks a model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from ..conversation import Turn
from ..errors import InvalidRequestError, StoreError
from ..store import Store

BEHIND_S = 0.5
"""How old a text may be before it is written; half of what is promised, since a write takes time."""

BEHIND_BYTES = 4096


class Recording:
    """Keeps one conversation in the store. `tell`: is given one line of trouble; it is called in the thread.
    `trouble`: whether the last write failed.

    What the talk calls never waits, and never raises: only `settle` and `close` wait.
    """

    def __init__(self, store: Store, tell: Callable[[str], None]) -> None:
        self._conversations = store.conversations
        self._tell = tell
        self._id: str | None = None
        self._turns: list[Turn] = []
        self._kept = 0  # so many of the turns are in the store
        self._cut = False  # the one in the store has more turns than are to be gone on with
        self._owed: int | None = None  # the place of one that is not there as it is now
        self._behind: list[str] = []
        self._size = 0  # of what is behind, in bytes
        self._due_s: float | None = None
        self.trouble = self._over = False
        self._items: SimpleQueue[str | Callable[[], object]] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="flowgpt-recording", daemon=True)
        self._thread.start()

    # --- the talk's side ---------------------------------------------------------------------------------------------

    def resume(self, id: str, turns: Sequence[Turn]) -> None:  # noqa: A002  # as everywhere
        """Go on with what is in the store."""

        def resume() -> None:
            self._id, self._turns, self._kept, self._cut = id, [*turns], len(turns), False

        self._items.put(resume)

    def begin(self, turns: Sequence[Turn]) -> None:
        """The conversation as it is now: its last turn is an answer of which nothing has come."""
        now = [*turns]

        def begin() -> None:
            self._turns = now
            self._kept = min(self._kept, len(now))

        self._items.put(begin)
        self._items.put(self._catch_up)

    def add(self, text: str) -> None:
        """A text of the answer."""
        self._items.put(text)

    def end(self, turn: Turn) -> None:
        """What the answer has become."""

        def end() -> None:
            self._forget()
            self._turns[-1] = turn
            self._owed = len(self._turns) - 1

        self._items.put(end)
        self._items.put(self._catch_up)

    def cut(self, count: int) -> None:
        """Go on from the first `count` turns: in a branch, once something is said."""

        def cut() -> None:
            self._turns = self._turns[:count]
            self._cut = self._cut or count < self._kept
            self._kept = min(self._kept, count)
            self._owed = None

        self._items.put(cut)

    def branch(self) -> None:
        """Go on in a branch from here."""

        def branch() -> None:
            if self._id is not None:
                self._id, self._cut = self._conversations.branch(self._id, self._kept), False

        self._items.put(lambda: self._try(branch))

    def settle(self) -> str | None:
        """Wait until all is written, or has failed; the id of the conversation, None while it has none."""
        done = threading.Event()
        self._items.put(done.set)
        while self._thread.is_alive() and not done.wait(1):  # after `close`, or a fault of ours, nobody would set it
            pass
        return self._id

    def close(self) -> None:
        """Wait until all is written, or has failed once more."""
        if not self._closed:
            self._closed = True
            if self.trouble:
                self._items.put(self._catch_up)
            self.settle()
            if self._cut and any(turn.role == "user" for turn in self._turns):
                self.branch()  # or what was taken back would be there again tomorrow
            self._items.put(self._finish)
            self._thread.join()

    # --- the thread's side -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._over:
            wait_s = None if self._due_s is None else max(0.0, self._due_s - time.monotonic())
            try:
                item = self._items.get(timeout=wait_s)
            except Empty:
                self._draft()
                continue
            if isinstance(item, str):
                self._behind.append(item)
                self._size += len(item.encode("utf-8", "replace"))
                self._due_s = self._due_s or time.monotonic() + BEHIND_S
                if self._size >= BEHIND_BYTES:
                    self._draft()
            else:
                item()

    def _finish(self) -> None:
        self._over = True

    def _forget(self) -> None:
        self._behind, self._size, self._due_s = [], 0, None

    def _draft(self) -> None:
        """Write what is behind. What cannot be written stays behind, or comes with the whole answer."""
        text, id_, place = "".join(self._behind), self._id, self._kept - 1
        self._forget()
        if id_ is None or self._kept < len(self._turns):
            return
        if text and not self._try(lambda: self._conversations.draft(id_, place, text)):
            self._behind, self._due_s = [text], time.monotonic() + BEHIND_S

    def _catch_up(self) -> None:
        """Write all that is not in the store as it is."""
        self._try(self._put)

    def _put(self) -> None:
        conversations = self._conversations
        try:
            if self._id is not None and self._owed is not None and self._owed < self._kept:
                conversations.end(self._id, self._owed, self._turns[self._owed])
            if self._kept < len(self._turns):
                self._id = conversations.add(self._id, self._kept, self._turns[self._kept :])
                self._cut = False
        except InvalidRequestError:  # it was deleted meanwhile: what is still said here is kept anew
            self._id, self._cut = conversations.add(None, 0, self._turns), False
        self._kept, self._owed = len(self._turns), None

    def _try(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except InvalidRequestError:  # it was deleted meanwhile: `_put` will say it anew
            return False
        except StoreError as error:
            if not self.trouble:
                self._tell(f"flowgpt: this conversation is not being saved: {error.message}")
            self.trouble = True
            return False
        if self.trouble:
            self._tell("flowgpt: this conversation is being saved again")
        self.trouble = False
        return True
