"""`flowgpt batch` as people run it: files, pipes, stops and what it says; the engine's tests are in tests/batch."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowgpt.batch import Counts
from flowgpt.cli.batch import account, figures, words
from flowgpt.embedded import Server

from .conftest import Invoke, Start


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"prompt": "question {number}"}}\n' for number in range(1, 21)))
    return path


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Of its answers none ends."""
    with Server(pace_s=3600) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        yield server


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def questions(server: Server) -> list[str]:
    return sorted(received.chat.prompt.question for received in server.requests if received.chat)


def test_each_row_is_answered_by_a_line(invoke: Invoke, server: Server, source: Path) -> None:
    output = source.with_name("out.jsonl")

    got = invoke("batch", str(source), "-o", str(output))

    assert (got.exit_code, got.stdout) == (0, "")
    assert got.stderr == "flowgpt: 20 asked, 20 answered, 0 failed, 0 left\n"
    assert sorted(line["line"] for line in lines(output)) == [*range(1, 21)]
    assert len(questions(server)) == 20


def test_started_again_it_asks_nothing(invoke: Invoke, server: Server, source: Path) -> None:
    output = source.with_name("out.jsonl")
    invoke("batch", str(source), "-o", str(output))
    before = output.read_bytes()

    got = invoke("batch", str(source), "-o", str(output))

    assert (got.exit_code, output.read_bytes(), len(questions(server))) == (0, before, 20)
    assert got.stderr == "flowgpt: 20 done before, 0 asked, 0 answered, 0 failed, 0 left\n"


def test_rows_that_failed_are_exit_code_1_also_when_they_stand_from_before(
    invoke: Invoke, server: Server, source: Path
) -> None:
    source.write_text('{"prompt": "Hi"}\nnonsense\n')

    got = [invoke("batch", str(source), "-o", f"{source}.out", "--json") for _ in range(2)]

    assert [one.exit_code for one in got] == [1, 1]
    assert [json.loads(one.stderr) for one in got] == [
        *(
            {
                "rows": 2,
                "before": 0,
                "before_failed": 0,
                "asked": 1,
                "answered": 1,
                "failed": 1,
                "invalid": 1,
                "left": 0,
            },
        ),
        *(
            {
                "rows": 2,
                "before": 2,
                "before_failed": 1,
                "asked": 0,
                "answered": 0,
                "failed": 0,
                "invalid": 0,
                "left": 0,
            },
        ),
    ]


def test_without_an_output_the_lines_are_on_stdout_in_ascii(invoke: Invoke, server: Server, source: Path) -> None:
    source.write_text('{"prompt": "\\u009b31mdünn"}\n{"prompt": "b"}\n', "utf-8")

    got = invoke("batch", str(source), "--ordered", "-q", "-s", "Be brief.", "-m", "gemini")

    assert got.exit_code == 0
    assert got.stdout.isascii()
    first, second = map(json.loads, got.stdout.splitlines())
    assert "question: \x9b31mdünn" in first["response"]["body"]["choices"][0]["message"]["content"]
    assert second["response"]["body"]["model"] == "google-gemini"


def test_stdin_is_answered_line_by_line(start: Start, server: Server) -> None:
    child = start("batch", "-", "-q", stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None

    for number in (1, 2):  # the second is written when the first is answered
        child.stdin.write(b'{"prompt": "a"}\n')
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["line"] == number
    child.stdin.close()

    assert child.wait(30) == 0


def test_a_wrong_model_or_option_is_refused_before_any_row(invoke: Invoke, server: Server, source: Path) -> None:
    wrong = (["-m", "nope"], ["--temperature", "9"], ["--concurrency", "0"], ["--per-minute", "0"], ["-o", str(source)])

    got = [invoke("batch", str(source), *options) for options in wrong]

    assert [(one.exit_code, one.stdout) for one in got] == [(2, "")] * len(wrong)
    assert not server.requests


def test_another_s_file_is_no_output(invoke: Invoke, server: Server, source: Path) -> None:
    other = source.with_name("notes.txt")
    other.write_text("mine")

    got = invoke("batch", str(source), "-o", str(other))

    assert (got.exit_code, other.read_text(), len(server.requests)) == (2, "mine", 0)
    assert "stays as it is" in got.stderr


@pytest.mark.parametrize(("fault", "code"), [("status:401", 3), ("credit", 4), ("status:404", 8)])
def test_what_ends_the_batch_gives_the_exit_code(
    invoke: Invoke, server: Server, source: Path, fault: str, code: int
) -> None:
    server.fault(fault, 20)

    got = invoke("batch", str(source), "--concurrency", "1")

    assert (got.exit_code, got.stdout) == (code, "")
    assert got.stderr.startswith("flowgpt: 1 asked, 0 answered, 0 failed, an unknown number left\nflowgpt: ")


def test_a_full_disk_ends_it_with_a_clear_word(start: Start, server: Server, source: Path) -> None:
    child = start("batch", str(source), "-o", "/dev/full")

    _, said = child.communicate(timeout=30)

    assert child.returncode == 1
    assert said.decode().splitlines()[-1] == "flowgpt: cannot go on: No space left on device"
    assert b"0 answered" in said


def test_a_reader_that_has_gone_ends_it(start: Start, server: Server, source: Path) -> None:
    child = start("batch", str(source))
    assert child.stdout is not None
    child.stdout.close()

    assert child.wait(30) == 141


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_stop_only_what_has_no_line_is_asked_again(
    start: Start, invoke: Invoke, server: Server, source: Path, how: signal.Signals, code: int
) -> None:
    output = source.with_name("out.jsonl")
    output.touch()
    server.fault("stall", 4)  # four rows are under way when the others have their lines
    child = start("batch", str(source), "-o", str(output), "--concurrency", "6")
    with subprocess.Popen(["tail", "-n", "+1", "-f", output], stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        done = {json.loads(tail.stdout.readline())["line"] for _ in range(16)}
        tail.kill()
    child.send_signal(how)
    said = child.communicate(timeout=30)[1].decode()

    assert child.returncode == code
    told = "flowgpt: 20 asked, 16 answered, 0 failed, 4 left\n"
    assert said == {signal.SIGKILL: "", signal.SIGINT: told + "interrupted\n", signal.SIGTERM: told}[how]
    assert {line["line"] for line in lines(output)} == done
    server.wait_until_idle()
    server.reset()

    again = invoke("batch", str(source), "-o", str(output))

    assert again.exit_code == 0
    assert questions(server) == sorted(f"question {number}" for number in range(1, 21) if number not in done)
    assert sorted(line["line"] for line in lines(output)) == [*range(1, 21)]


def test_ctrl_c_ends_it_while_it_waits_for_stdin(start: Start, server: Server) -> None:
    child = start("batch", "-", stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b'{"prompt": "a"}\n')
    child.stdin.flush()
    child.stdout.readline()

    child.send_signal(signal.SIGINT)

    assert child.wait(30) == 130
    assert child.stderr is not None
    assert child.stderr.read().endswith(b"1 asked, 1 answered, 0 failed, an unknown number left\ninterrupted\n")


def test_a_second_batch_on_the_same_output_is_refused(start: Start, invoke: Invoke, slow: Server, source: Path) -> None:
    child = start("batch", str(source), "-o", f"{source}.out")
    slow.wait_until_open(8)

    got = invoke("batch", str(source), "-o", f"{source}.out")

    assert got.exit_code == 2
    assert "another batch is writing in.jsonl.out" in got.stderr
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130


@pytest.mark.parametrize(("columns", "last"), [("80", b"0 of 20 rows, 0 failed"), ("16", b"failed")])
def test_in_a_terminal_of_any_width_it_shows_how_far_it_is(
    start: Start, slow: Server, source: Path, columns: str, last: bytes
) -> None:
    ours, theirs = pty.openpty()
    child = start("batch", str(source), "-o", f"{source}.out", stderr=theirs, env={"TERM": "xterm", "COLUMNS": columns})
    os.close(theirs)
    slow.wait_until_open(8)
    shown = b""
    while last not in shown:
        shown += os.read(ours, 4096)
    child.send_signal(signal.SIGINT)
    while b"interrupted" not in shown:
        shown += os.read(ours, 4096)

    assert child.wait(30) == 130
    assert b"flowgpt: 8 asked, 0 answered, 0 failed, 20 left" in shown.replace(b"\r\n", b" ")
    os.close(ours)


def test_the_account_is_told_in_words_and_in_json() -> None:
    counts = Counts(rows=5000, before=1200, before_failed=3, asked=1000, answered=990, failed=9, invalid=2)

    assert words(counts) == (
        "flowgpt: 1,200 done before (3 failed), 1,000 asked, 990 answered, 9 failed (2 invalid), 2,801 left"
    )
    assert account(counts)["left"] == 2801


def test_the_figures_have_rate_and_time_left() -> None:
    counts = Counts(rows=5000, before=1000, before_failed=1, asked=1010, answered=998, failed=2)

    assert figures(counts, 600) == "2,000 of 5,000 rows, 3 failed, 100 a minute, 0:30:00 left"
    assert figures(Counts(answered=3), 60) == "3 rows, 0 failed, 3 a minute"
    assert figures(Counts(rows=5), 0) == "0 of 5 rows, 0 failed"
