"""Several gateway processes at one socket: they are started, watched, started again, and drained together.

The supervisor serves nothing itself. A worker is the same program with the socket's descriptor; it prints a line once
it serves, and hears its supervisor at its standard input: a byte is a signal, the end (however the supervisor ended)
is the end. So one SIGTERM to a whole group of processes is still one signal for each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .. import config, serving
from ..errors import InvalidRequestError
from . import metrics

SETTLED_S = 10.0
"""A worker that has lived so long did not die of its start."""

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long to wait before a worker is started again, by how many in a row did not live for SETTLED_S."""

GRACE_S = 15.0
"""How much longer than its drain timeout a worker may take to end."""

AT_ONCE_S = 2.0
"""How long it may take after a second signal."""


def run(
    command: Sequence[str],
    listening_socket: socket.socket,
    *,
    count: int,
    drain_timeout_s: float,
    ready: Callable[[], object],
    tell: Callable[[str], object],
) -> int:
    """Keep `count` workers running in the main thread until SIGINT or SIGTERM, and give the exit code.

    `command` is the worker's program; the socket's descriptor follows. `ready` is called once the first worker serves;
    when it ends before, its exit code is given. `tell` is given a line for each worker that ended by itself.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise InvalidRequestError("several workers need a POSIX system", hint="leave --workers out")
    with listening_socket, tempfile.TemporaryDirectory(prefix="flowgpt-metrics-") as folder:
        supervisor = _Supervisor(
            [*command, str(listening_socket.fileno())], listening_socket, folder, drain_timeout_s, tell
        )
        return serving.run(supervisor.run(count, ready), supervisor.hear, is_last=True)


@dataclass
class _Supervisor:
    """The workers that live now, and how many signals came."""

    command: Sequence[str]
    listening_socket: socket.socket
    folder: str
    drain_timeout_s: float
    tell: Callable[[str], object]
    workers: set[asyncio.subprocess.Process] = field(default_factory=set)
    signals: int = 0
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self) -> None:
        """Hand a signal on to the workers; who takes too long is killed."""
        self.signals += 1
        self.ending.set()
        if self.signals > 2:
            return  # all is said
        for worker in self.workers:
            _signal(worker)
        wait_s = AT_ONCE_S if self.signals > 1 else self.drain_timeout_s + GRACE_S
        asyncio.get_running_loop().call_later(wait_s, self._kill)

    async def run(self, count: int, ready: Callable[[], object]) -> int:
        first = await self._start()
        assert first.stdout is not None
        if not await first.stdout.readline():
            code = await self._end_of(first)
            return 0 if self.ending.is_set() else max(code, 1)
        ready()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._keep(first if number == 0 else None))
        return 0

    async def _keep(self, worker: asyncio.subprocess.Process | None) -> None:
        """See to it that one worker more is running, until the end (I18)."""
        loop = asyncio.get_running_loop()
        early = 0
        while worker or not self.ending.is_set():
            started_s = loop.time()
            try:
                worker = worker or await self._start()
                what = f"worker {worker.pid} ended with {await self._end_of(worker)}"
            except OSError as error:  # no memory, no process, no descriptor: now
                what = f"a worker cannot be started: {error.strerror}"
            if self.ending.is_set():
                return
            worker = None
            early = 0 if loop.time() - started_s >= SETTLED_S else early + 1
            wait_s = BACKOFF_S[min(max(early - 1, 0), len(BACKOFF_S) - 1)]
            self.tell(f"{what}; another is started" + (f" in {wait_s:g} s" if wait_s else ""))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), wait_s)

    async def _start(self) -> asyncio.subprocess.Process:
        """A worker in a session of its own: Ctrl-C reaches the supervisor only."""
        worker = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.listening_socket.fileno()],
            env=config.environment(PROMETHEUS_MULTIPROC_DIR=self.folder),
            start_new_session=True,
        )
        self.workers.add(worker)
        for _ in range(self.signals):
            _signal(worker)
        return worker

    async def _end_of(self, worker: asyncio.subprocess.Process) -> int:
        """Wait until it has ended, and give its exit code."""
        code = await worker.wait()
        self.workers.discard(worker)
        metrics.worker_ended(worker.pid, self.folder)
        return code

    def _kill(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()


def _signal(worker: asyncio.subprocess.Process) -> None:
    assert worker.stdin is not None
    if not worker.stdin.is_closing():
        worker.stdin.write(b".")
