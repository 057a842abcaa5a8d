"""Sync over async, the only place: one event loop in one thread, started at the first sync call.

One task there reads a whole reply, so that everything in it stays in one context; batches are handed over through a
bounded queue, and closing the sync side closes the reply. Works inside a running event loop (a notebook) too.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from .errors import InvalidRequestError
from .messages import Batch
from .reply import Reply, closed_early

AHEAD = 4
"""How many batches may wait for the reader: enough that the threads do not wait for each other at each text."""

LIMIT_CLOSE_S = 1.0
"""How long closing waits for the loop thread: much longer than it takes, and short enough for an interpreter's exit."""


class _Thread:
    """The loop thread of this process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.stopped = False
        self._ready = threading.Event()
        self.thread = threading.Thread(target=self._run, name="flowgpt-bridge", daemon=True)
        self.thread.start()
        self._ready.wait()
        atexit.register(self.stop)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()

    def soon(self, call: Callable[[], object]) -> None:
        """Have the loop thread do it; nothing when that thread is gone, as after a fork."""
        if self.process == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        """At the interpreter's exit: end what is open, close the loop."""
        self.stopped = True
        self.soon(lambda: self._end.set())
        self.thread.join(LIMIT_CLOSE_S)


_current: _Thread | None = None
_lock = threading.Lock()


def _thread() -> _Thread:
    """The loop thread that serves the sync calls of this process; a forked child gets its own."""
    global _current
    with _lock:
        if _current is None or not _current.thread.is_alive():
            _current = _Thread()
        return _current


def _after_fork() -> None:
    global _current, _lock
    _current, _lock = None, threading.Lock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Reading:
    """The loop thread's side of one reply. It knows nothing of the reader's side, which may be dropped meanwhile."""

    def __init__(self, reply: Reply) -> None:
        self.queue: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
        self.room = asyncio.Semaphore(AHEAD - 1)
        self.ended = threading.Event()
        self._reply = reply
        self._task: asyncio.Task[BaseException | None] | None = None

    def begin(self, thread: _Thread) -> None:
        self._thread = thread
        self._task = asyncio.get_running_loop().create_task(self._read())
        self._task.add_done_callback(self._finish)

    async def _read(self) -> BaseException | None:
        try:
            while (batch := await self._reply.next()) is not None:
                self.queue.put(batch)
                await self.room.acquire()
        except (KeyboardInterrupt, SystemExit) as fatal:  # raised by a task, it would end the loop for all
            return fatal
        return None

    def _finish(self, task: asyncio.Task[BaseException | None]) -> None:
        self._reply.close()
        if not task.cancelled():
            self.queue.put(task.exception() or task.result())
        elif not self._thread.stopped:  # at the interpreter's exit a reader, in a daemon thread, ends without a word
            self.queue.put(closed_early())
        self.ended.set()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Batches(Iterator[Batch]):
    """The batches of a reply, read in the loop thread from the first `next` on. `close` works from any thread.

    Raises: FlowGPTError; InvalidRequestError when another thread is reading (H7), in the child of a fork (H13), or
    inside the loop thread, which would wait for itself.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._reading = _Reading(reply)
        self._thread: _Thread | None = None
        self._turn = threading.Lock()

    def __next__(self) -> Batch:
        if not self._turn.acquire(blocking=False):
            raise InvalidRequestError("this reply is already being read by another thread")
        try:
            self._ask()
            item = self._reading.queue.get()
        except BaseException:  # KeyboardInterrupt, most of all
            self.close()
            raise
        finally:
            self._turn.release()
        if isinstance(item, Batch):
            return item
        self._reading.queue.put(item)  # it ended: the next `next` says so again
        if item is None:
            raise StopIteration
        raise item

    def _ask(self) -> None:
        """Have the next batch read."""
        if self._thread is not None:
            if self._thread.process != os.getpid():
                raise InvalidRequestError("this reply belongs to the parent process", code="forked_process")
            self._thread.soon(self._reading.room.release)
            return
        thread = _thread()
        if thread.thread is threading.current_thread():
            raise InvalidRequestError(
                "a sync call inside of another sync call's event loop would wait for itself", code="wrong_loop"
            )
        self._thread = thread
        thread.soon(functools.partial(self._reading.begin, thread))

    def close(self) -> None:
        """Stop reading: the connection below is closed now, and this waits until it is."""
        if self._thread is None:
            self._reply.close()
            return
        self._thread.soon(self._reading.cancel)
        if self._thread.process == os.getpid() and self._thread.thread is not threading.current_thread():
            self._reading.ended.wait(LIMIT_CLOSE_S)

    def __del__(self) -> None:
        if self._thread is not None:  # in whatever thread the last reference went: never wait here (H21)
            self._thread.soon(self._reading.cancel)


def texts(reply: Reply) -> Iterator[str]:
    """The texts of a reply, one for each text event. Raises: FlowGPTError."""
    batches = Batches(reply)
    try:
        for batch in batches:
            yield from batch.texts
    finally:
        batches.close()
