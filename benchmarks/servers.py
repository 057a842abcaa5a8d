"""Servers under measure, ours and the floors, each with how it is asked. A peer is described in the same way."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from .floors import request
from .native import Load, Served, environment, held, load

CHAT = {"model": "gpt-3.5-turbo", "stream": True, "messages": [{"role": "user", "content": "?"}]}
UNLIMITED = ("--max-streams", "20000", "--max-streams-per-key", "20000", "--requests-per-minute", "100000000")
"""The limits are counted, and not reached."""

GROUP = 100


@dataclass(frozen=True, slots=True)
class Asking:
    """A running server, the path and the body that are asked, and what stands at the end of an answer.

    Every `body` asks "?".
    """

    served: Served
    path: str = "/v1/chat/completions"
    body: Mapping[str, object] = field(default_factory=lambda: CHAT)
    end: str = "[DONE]"
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, count: int, *, streams: int, connections: int = 32) -> tuple[Load, float]:
        """Streams of `count` texts, and the CPU seconds that the server took for them. Raises: WrongResult."""
        before_s = self.served.cpu_s()
        found = load(
            self.served.origin,
            self.path,
            self.body,
            count=count,
            streams=streams,
            connections=connections,
            end=self.end,
            headers=self.headers,
        )
        return found, self.served.cpu_s() - before_s

    def warm_up(self, count: int) -> None:
        """Some streams that are answered at once, with so many texts each: what a first answer loads is no stream's."""
        body = json.loads(json.dumps(self.body).replace('"?"', '"warm up"'))
        replace(self, body=body).ask(count, streams=GROUP // 2)

    def open(self, streams: int) -> AbstractContextManager[None]:
        """So many streams, each with its first text, while the block lasts."""
        return held(self.served.origin, self.path, self.body, streams=streams, headers=self.headers)

    def kib_a_stream(self, streams: int) -> float:
        """The resident memory that each of so many open streams takes, above what there was before them.

        Opened GROUP by GROUP: what is asked for is an open stream's memory, not that of thousands which begin at once.
        """
        before = self.served.rss_bytes()
        with contextlib.ExitStack() as opened:
            for _ in range(0, streams, GROUP):
                opened.enter_context(self.open(GROUP))
            return (self.served.rss_bytes() - before) / streams / 1024


@functools.cache
def _home() -> tuple[Path, str]:
    """A FLOWGPT_HOME with one key, and the key: authentication is on."""
    home = Path(tempfile.mkdtemp(prefix="flowgpt-benchmarks-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    command = [sys.executable, "-m", "flowgpt", "keys", "add", "benchmarks"]
    env = environment(home) | {"FLOWGPT_HOME": str(home)}
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return home, made.stdout.strip()


def flowgpt(origin: str, workers: int = 1, *, under: tuple[str, ...] = ()) -> Served:
    """Our gateway: authentication, limits, metrics, the access log and truthful endings on. `under`: a profiler."""
    command = [*under, sys.executable, "-m", "flowgpt", "serve", "--port", "{port}", "--base-url", origin, *UNLIMITED]
    return Served([*command, "--workers", str(workers)], env={"FLOWGPT_HOME": str(_home()[0])})


def relay(origin: str, workers: int = 1, *, under: tuple[str, ...] = ()) -> Served:
    """floors/relay.py."""
    return Served([*under, sys.executable, "-m", "benchmarks.floors.relay", "{port}", origin, str(workers)])


def dialects(served: Served) -> dict[str, Asking]:
    """How our gateway is asked."""
    key = {"Authorization": f"Bearer {_home()[1]}"}
    model = {"model": "gpt-3.5-turbo", "stream": True}
    anthropic = {**model, "max_tokens": 100_000, "messages": CHAT["messages"]}
    return {
        "flowgpt, chat": Asking(served, headers=key),
        "flowgpt, responses": Asking(
            served, "/v1/responses", {**model, "input": "?", "store": False}, "response.completed", key
        ),
        "flowgpt, messages": Asking(
            served, "/v1/messages", anthropic, "message_stop", {**key, "anthropic-version": "2023-06-01"}
        ),
    }


@contextmanager
def nginx(origin: str) -> Iterator[Asking | None]:
    """The byte relay, asked in FlowGPT's protocol; None where nginx is missing."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        form = (Path(__file__).parent / "floors" / "nginx.conf").read_text()
        conf = Path(folder, "nginx.conf")
        served = Served([program, "-p", folder, "-e", f"{folder}/error", "-c", str(conf)])
        conf.write_text(form.format(folder=folder, origin=origin.removeprefix("http://"), port=served.port))
        with served:
            yield Asking(served, request.PATH, request.body("?"), "")
