"""The program as a whole: its words, its edge, and what it does in bad company."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from flowgpt import __version__
from flowgpt.cli import models
from flowgpt.embedded import Server
from tests.cli.conftest import Invoke, Start, Write

pytestmark = pytest.mark.slow  # each test starts the program

ROOT = Path(__file__).parents[2]


class Screen:
    """A terminal of its own, with the program in front of whoever types."""

    def __init__(self, *args: str, columns: int = 80) -> None:
        self.text = ""
        self._keys, screen = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        before = (
            "import fcntl, os, sys, termios\n"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"  # so that Ctrl-C becomes a signal
            "os.execv(sys.executable, sys.argv[1:])"
        )
        program = [sys.executable, "-W", "error", "-m", "flowgpt", *args]
        self.child = subprocess.Popen(
            [sys.executable, "-c", before, *program], stdin=screen, stdout=screen, stderr=screen, start_new_session=True
        )
        os.close(screen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._keys)

    def type(self, keys: bytes) -> None:
        os.write(self._keys, keys)

    def read(self, until: str | None = None) -> str:
        """All that is shown until these words, or until the program has ended. Raises: TimeoutError."""
        while until is None or until not in self.text:
            if not select.select([self._keys], [], [], 20)[0]:
                raise TimeoutError(self.text)
            try:
                data = os.read(self._keys, 4096)
            except OSError:  # how Linux says that no program has the terminal open any more
                data = b""
            if not data:
                break
            self.text += data.decode().replace("\r\n", "\n")
        return self.text


def shell(line: str, *, python: str = "-W error", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `flowgpt` is the program; a warning is an error."""
    program = f"{shlex.quote(sys.executable)} {python} -m flowgpt"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("flowgpt ", f"{program} ")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


# --- words --------------------------------------------------------------------------------------------------------


def test_the_installed_program_is_the_one_of_python_m() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]

    assert scripts == {"flowgpt": "flowgpt.cli:main"}
    done = shell("flowgpt --version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"flowgpt {__version__}\n", "")


def test_the_version_is_told_without_loading_what_it_does_not_need() -> None:
    code = (
        "import sys\nfrom flowgpt.cli import main\nsys.argv[1:] = ['--version']\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0\n"
        "print(*{'aiohttp', 'rich', 'starlette', 'uvicorn', 'flowgpt.cli.ask'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == f"flowgpt {__version__}\n\n"


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_names_every_option_command_and_exit_code(invoke: Invoke, word: str) -> None:
    result = invoke(word)

    assert (result.exit_code, result.stderr) == (0, "")
    for words in ("--model", "--base-url", "[env: FLOWGPT_BASE_URL]", "--version", "embedded", "models", "130"):
        assert words in " ".join(result.stdout.split())


def test_a_word_that_is_a_command_is_the_command(server: Server, invoke: Invoke) -> None:
    assert invoke("models").stdout.startswith("flowgpt: working\n\nmodel ")
    assert list(server.requests) == []


@pytest.mark.parametrize("args", [["modles"], ["model", "--json"], ["embeded"]])
def test_a_misspelt_command_is_a_usage_error_that_names_it(server: Server, invoke: Invoke, args: list[str]) -> None:
    result = invoke(*args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Did you mean " in result.stderr
    assert f"To ask it: flowgpt ask {args[0]}" in result.stderr
    assert list(server.requests) == []


def test_k9_a_warning_is_one_line(server: Server, configure: Write) -> None:
    configure("api_key = 'a key'\n")  # which others may read, K9
    done = shell("flowgpt hi", python="")

    (line,) = done.stderr.splitlines()
    assert (done.returncode, len(server.requests)) == (0, 1)
    assert line.startswith("flowgpt: warning: ")
    assert line.endswith("others may read it: chmod 600")


# --- the edge -----------------------------------------------------------------------------------------------------


def test_what_nobody_expected_is_one_line_without_a_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("with a secret in it")

    monkeypatch.setattr(models, "Client", fail)
    monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=False))
    result = invoke("models")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("flowgpt: unexpected RuntimeError\nhint: report it")
    assert "secret" not in result.stderr


def test_j10_a_pipe_that_closes_in_the_answer_ends_quietly(server: Server) -> None:
    server.fault("endless")
    done = shell("flowgpt hi | head -c 5")

    assert (done.returncode, len(done.stdout), done.stderr) == (141, 5, "")
    server.wait_until_idle()


@pytest.mark.parametrize("words", ["--help", "models -q", "--json hi"])
def test_j10_a_pipe_that_was_closed_before_ends_quietly_too(server: Server, start: Start, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    child = start(*words.split(), stdout=write)
    os.close(write)

    assert (child.communicate(timeout=30)[1], child.returncode) == (b"", 141)
    server.wait_until_idle()


@pytest.mark.parametrize(
    ("line", "words", "code"),
    [
        ("flowgpt < /dev/zero", "standard input is larger than 4,194,304 bytes", 2),
        ("printf '\\377\\0x' | flowgpt ask", "standard input is not UTF-8, at byte 0", 2),
        ("mkfifo pipe; (printf Hello > pipe &); flowgpt < pipe", "", 0),
    ],
    ids=["J9 without end", "J9 binary", "J9 a FIFO"],
)
def test_what_a_question_is_read_from_may_be_no_text_of_people(
    server: Server, tmp_path: Path, line: str, words: str, code: int
) -> None:
    done = shell(f"cd {shlex.quote(str(tmp_path))}; {line}")

    assert (done.returncode, len(list(server.requests))) == (code, int(code == 0))
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("server")
def test_an_output_that_is_full_is_one_line() -> None:
    done = shell("flowgpt hi > /dev/full")

    assert (done.returncode, done.stderr) == (1, "flowgpt: cannot go on: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_j10_a_standard_stream_that_is_closed_is_no_failure(server: Server, closed: str) -> None:
    done = shell(f"flowgpt 'is this on?' {closed}")

    assert (done.returncode, done.stderr) == (0, "")
    assert "question: is this on?" in done.stdout
    assert len(server.requests) == 1


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("words", ["hi", "--json hi", "--no-stream hi", "models", "embedded --port 0"])
def test_j10_an_answer_for_a_closed_stdout_is_a_failure(words: str) -> None:
    done = shell(f"flowgpt {words} >&-")

    assert (done.returncode, done.stderr) == (1, "flowgpt: cannot go on: standard output is closed\n")


def test_j10_with_all_streams_closed_the_embedded_server_still_starts() -> None:
    """It answers, but nobody takes the answer: no 5, as when nobody answers."""
    assert shell("flowgpt hi <&- >&- 2>&-").returncode == 1


@pytest.mark.parametrize(
    "env", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_j10_a_locale_without_the_letters_shows_them_escaped(server: Server, env: dict[str, str]) -> None:
    done = shell("echo 'naïve' | flowgpt ask", **env)

    assert (done.returncode, done.stderr) == (0, "")
    assert "question: na\\xefve\n" in done.stdout
    assert server.requests[0].chat is not None
    assert server.requests[0].chat.prompt.question == "naïve"


@pytest.mark.usefixtures("unwritable_home")
def test_a_home_that_cannot_be_written_is_no_failure() -> None:
    done, unsaved = shell("flowgpt -q hi"), shell("flowgpt -q --no-save hi")

    assert "question: hi" in done.stdout
    assert done.returncode == 0
    assert done.stderr.startswith("flowgpt: this conversation is not being saved: ")
    assert len(done.stderr.splitlines()) == 1
    assert (unsaved.returncode, unsaved.stdout, unsaved.stderr) == (0, done.stdout, "")


# --- a terminal ---------------------------------------------------------------------------------------------------


def test_alone_on_a_terminal_it_shows_help() -> None:
    with Screen() as screen:
        assert screen.read().startswith("Usage: flowgpt [OPTIONS] QUESTION...\n")
        assert screen.child.wait(20) == 0


@pytest.mark.usefixtures("server")
def test_j10_on_a_terminal_a_question_is_answered_without_waiting_for_input() -> None:
    with Screen("is this on?") as screen:
        assert screen.read().endswith("question: is this on?\n")
        assert screen.child.wait(20) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--help", "Usage: flowgpt [OPTIONS] QUESTION..."),
        ("models", "chronos-hermes-13b"),
        ("models", "gemini-pro          google-gemini"),
    ],
)
def test_j10_a_terminal_of_20_columns_without_colour_is_wide_enough(
    words: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No id is cut: it is there to be copied."""
    monkeypatch.setenv("NO_COLOR", "1")
    with Screen(words, columns=20) as screen:
        shown = screen.read()

        assert screen.child.wait(20) == 0
    assert line in shown.splitlines()
    assert "\x1b[3" not in shown
    assert "Traceback" not in shown


def test_j10_ctrl_c_keeps_what_came_and_closes_the_connection(server: Server) -> None:
    server.fault("stall:3")
    with Screen("hi") as screen:
        screen.read(until="flowgpt's ")
        screen.type(b"\x03")

        assert screen.read() == "This is flowgpt's ^C\ninterrupted\n"
        assert screen.child.wait(20) == 130
    server.wait_until_idle()


@pytest.mark.parametrize("module", ["click", "flowgpt.client", "flowgpt.cli.program", "flowgpt.cli.models"])
def test_j10_ctrl_c_while_the_program_loads_is_one_word(module: str) -> None:
    code = (
        "import signal, sys\n"
        "class Slow:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Slow)\n"
        "sys.argv[1:] = ['models']\n"
        "from flowgpt.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")


def test_j10_ctrl_c_in_json_is_still_one_object(server: Server, start: Start) -> None:
    server.fault("stall:3")
    child = start("--json", "hi")
    server.wait_until_open(1)
    child.send_signal(signal.SIGINT)
    said, words = child.communicate(timeout=30)

    assert (child.returncode, words) == (130, b"interrupted\n")
    assert json.loads(said)["error"]["code"] == "interrupted"
    server.wait_until_idle()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_the_embedded_server_ends_with_the_call_however_that_ends(
    start: Start, number: signal.Signals, code: int
) -> None:
    """The child has its stderr from us: the pipe ends when both have gone."""
    child = start(stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"word " * 100_000)  # its mirror fills the pipe, so the call cannot end by itself
    child.stdin.close()
    first = child.stdout.read(100)
    child.send_signal(number)
    rest, words = child.stdout.read(), child.stderr.read() if child.stderr else b""

    assert child.wait(20) == code
    assert first.startswith(b"This is flowgpt's embedded server")
    assert b"Traceback" not in words
    if code == 130:
        assert words.endswith(b"\ninterrupted\n")
        assert rest.endswith(b"\n")
