"""gateway/workers.py: a supervisor and its workers as processes; what they serve is of no interest here."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.wire import BOUND_S, Answer, connect, read_to_end, read_until

WORKER = """
import asyncio, os, socket, sys, time
from flowgpt.gateway.serving import run
class App:
    over = None
    draining = False
    async def __call__(self, scope, receive, send):
        self.over = self.over or asyncio.Event()
        path = scope["path"]
        if path == "/die":
            os._exit(7)
        if path == "/block":
            time.sleep(1000)
        status = 503 if self.draining else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        said = f"{os.getpid()} {os.environ['PROMETHEUS_MULTIPROC_DIR']} ."
        await send({"type": "http.response.body", "body": said.encode(), "more_body": path == "/stream"})
        if path == "/stream":
            async def left():
                while (await receive())["type"] != "http.disconnect":
                    pass
            waiting = [asyncio.ensure_future(self.over.wait()), asyncio.ensure_future(left())]
            await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
            waiting[1].cancel()
            await send({"type": "http.response.body", "body": b"told"})
    def drain(self):
        self.draining = True
    async def finish(self):
        self.over = self.over or asyncio.Event()
        self.over.set()
bound = socket.socket(fileno=int(sys.argv[-1]))
run(App(), bound, drain_timeout_s=float(sys.argv[1]), ready=lambda: print("ready", flush=True), is_worker=True)
"""

pytestmark = pytest.mark.slow  # each test starts a supervisor and its workers

SUPERVISOR = """
import json, sys
from flowgpt import serving
from flowgpt.gateway import workers
worker, facts = sys.argv[1:]
facts = json.loads(facts)
for name, value in facts.pop("constants", {}).items():
    setattr(workers, name, value)
bound = serving.bind("127.0.0.1", 0)
address = serving.base_url(bound)
command = [sys.executable, "-W", "error", "-c", worker, str(facts["drain_timeout_s"])]
def tell(words):
    print(words, flush=True)
print("ended", workers.run(command, bound, count=2, ready=lambda: tell(address), tell=tell, **facts))
"""


class Supervisor:
    """A supervisor of two workers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @functools.cached_property
    def base_url(self) -> str:
        """Its first line."""
        return self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, path: str = "/") -> Answer:
        with connect(self.base_url) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return Answer(*read_to_end(connection))

    def pids(self, stack: contextlib.ExitStack, count: int = 2) -> dict[int, Any]:
        """So many workers, and a stream of each that is under way. They are reached by chance: it asks until it has."""
        found: dict[int, Any] = {}
        while len(found) < count:
            connection = stack.enter_context(connect(self.base_url))
            connection.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
            said = read_until(connection, b".\r\n").rpartition(b"\r\n\r\n")[2].split(b"\r\n")[1]
            pid = int(said.split()[0])
            if pid in found:
                connection.close()
            else:
                found[pid] = connection
        return found

    def ended(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=BOUND_S)
        return self.process.returncode, output, errors


@contextlib.contextmanager
def supervised(worker: str = WORKER, **facts: Any) -> Iterator[Supervisor]:
    told = json.dumps({"drain_timeout_s": 60} | facts)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SUPERVISOR, worker, told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        watchdog = threading.Timer(3 * BOUND_S, process.kill)
        watchdog.start()
        try:
            yield Supervisor(process)
        finally:
            watchdog.cancel()
            process.kill()


PROPERLY = (0, "ended 0\n", "")


def test_i18_a_worker_that_is_killed_takes_its_own_streams_along_and_another_comes() -> None:
    with supervised() as supervisor, contextlib.ExitStack() as stack:
        (killed, cut), (other, spared) = supervisor.pids(stack).items()
        os.kill(killed, signal.SIGKILL)

        assert read_to_end(cut)[0] == b""
        assert supervisor.line() == f"worker {killed} ended with -9; another is started"
        assert len(supervisor.pids(stack, 2).keys() - {killed, other}) == 1
        spared.settimeout(0)
        with pytest.raises(BlockingIOError):
            spared.recv(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_i16_a_signal_lets_every_worker_drain(number: signal.Signals) -> None:
    with supervised(drain_timeout_s=0.05) as supervisor, contextlib.ExitStack() as stack:
        streams = supervisor.pids(stack).values()
        supervisor.process.send_signal(number)

        assert [read_to_end(stream)[0] for stream in streams] == [b"4\r\ntold\r\n0\r\n\r\n"] * 2
        assert supervisor.ended() == PROPERLY


def test_i16_a_signal_to_the_whole_group_is_still_one() -> None:
    """Service managers send it to every process."""
    with supervised(drain_timeout_s=0.5) as supervisor, contextlib.ExitStack() as stack:
        streams = supervisor.pids(stack)
        for pid in [supervisor.process.pid, *streams]:
            os.kill(pid, signal.SIGTERM)

        assert [read_to_end(stream)[0] for stream in streams.values()] == [b"4\r\ntold\r\n0\r\n\r\n"] * 2
        assert supervisor.ended() == PROPERLY


def test_i17_a_second_signal_ends_all_at_once() -> None:
    """Long before the drain timeout."""
    with supervised() as supervisor, contextlib.ExitStack() as stack:
        streams = supervisor.pids(stack).values()
        supervisor.process.send_signal(signal.SIGTERM)
        while supervisor.ask().status == 200:
            pass
        supervisor.process.send_signal(signal.SIGTERM)

        assert [read_to_end(stream)[0] for stream in streams] == [b""] * 2
        assert supervisor.ended() == PROPERLY


def test_workers_do_not_outlive_their_supervisor() -> None:
    with supervised() as supervisor, contextlib.ExitStack() as stack:
        streams = supervisor.pids(stack).values()
        supervisor.process.kill()

        assert [read_to_end(stream)[0] for stream in streams] == [b""] * 2
        with pytest.raises(ConnectionError):
            collections.deque(iter(supervisor.ask, None), 0)


def test_i18_a_worker_that_dies_again_and_again_is_started_later_and_later() -> None:
    """No storm."""
    with supervised(constants={"BACKOFF_S": [0, 0.01, 0.02]}) as supervisor, contextlib.ExitStack() as stack:
        (first, _), (stuck, _) = supervisor.pids(stack).items()
        os.kill(stuck, signal.SIGSTOP)  # so that all that follows meets the other
        told = []
        for _ in range(4):
            supervisor.ask("/die")
            told.append(supervisor.line().partition("; ")[2])
        os.kill(stuck, signal.SIGKILL)

        assert told == ["another is started" + more for more in ("", " in 0.01 s", " in 0.02 s", " in 0.02 s")]
        assert first != stuck


def test_a_worker_that_does_not_end_is_killed() -> None:
    constants = {"GRACE_S": 0.1}
    with supervised(drain_timeout_s=0, constants=constants) as supervisor, contextlib.ExitStack() as stack:
        supervisor.pids(stack)
        blocked = stack.enter_context(connect(supervisor.base_url))
        blocked.sendall(b"GET /block HTTP/1.1\r\nhost: x\r\n\r\n")
        supervisor.process.send_signal(signal.SIGTERM)

        assert supervisor.ended() == PROPERLY


def test_when_no_worker_can_start_its_error_and_exit_code_are_the_programs() -> None:
    with supervised("import sys; sys.exit('no way')") as supervisor:
        assert supervisor.base_url == "ended 1"
        assert supervisor.ended() == (0, "", "no way\n")


def test_a_signal_while_the_first_worker_starts_ends_it() -> None:
    """It is waited for all the same."""
    slow = "import os, sys\ndef tell(words): print(words, file=sys.stderr, flush=True)\n"
    slow += "tell('up'); os.read(0, 1); print('ready', flush=True); tell(os.read(0, 1))"
    with supervised(slow) as supervisor:
        assert supervisor.process.stderr is not None
        assert supervisor.process.stderr.readline() == "up\n"
        supervisor.process.send_signal(signal.SIGTERM)
        assert supervisor.base_url.startswith("http://")
        supervisor.process.send_signal(signal.SIGTERM)

        assert supervisor.ended() == (0, "ended 0\n", "b'.'\n")


def test_the_figures_of_all_workers_have_a_folder_that_goes_with_them() -> None:
    with supervised(drain_timeout_s=0) as supervisor:
        folder = Path(supervisor.ask().body.split()[2].decode())
        assert folder.is_dir()
        supervisor.process.send_signal(signal.SIGTERM)

        assert supervisor.ended() == PROPERLY
        assert not folder.exists()
