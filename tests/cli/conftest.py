"""The program as people meet it: `invoke` in this process for texts, `start` as a process of its own for the rest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowgpt import config
from flowgpt.cli.program import program
from flowgpt.embedded import Server

PYTHON = r"docs/|partial_text|\w=|`timeout`"
"""What a hint for people at a terminal has none of."""

Invoke = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[bytes]"]
Write = Callable[[str], None]


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs buffer their output, as on a person's machine: a missing flush shows."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Programs that tests start hear Ctrl-C, even when the suite itself is to ignore it, as in `make test &`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def configure() -> Write:
    """Write the configuration file."""

    def write(toml: str) -> None:
        config.home().mkdir(parents=True, exist_ok=True)
        (config.home() / "config.toml").write_text(toml, "utf-8")

    return write


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, configure: Write) -> Iterator[Server]:
    """The embedded server in a thread, as the configured endpoint; nothing is retried."""
    configure("max_retries = 0\n")
    with Server() as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def invoke() -> Invoke:
    def invoke(*args: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(program, args, input=stdin)

    return invoke


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `python -m flowgpt` with warnings as errors; what is left over at the end is killed.

    Not under -X dev, whose loops complain of slow steps: a busy machine is no fault.
    """
    with contextlib.ExitStack() as stack:

        def start(*args: str, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
            streams: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
            child = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "flowgpt", *args],
                **streams | {"stdin": subprocess.DEVNULL} | how,
                env=os.environ | (env or {}),
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            return child

        yield start


@pytest.fixture
def unwritable_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home below a file: even root cannot make it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "file" / "home"))
