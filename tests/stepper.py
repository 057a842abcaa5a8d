"""A stepper: counts the awaits of one call, in all of its tasks, and acts at the k-th of them.

An await is a real suspension: a task hands a future, or nothing, to its loop. Counted so, the k-th one is the same
place of the program in every run, however long anything takes. Nothing here knows flowgpt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal, TypeVar

from tests.upstream import BOUND_S, HUNG_UP, Peer, Step

T = TypeVar("T")

When = Literal["before", "after", "again"]
"""`before`: while nothing has come yet; `after`: when it has come, but the task has not heard of it; `again`: as
`before`, and at every later await too, those of the cleaning up."""


class _Counted(Coroutine[Any, Any, Any]):
    """A task's coroutine; `step` is called with what it awaits, and gives it on."""

    def __init__(self, work: Coroutine[Any, Any, Any], step: Callable[[Any], Any]) -> None:
        self._work, self._step = work, step

    def send(self, value: Any) -> Any:
        return self._step(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._step(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()


class Stepper:
    """Runs one piece of work, and calls `act` with its task at await number `at` (from 1).

    `count`: how many there were so far. `acted`: whether the work had not ended by then.
    """

    def __init__(self, at: int, act: Callable[[asyncio.Task[Any]], object], when: When = "before") -> None:
        self.count = 0
        self.acted = False
        self._at, self._act, self._when = at, act, when
        self._over = False
        self._said_at = -1
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._task: asyncio.Task[Any]

    async def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run the work to its end, and give its task."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._make)
        try:
            self._task = loop.create_task(work)
            await asyncio.wait([self._task], timeout=BOUND_S)
            assert self._task.done(), f"it hangs, left at await {self._at}"
            return self._task
        finally:
            loop.set_task_factory(None)
            self._over = True
            self._wake()

    def say(self, data: bytes) -> Step:
        """A step of a script: send this once the call has awaited something since the last piece; after `act`, never.

        So nothing but leaving ends a call that was told to, and nothing but hanging up its connection.
        """

        async def step(peer: Peer) -> None:
            while self._is_early():
                changed = asyncio.Event()
                self._waiting.append((asyncio.get_running_loop(), changed))
                if self._is_early():
                    await changed.wait()
            if self.acted:
                await HUNG_UP(peer)
            else:
                self._said_at = self.count
                await peer.send(data)

        return step

    def _is_early(self) -> bool:
        return self.count <= self._said_at and not self.acted and not self._over

    def _make(self, loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Counted(work, self._step), loop=loop, **named)

    def _step(self, awaited: Any) -> Any:
        self.count += 1
        self._wake()
        if not self._task.done() and (self.count == self._at or (self.acted and self._when == "again")):
            if self._when == "after" and awaited is not None:
                awaited.add_done_callback(self._do)
            else:
                self._do()
        return awaited

    def _do(self, _: object = None) -> None:
        if not self._task.done():
            self.acted = True
            self._wake()
            self._act(self._task)

    def _wake(self) -> None:
        while self._waiting:
            loop, changed = self._waiting.pop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)
