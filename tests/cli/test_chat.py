"""`flowgpt chat` as a person has it: in a real terminal, and through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import stat
import subprocess
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowgpt import config
from flowgpt.embedded import Server
from flowgpt.errors import InternalServerError
from flowgpt.protocol.request import ChatRequest
from flowgpt.store import Store, default_path
from tests.cli.conftest import Invoke, Start, Write
from tests.terminal import Terminal

pytestmark = pytest.mark.slow  # nearly each test starts the program

HOSTILE = "A\x1b[2J\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil.example\x1b\\B\x9b31m\x07C\b\b\x7f&#x9b;2J&#x202e;\u202eD"

failing = False
"""Whether the answer to "maybe" is a failure."""


async def respond(request: ChatRequest) -> AsyncGenerator[str, None]:
    """Answers as it is told to: "endless" has no end; the rest says how many turns came before."""
    question = request.prompt.question
    if question == "maybe" and failing:
        raise InternalServerError("it is down", status_code=503)
    if question == "endless":
        yield "It begins. "
        await asyncio.Event().wait()
    elif question == "lines":
        for place in range(60):
            yield f"line {place}.\n\n"
    elif question == "hostile":
        yield HOSTILE
    elif question == "rows":
        for place in range(10_000):
            yield f"row{place} "
            await asyncio.sleep(0.005)
    else:
        yield f"**{request.model}** {request.temperature:g} {request.prompt.system or '-'} "
        yield f"{len(request.prompt.history)}: {question}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, configure: Write) -> Iterator[Server]:
    configure("max_retries = 0\n")
    monkeypatch.setitem(globals(), "failing", False)
    with Server(respond) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        yield server


def asked(server: Server) -> list[str]:
    return [received.chat.prompt.question for received in server.requests if received.chat]


@contextlib.contextmanager
def talking(*options: str, **how: Any) -> Iterator[Terminal]:
    """The program when its prompt is there: what is typed before is echoed by the terminal itself."""
    with Terminal("chat", "-q", *options, **how) as terminal:
        terminal.wait("saved · /help")
        yield terminal


def kept() -> list[str]:
    """The last conversation of the store."""
    store = Store()
    try:
        conversation = store.conversations.latest()
        turns = store.conversations.turns(conversation.id) if conversation else []
        return [f"{turn.role[0]} {turn.text}" + (f" [{turn.verdict}]" if turn.verdict else "") for turn in turns]
    finally:
        store.close()


# --- in a terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 40])
def test_a_talk_from_its_first_line_to_its_last(server: Server, columns: int) -> None:
    with Terminal("chat", columns=columns) as terminal:
        terminal.wait("/help", "\n>", "gpt-3.5-turbo · saved")
        terminal.type("Hello\r")
        terminal.wait("> Hello\ngpt-3.5-turbo 0.7 - 0: Hello\n\n>", "saved · /help")
        terminal.type("one\\\rtwo\x1b\rthree\r")
        terminal.wait("> one\n. two\n. three\n", "2: one\ntwo\nthree\n\n>")
        terminal.type("\x1b[200~pasted\nlines\n\x1b[201~!\r")
        terminal.wait("4: pasted\nlines\n!\n\n>")
        terminal.type("gone\x03")
        terminal.until(lambda: "gone" not in terminal.display)
        terminal.type("```\rcode\r```\r")
        terminal.wait("6: ```\ncode\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert "to go on: flowgpt chat --cid" in terminal.text.replace("\n", "")
        assert terminal.as_before()
        assert b"\x1b[1m" in terminal.raw
    assert asked(server) == ["Hello", "one\ntwo\nthree", "pasted\nlines\n!", "```\ncode\n```"]
    history = config.home() / "chat-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+Hello\n" in history.read_text("utf-8")
    assert len(kept()) == 8


def test_commands_do_what_help_says(server: Server) -> None:
    with talking() as terminal:
        terminal.type("/hel\t")
        terminal.wait("> /help")
        terminal.type("\r")
        terminal.wait("/temperature [NUMBER]", "Ctrl-D")
        terminal.type("/model gpt-4\t")
        terminal.wait("> /model gpt-4-turbo")
        terminal.type("\r")
        terminal.wait("model: gpt-4-turbo\n>", "gpt-4-turbo · saved")
        terminal.type("/system Be brief.\r/temperature 0.25\r")
        terminal.wait("temperature: 0.25\n>")
        terminal.type("one\r")
        terminal.wait("gpt-4-turbo 0.25 Be brief. 0: one\n\n>")
        terminal.type("/retry\r")
        terminal.until(lambda: terminal.display.count("0: one\n\n>") == 2)
        terminal.type("/edit\r")
        terminal.wait("/edit\n> one")
        terminal.type("\x7f\x7f\x7ftwo\r")
        terminal.wait("0: two\n\n>")
        terminal.type("/undo\r")
        terminal.wait("taken back: two\n>")
        terminal.type("three\r")
        terminal.wait("0: three\n\n>")
        terminal.type("/copy\r")
        terminal.wait("copied", "OSC 52")
        assert b"\x1b]52;c;KipncHQtNC10dXJibyoqIDAuMjUgQmUgYnJpZWYuIDA6IHRocmVl\x07" in terminal.raw
        terminal.type("/nix\r")
        terminal.wait("there is no /nix")
        terminal.type("/model nix\r")
        terminal.wait("'nix' is not in")
        terminal.type("/quit\r")

        assert terminal.end() == 0
    assert asked(server) == ["one", "one", "two", "three"]


def test_ctrl_c_stops_an_answer_and_keeps_what_came(server: Server) -> None:
    with talking() as terminal:
        terminal.type("endless\r")
        terminal.wait("It begins.")
        terminal.type("\x03")
        terminal.wait("It begins.\n[interrupted here]\n\n>")
        assert terminal.as_before() is False  # the prompt reads keys again
        terminal.type("on\r")
        terminal.wait("2: on\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert terminal.as_before()
    assert kept()[:2] == ["u endless", "a It begins.  [interrupted]"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_n3_what_came_is_there_after_an_end_at_any_time(server: Server, number: int, code: int) -> None:
    with talking() as terminal:
        terminal.type("endless\r")
        terminal.wait("It begins.")
        terminal.until(lambda: kept() == ["u endless", "a It begins.  [interrupted]"])
        terminal.signal(number)
        assert terminal.end() == code
        assert terminal.as_before() or number == signal.SIGKILL
    assert kept() == ["u endless", "a It begins.  [interrupted]"]
    with contextlib.closing(Store()) as store:
        (conversation,) = store.conversations.list()
        assert store.conversations.turns(conversation.id)[-1].model == "gpt-3.5-turbo"
    if number != signal.SIGKILL:  # the store is the same, so what goes on is
        return

    with Terminal("chat", "-q", "--continue", "--plain") as terminal:
        terminal.wait("> endless\nIt begins.\n[interrupted here]\n>")
        terminal.type("on\n")
        terminal.wait("2: on\n\n>")
        terminal.type("\x04")
        assert terminal.end() == 0
    assert kept()[-2:] == ["u on", "a **gpt-3.5-turbo** 0.7 - 2: on [complete]"]


def test_ctrl_c_stops_a_command_and_not_the_talk(server: Server, tmp_path: Path) -> None:
    clipboard = tmp_path / "xclip"
    clipboard.write_text("#!/bin/sh\necho > %s; exec sleep 60\n" % (tmp_path / "asked"))
    clipboard.chmod(0o700)
    with talking(env={"PATH": f"{tmp_path}:/usr/bin:/bin"}) as terminal:
        terminal.type("one\r")
        terminal.wait("0: one\n\n>")
        terminal.type("/copy\r")
        terminal.until((tmp_path / "asked").exists)
        terminal.type("\x03")
        terminal.wait("interrupted")
        terminal.type("two\r")
        terminal.wait("2: two\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0


def test_ctrl_z_shows_the_cursor_to_the_shell_and_the_answer_goes_on_after_it(server: Server) -> None:
    """Nobody could continue the program on this terminal, so the system does not let it stand."""
    with talking() as terminal:
        terminal.type("endless\r")
        terminal.wait("It begins.")
        assert terminal.screen.cursor.hidden
        before = terminal.raw.count(b"\x1b[?25h")
        terminal.type("\x1a")
        terminal.until(lambda: terminal.raw.count(b"\x1b[?25h") > before and terminal.screen.cursor.hidden)
        assert not terminal.as_before()
        terminal.type("\x03")
        terminal.wait("[interrupted here]\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert terminal.as_before()


def test_e14_no_command_of_a_model_reaches_the_terminal(server: Server) -> None:
    for options in ((), ("--plain",), ("--continue",)):
        with Terminal("chat", "-q", *options) as terminal:
            if options != ("--continue",):  # which shows what is kept
                terminal.type("hostile\r" if not options else "hostile\n")
            terminal.wait("http://evil.example", "D\n\n>" if options != ("--continue",) else "D\n")
            terminal.type("\x04")
            terminal.end()
            sent = bytes(terminal.raw)
            shown = sent.decode("utf-8")

        assert not any(command in sent for command in (b"\x1b[2J", b"\x1b]", b"\x07", b"\xc2\x9b", b"\x7f", b"\x9b"))
        assert "\u202e" not in shown
        assert "\x9b" not in shown


def test_a_failed_question_is_kept_for_retry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "failing", True)
    with talking() as terminal:
        terminal.type("maybe\r")
        terminal.wait("flowgpt: ", "/retry", "\n>")
        monkeypatch.setitem(globals(), "failing", False)
        terminal.type("/retry\r")
        terminal.wait("0: maybe\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0
    assert kept() == ["u maybe", "a **gpt-3.5-turbo** 0.7 - 0: maybe [complete]"]


def test_n14_a_store_that_fails_is_told_and_the_talk_goes_on(server: Server) -> None:
    home = config.home()
    with talking() as terminal:
        terminal.type("one\r")
        terminal.wait("0: one\n\n>", "· saved")
        holder = Store()
        holder.close()
        database = home / "flowgpt.db"
        aside = home / "aside.db"
        database.rename(aside)
        database.mkdir()
        terminal.type("two\r")
        terminal.wait("2: two", "NOT SAVED")
        terminal.type("three\r")
        terminal.wait("4: three\n", "this conversation is not being saved", where="text")
        database.rmdir()
        aside.rename(database)
        terminal.type("four\r")
        terminal.wait("6: four", "· saved ·")
        terminal.type("\x04")

        assert terminal.end() == 0
    assert [turn for turn in kept() if turn.startswith("u")] == ["u one", "u two", "u three", "u four"]


def test_an_answer_survives_a_resize(server: Server) -> None:
    with talking() as terminal:
        terminal.type("rows\r")
        terminal.wait("row100")
        terminal.resize(40, 20)
        terminal.wait("row200")
        terminal.resize(100, 30)
        terminal.wait("row300")
        terminal.type("\x03")
        terminal.wait("[interrupted here]")
        last = max(int(word[3:]) for word in terminal.text.split() if word.startswith("row") and word[3:].isdigit())
        assert {f"row{place}" for place in range(100, last)} <= set(terminal.text.split())
        terminal.type("lines\r")
        terminal.wait("line 59.\n\n>")
        assert [line for line in terminal.text.split("\n") if line.startswith("line ")] == [
            f"line {place}." for place in range(60)
        ]


@pytest.mark.parametrize(("options", "env"), [((), {"TERM": "dumb"}), (("--plain",), {})], ids=["dumb", "plain"])
def test_j10_bare_lines_have_no_command_to_the_terminal(
    server: Server, options: tuple[str, ...], env: dict[str, str | None]
) -> None:
    with Terminal("chat", "-q", *options, env=env, columns=40) as terminal:
        terminal.wait(">")
        terminal.type("one\n")
        terminal.wait("**gpt-3.5-turbo** 0.7 - 0: one\n\n>")
        terminal.type("abc")
        terminal.wait("> abc")
        terminal.type("\x03")
        terminal.wait("> abc^C\n>")
        terminal.type("/edit two\n")
        terminal.wait("0: two\n\n>")
        terminal.type("endless\n")
        terminal.wait("It begins.")
        terminal.type("\x03")
        terminal.wait("It begins. ^C\n[interrupted here]\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert b"\x1b" not in terminal.raw
    assert asked(server) == ["one", "two", "endless"]


def test_j10_without_colours_nothing_is_coloured(server: Server) -> None:
    with talking(env={"NO_COLOR": "1"}) as terminal:
        terminal.type("one\r")
        terminal.wait("**gpt-3.5-turbo** 0.7 - 0: one\n\n>")
        terminal.type("/edit\r")
        terminal.wait("> /edit\n> one")
        terminal.type(" more\r")
        terminal.wait("0: one more\n\n>")
        terminal.type("\x04")

        assert terminal.end() == 0
        assert re.search(rb"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])[0-9;]*m", terminal.raw) is None


# --- through a pipe ---------------------------------------------------------------------------------------------------


def test_piped_lines_are_asked_one_by_one(server: Server, invoke: Invoke) -> None:
    result = invoke("chat", "-q", stdin="one\n\n/system Be brief.\ntwo \\\nlines\n/quit\nnever\n")

    assert result.exit_code == 0
    assert result.stdout == ("**gpt-3.5-turbo** 0.7 - 0: one\n**gpt-3.5-turbo** 0.7 Be brief. 2: two \nlines\n")
    assert result.stderr == "system prompt: Be brief.\n"
    assert asked(server) == ["one", "two \nlines"]


def test_no_failure_of_a_question_ends_the_talk(
    server: Server, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "failing", True)
    result = invoke("chat", "-q", stdin=b"maybe\n/temperature hot\n/save\nb\xff\n")

    assert result.exit_code == 0
    assert result.stdout == "**gpt-3.5-turbo** 0.7 - 0: b\ufffd\n"
    assert "it is down" in result.stderr or "503" in result.stderr
    assert "temperature must be a number from 0 to 2, not 'hot'" in result.stderr
    assert len(asked(server)) == 2


def test_a_talk_goes_on_where_it_was(server: Server, invoke: Invoke) -> None:
    first = invoke("chat", "-m", "gpt-4-turbo", "-s", "Be brief.", stdin="one\n")
    cid = first.stderr.rsplit(" ", 1)[1].strip()
    second = invoke("chat", "-q", "--cid", cid[:6], stdin="two\n")
    third = invoke("chat", "-q", "-c", stdin="/undo\nthree\n")

    assert second.stdout == "**gpt-4-turbo** 0.7 Be brief. 2: two\n"
    assert third.stdout == "**gpt-4-turbo** 0.7 Be brief. 2: three\n"


@pytest.mark.parametrize("which", ["-c", "--cid"])
@pytest.mark.parametrize("command", ["ask", "chat"])
def test_what_goes_on_without_being_saved_stays_as_it_was(
    server: Server, invoke: Invoke, command: str, which: str
) -> None:
    invoke("chat", "-q", stdin="one\n")
    with contextlib.closing(Store()) as store:
        [before] = store.conversations.list()
        args = [which, before.id] if which == "--cid" else [which]
        result = invoke(command, "-q", "--no-save", *args, stdin="two\n")

        assert result.stdout == "**gpt-3.5-turbo** 0.7 - 2: two\n"
        assert store.conversations.list() == [before]


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_n14_what_cannot_be_read_cannot_go_on(server: Server, invoke: Invoke, command: str) -> None:
    default_path().write_bytes(b"no database " * 100)
    result = invoke(command, "-c", stdin="two\n")

    assert result.exit_code == 9
    assert asked(server) == []


def test_what_is_not_to_be_kept_is_not(server: Server, invoke: Invoke) -> None:
    result = invoke("chat", "--no-save", stdin="one\n/fork\n")

    assert result.exit_code == 0
    assert "to go on" not in result.stderr
    assert "there is nothing saved to branch off from" in result.stderr
    assert kept() == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--cid", "nix"], "nix"),
        (["-c"], "there is no conversation yet"),
        (["-c", "--cid", "a"], "give one of them"),
        (["-c", "--no-save"], "there is no conversation yet"),
        (["--temperature", "9"], "temperature must be"),
        (["-m", "nix"], "'nix' is not in"),
    ],
)
def test_a_wrong_call_ends_with_2(server: Server, invoke: Invoke, args: list[str], words: str) -> None:
    result = invoke("chat", *args, stdin="one\n")

    assert result.exit_code == 2
    assert words in result.stderr
    assert asked(server) == []


def test_ctrl_c_ends_a_piped_talk_with_130(server: Server, start: Start) -> None:
    child = start("chat", "-q", stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"endless\n")
    child.stdin.flush()
    assert child.stdout.read(11) == b"It begins. "
    child.send_signal(signal.SIGINT)

    assert child.wait() == 130
    assert kept() == ["u endless", "a It begins.  [interrupted]"]
