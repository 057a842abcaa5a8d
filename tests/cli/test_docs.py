"""The pages show what the program prints: each console block is played again, and compared as a whole."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowgpt.cli.program import COMMANDS, program
from flowgpt.embedded import Server

pytestmark = pytest.mark.slow  # each block of the pages is played, by programs

PAGES = ("terminal", "chat", "history", "characters", "batch")
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(
        r"^```console(?: fault=(\S+))?\n(.*?)^```$",
        (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
]
HERE = re.compile(r"flowgpt (?:history|templates|character (?:list|import|remove)) [^|&;<>$]*")
"""What needs no shell and asks nobody: it runs in this process."""


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    """The address of one embedded server for all commands that don't tell of theirs."""
    with Server() as server:
        yield server.base_url


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which `flowgpt` is installed, with a home of its own, our examples, and a terminal of 80 columns."""
    script = tmp_path / "bin" / "flowgpt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m flowgpt "$@"\n')
    script.chmod(0o755)
    (tmp_path / "examples").symlink_to(Path(__file__).parents[2] / "examples")
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / ".config" / "flowgpt"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "UTC")  # the history shows local times


def play(block: str, home: Path) -> str:
    """The block again, with what its commands print now; what differs from run to run is evened out."""
    played = ""
    environment = dict(os.environ)
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        if exported := re.fullmatch(r"export (\w+)=(\S+)", command):
            environment[exported[1]] = exported[2]
            output = ""
        elif helped := re.fullmatch(r"flowgpt ((?:\w+ )*--help)", command):
            # 80 columns, less what click leaves free
            output = CliRunner().invoke(program, helped[1].split(), terminal_width=78).output
        elif HERE.fullmatch(command):
            words = [os.path.expanduser(word) for word in shlex.split(command)[1:]]
            with chdir(home):
                output = CliRunner().invoke(program, words, env=environment).output
        elif command.startswith("flowgpt embedded"):
            output = serve(command, environment)
        else:
            output = subprocess.run(
                ["sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                cwd=home,
                timeout=60,
                check=False,
            ).stdout
        played += f"$ {command}\n{output}"
    played = played.replace(str(home), "~")
    played = re.sub(r"http://127\.0\.0\.1:\d++(?!/v1)", "http://127.0.0.1:8000", played)
    played = re.sub(r" +$", "", played, flags=re.MULTILINE)
    played = re.sub(r"\d\.\d\d s", "0.36 s", played)
    played = re.sub(r'"conversation": "\w{10}"', '"conversation": "k3v7qmz2ua"', played)
    played = re.sub(r"x-nonce: \w+", "x-nonce: 0f0e0d0c0b0a09080706050403020100", played)
    played = re.sub(r"x-timestamp: \d+", "x-timestamp: 1712345678", played)
    played = re.sub(r"Python \d+\.\d+\.\d+\w*", "Python 3.14.2", played)
    played = re.sub(
        r"^(ok|warn) +sqlite: .*\n( +hint: .*\n)?", "ok      sqlite: SQLite 3.51.3\n", played, flags=re.MULTILINE
    )
    return re.sub(r'_s": \d\.\d+(e-\d+)?', '_s": 0.36', played)


def serve(command: str, environment: dict[str, str]) -> str:
    """What a server says when it starts; it is ended by Ctrl-C."""
    with subprocess.Popen(
        [*shlex.split(command), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as child:
        assert child.stdout is not None
        said = ""
        while (line := child.stdout.readline()) and not line.startswith("hint: "):
            said += line
        said += line
        child.send_signal(signal.SIGINT)
        return said + child.stdout.read()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("fault", "block"), BLOCKS, ids=[block.split("\n")[0][2:] for _, block in BLOCKS])
def test_the_page_shows_what_the_program_prints(
    fault: str, block: str, embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        if fault:
            monkeypatch.setenv("FLOWGPT_BASE_URL", stack.enter_context(Server(fault=fault)).base_url)
        elif " -q " in block and '"endpoint": ' not in block:
            monkeypatch.setenv("FLOWGPT_BASE_URL", embedded)

        assert play(block, tmp_path) == block


def test_the_page_has_the_help_of_every_command() -> None:
    shown = "".join(block for _, block in BLOCKS)

    assert len(BLOCKS) >= 12
    for command in ("", *(f"{name} " for name in COMMANDS)):
        assert f"$ flowgpt {command}--help\nUsage: flowgpt {command}" in shown
