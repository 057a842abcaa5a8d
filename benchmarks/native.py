"""The other side of what is measured, compiled, so that it is never what is waited for; and processes under measure.

`native/upstream.c` answers, `native/load.c` asks; both say what CPU they took themselves. Linux only: they wait by
epoll, and a process's figures are read from /proc.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Literal, Self

import msgspec

from .figures import expect

HERE = Path(__file__).parent
PATIENCE_S = 300
READY_S = 180

Mode = Literal["burst", "each", "cadence", "hold"]


@functools.cache
def program(name: str) -> str:
    """The path of a program of native/, compiled for this run."""
    folder = tempfile.mkdtemp(prefix="flowgpt-benchmarks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/{name}"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", path, str(HERE / "native" / f"{name}.c")], check=True)
    return path


class Upstream:
    """A server, while the block lasts: FlowGPT's lines on every path, OpenAI's events on /v1/chat/completions.

    Every answer has `count` texts, each an HTTP chunk of its own: all at once (burst), one write each (each), one each
    `interval_ms` (cadence), or the first and no more (hold). With `crowd`, streams get their first text, and go on when
    so many are open. A question that contains `warm up` is answered at once, whatever the mode.
    """

    def __init__(self, mode: Mode, count: int, *, interval_ms: float = 20, crowd: int = 1) -> None:
        self.origin = ""
        self.cpu_s = 0.0
        self.busy = 0.0
        """The share of a core that it took, once the block has ended."""
        self._command = [program("upstream"), mode, str(count), str(interval_ms), str(crowd)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.origin = self._process.stdout.readline().strip()
        self._started_s = time.monotonic()
        return self

    def __exit__(self, *_facts: object) -> None:
        lasted_s = time.monotonic() - self._started_s
        said, _ = self._process.communicate()
        self.cpu_s = float(said)
        self.busy = self.cpu_s / lasted_s


class Load(msgspec.Struct, frozen=True):
    """What the generator saw. A failed stream is one without all its texts, without its end, or not of status 200."""

    streams: int
    failed: int
    texts: int
    seconds: float
    cpu_s: float
    first_p50_us: float
    """From the request's last byte sent to the first text."""
    first_p99_us: float

    @property
    def busy(self) -> float:
        """The share of a core that the generator took itself."""
        return self.cpu_s / self.seconds


def load(
    origin: str,
    path: str,
    body: object,
    *,
    count: int,
    streams: int,
    connections: int = 32,
    end: str = "[DONE]",
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Ask so many streams over so many keep-alive connections, each as soon as the one before it has ended.

    `body` is sent as JSON; `count` is how many texts each stream must have, `end` what must stand after them.
    Raises: WrongResult, when a stream failed.
    """
    command = _generator("load", origin, path, [connections, streams, count], end, headers)
    asked = msgspec.json.encode(body)
    ended = subprocess.run(command, input=asked, stdout=subprocess.PIPE, check=True, timeout=PATIENCE_S)
    found = msgspec.json.decode(ended.stdout, type=Load)
    expect(found.failed, 0, f"failed streams of {path} at {origin}")
    return found


@contextmanager
def held(
    origin: str, path: str, body: object, *, streams: int, headers: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Keep so many streams open while the block lasts, each with its first text. Raises: WrongResult."""
    command = _generator("hold", origin, path, [streams, streams, 1], "", headers)
    with tempfile.TemporaryFile() as asked:
        asked.write(msgspec.json.encode(body))
        asked.seek(0)
        process = subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        expect(json.loads(process.stdout.readline())["failed"], 0, f"streams of {path} at {origin} that did not open")
        yield
    finally:
        process.terminate()
        process.communicate()


def _generator(
    mode: str, origin: str, path: str, counts: Sequence[int], end: str, headers: Mapping[str, str] | None
) -> list[str]:
    host, _, port = origin.removeprefix("http://").partition(":")
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    return [program("load"), mode, host, port, path, *map(str, counts), end, *lines]


def environment(home: Path) -> dict[str, str]:
    """What a process under measure may see. With a PYTHONPATH, another flowgpt than this checkout's is measured."""
    places = filter(None, [os.environ.get("PYTHONPATH"), str(HERE.parent)])
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.pathsep.join(places)}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Served:
    """A server process under measure, while the block lasts: ready when its port accepts.

    `{port}` in the command is replaced by a free one. Only PATH and `env` are in its environment, and
    its HOME is an empty folder. What it says goes to `log`.
    """

    def __init__(self, command: Sequence[str], *, env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.home = Path(tempfile.mkdtemp(prefix="flowgpt-benchmarks-home-"))
        self.log = self.home / "log"
        self._command = [word.replace("{port}", str(self.port)) for word in command]
        self._env = environment(self.home) | (env or {})

    def __enter__(self) -> Self:
        started_s = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)
        while not self._accepts():
            if self.process.poll() is not None or time.monotonic() - started_s > READY_S:
                self.__exit__(RuntimeError)
                raise RuntimeError(f"{self._command} did not begin to serve")
            time.sleep(0.005)
        self.ready_s = time.monotonic() - started_s
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_facts: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said = self.log.read_text(errors="replace")
        shutil.rmtree(self.home, ignore_errors=True)
        if kind is not None:
            print(f"{' '.join(self._command)} said: … {self.said[-2000:]}", file=sys.stderr)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def cpu_s(self) -> float:
        """The CPU seconds that it took until now, those of its live children included."""
        return sum(map(cpu_s, family(self.process.pid)))

    def rss_bytes(self) -> int:
        """What it has in memory now, its children included (what they share counts for each)."""
        return sum(map(rss_bytes, family(self.process.pid)))


class Told(msgspec.Struct, frozen=True):
    """What a client process said of its work (clients.py)."""

    wrong: int
    """How many replies were not the texts that were sent."""
    texts: int
    """Of all replies together."""
    cpu_s: float
    flow_cpu_s: float
    """Of `cpu_s`, what was spent after every stream had its first text: a stream's opening is not in it."""
    first_us: float
    """From the call to the first text: the median of the replies."""


class Client:
    """A client process under measure, while the block lasts: a variant of clients.py, or a program that speaks as it.

    It does what lines on its stdin say, and answers each by a line.
    """

    def __init__(self, command: Sequence[str], *, env: dict[str, str] | None = None) -> None:
        self.command = list(command)
        self._env = environment(Path(tempfile.gettempdir())) | (env or {})

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self.command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_facts: object) -> None:
        self.process.communicate()

    def ask(self, count: int, *, streams: int = 1, together: bool = False, question: str = "?") -> Told:
        """Let it ask for `count` texts so many times, one after the other or all at once. Raises: WrongResult."""
        self.say([count, streams, together, question])
        told = msgspec.json.decode(self.hear(), type=Told)
        expect(told.wrong, 0, f"wrong replies of {self.command}")
        return told

    @contextmanager
    def holding(self, streams: int) -> Iterator[None]:
        """Let it keep so many streams open, each with its first text, while the block lasts."""
        self.say([0, streams, True, "?"])
        self.hear()
        yield
        self.say(None)
        self.hear()

    def rss_bytes(self) -> int:
        """What it has in memory now."""
        return sum(map(rss_bytes, family(self.process.pid)))

    def say(self, line: object) -> None:
        """One line of JSON to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """One line of its stdout. Raises: WrongResult, when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        expect(bool(line), True, f"{self.command} goes on")
        return line


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def spent(command: Sequence[str], env: Mapping[str, str]) -> tuple[float, float, str]:
    """Run a command to its end: the seconds it took, its CPU seconds, and what it said; no other child may end then.

    Raises: CalledProcessError.
    """
    began_s, before = time.monotonic(), getrusage(RUSAGE_CHILDREN)
    ended = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    after, lasted_s = getrusage(RUSAGE_CHILDREN), time.monotonic() - began_s
    return lasted_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended.stdout


def cpu_s(pid: int) -> float:
    """The CPU seconds of a process, its ended threads included, to the nanosecond.

    Source of the clock's number: clock_getcpuclockid(3), which Python offers for threads only.
    """
    return time.clock_gettime(~pid << 3 | 2)


def rss_bytes(pid: int) -> int:
    """The resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
