"""The access log: one event is one line, without secrets and prompts, and no trouble of the log hurts serving."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.embedded import Server
from flowgpt.gateway import access, exchange
from flowgpt.gateway.access import Handler
from flowgpt.gateway.app import create_app
from flowgpt.gateway.visit import Visit
from tests.conftest import API_KEY
from tests.gateway.conftest import Served

NAMES = ("time", "request_id", "method", "route", "status", "model", "duration_ms")
HOSTILE = 'a\r\nb\x1b[31m\u202e\u2028\x85"\x00\ud800é'


def visited(**facts: Any) -> Visit:
    told: dict[str, Any] = {
        "request_id": "req_1",
        "method": "POST",
        "route": "chat",
        "status": 200,
        "model": "gpt-3.5-turbo",
    }
    return Visit(started_s=0.0, **(told | {"total_s": 0.0123} | facts))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the access log has said."""
    with caplog.at_level(logging.INFO, access.log.name):
        yield lambda: [record.getMessage() for record in caplog.records if record.name == access.log.name]


def test_a_line_has_the_facts_that_there_are(logged: Callable[[], list[str]]) -> None:
    access.write(visited())
    access.write(
        visited(
            owner="laptop",
            stream=True,
            first_text_s=0.5,
            total_s=1.5,
            texts=3,
            characters=20,
            attempts=1,
            reason="stop",
        )
    )
    plain, streamed = map(json.loads, logged())

    assert tuple(plain) == NAMES
    assert plain["duration_ms"] == 12.3
    assert streamed.pop("time") > plain["time"][:10]
    assert streamed == {
        "request_id": "req_1",
        "method": "POST",
        "route": "chat",
        "status": 200,
        "key": "laptop",
        "model": "gpt-3.5-turbo",
        "stream": True,
        "duration_ms": 1500.0,
        "first_text_ms": 500.0,
        "texts": 3,
        "characters": 20,
        "attempts": 1,
        "reason": "stop",
    }


def test_without_a_listener_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access.log, "level", logging.WARNING)
    monkeypatch.setattr(access, "line", lambda *_: pytest.fail("a line was made"))
    access.log.manager._clear_cache()  # type: ignore[attr-defined]

    access.write(visited())

    assert not access.log.isEnabledFor(logging.INFO)
    access.log.manager._clear_cache()  # type: ignore[attr-defined]


@given(st.text() | st.just(HOSTILE))
def test_k4_one_event_is_one_line_of_ascii_whatever_a_client_writes(text: str) -> None:
    line = access.line({"model": text, "method": text, "message": text})

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line).get("model", "") == text[: access.LIMIT_MESSAGE]


def test_a_line_is_what_the_json_module_writes() -> None:
    for character in ["", *map(chr, range(0x180)), "\u2028", "\ud800", "\U0001f600"]:
        facts = {"name": f"a{character}b", "number": 12.3, "count": 10**12, "zero": 0.0, "is_told": True}
        _, line = access.line(facts).split(",", 1)
        assert "{" + line == json.dumps(facts, separators=(",", ":"))


def test_k4_a_long_name_is_cut(logged: Callable[[], list[str]]) -> None:
    access.write(visited(model="", requested_model="x" * 1_000_000))

    assert len(logged()[0]) < 400


def test_k3_no_question_answer_or_key_is_logged(upstream: Server, logged: Callable[[], list[str]]) -> None:
    with Served(lambda: create_app(base_url=upstream.base_url)) as gateway:
        answer = gateway.request(
            "POST",
            "/v1/chat/completions?why=secret-word",
            {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "secret-word"}], "user": "secret-word"},
            headers={"authorization": f"Bearer {API_KEY}"},
        )
        gateway.request("GET", "/secret-word")
    lines = logged()

    assert b"secret-word" in answer.body
    assert [json.loads(line)["route"] for line in lines] == ["chat", "other"]
    assert "secret-word" not in "".join(lines)


@pytest.mark.parametrize("n", [1, 3])
def test_an_answer_that_was_said_to_its_end_is_no_client_that_left(
    n: int, upstream: Server, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LOOK_S", 0.0)
    with Served(lambda: create_app(base_url=upstream.base_url)) as gateway:
        for stream in (False, True):
            assert gateway.chat(n=n, stream=stream).status == 200
    facts = [json.loads(line) for line in logged()]

    assert [told.get("code") for told in facts] == [None, None]
    assert [told["reason"] for told in facts] == ["stop", "stop"]


# --- writing ------------------------------------------------------------------------------------------------------


class Pipe:
    """A handler that writes into a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.handler = Handler(self.writer)
        self.log = logging.Logger(access.log.name)
        self.log.addHandler(self.handler)

    def end(self) -> None:
        """Close the handler, and let its thread end before its descriptor may become another's."""
        self.handler.flush()
        self.handler.close()
        assert self.handler._thread is not None
        self.handler._thread.join(10)
        assert not self.handler._thread.is_alive()
        os.close(self.writer)

    def lines(self) -> list[Any]:
        """What was written by the end."""
        self.end()
        with open(self.reader, encoding="utf-8") as reader:
            return [json.loads(line) for line in reader]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """On one second of the clock."""
    monkeypatch.setattr("flowgpt.gateway.access.time.monotonic", lambda: 1000.5)
    return Pipe()


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    for number in range(100):
        pipe.log.info(access.line({"number": number}))

    assert [line["number"] for line in pipe.lines()] == list(range(100))


def test_k5_a_storm_is_cut_and_says_how_much_was_left_out(pipe: Pipe) -> None:
    for number in range(access.LIMIT_LINES_PER_S + 7):
        pipe.log.info(access.line({"number": number}))
    lines = pipe.lines()

    assert len([line for line in lines if "number" in line]) == access.LIMIT_LINES_PER_S
    assert sum(line.get("left_out", 0) for line in lines) == 7


def test_k5_the_next_second_is_logged_again(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(access.LIMIT_LINES_PER_S + 7):
        pipe.log.info(access.line({"number": number}))
    monkeypatch.setattr("flowgpt.gateway.access.time.monotonic", lambda: 1001.5)
    pipe.log.info(access.line({"number": "after"}))

    assert [line for line in pipe.lines() if line.get("number") == "after"] != []


def test_k4_what_another_logger_says_is_one_line_too(pipe: Pipe) -> None:
    pipe.log.name = "somebody.else"
    try:
        raise OSError(HOSTILE)
    except OSError:
        pipe.log.exception("failed:\n%s", HOSTILE)
    (line,) = pipe.lines()

    assert (line["level"], line["logger"], line["message"]) == ("error", "somebody.else", f"failed:\n{HOSTILE}")
    assert line["traceback"].startswith("Traceback")


def test_a_wrong_call_of_a_logger_costs_its_line_only(pipe: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    pipe.log.info("%d", "no number")
    (line,) = pipe.lines()

    assert line["message"] == "a message that cannot be formatted"
    assert capfd.readouterr().err == ""


def test_i21_a_reader_that_is_stuck_holds_nobody_up(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe holds 64 KiB; the lines are more, and nobody reads while they are logged."""
    monkeypatch.setattr(access, "LIMIT_LINES_PER_S", 1_000_000)
    logging_ended = threading.Event()

    def log_all() -> None:
        for number in range(5000):
            pipe.log.info(access.line({"number": number, "padding": "x" * 100}))
        logging_ended.set()

    threading.Thread(target=log_all, daemon=True).start()
    assert logging_ended.wait(30)
    with open(pipe.reader, encoding="utf-8") as reader:
        first = next(line for line in map(json.loads, reader) if "left_out" not in line)
    assert first["number"] == 0
    pipe.end()


def test_i21_a_reader_that_has_gone_is_forgotten(pipe: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    os.close(pipe.reader)
    for number in range(10):
        pipe.log.info(access.line({"number": number}))
    pipe.end()

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("more", [[], ["after"]])
def test_i21_a_disk_that_was_full_gets_the_count_of_what_it_missed(pipe: Pipe, more: list[str]) -> None:
    mended = os.dup(pipe.writer)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), pipe.writer)
        for number in range(3):
            pipe.log.info(access.line({"number": number}))
        pipe.handler.flush()
    os.dup2(mended, pipe.writer)
    os.close(mended)
    for name in more:
        pipe.log.info(access.line({"name": name}))
    missed, *after = pipe.lines()

    assert (missed["left_out"], [line["name"] for line in after]) == (3, more)


PROGRAM = """
import logging
from flowgpt.gateway import access, exchange
from flowgpt.gateway.visit import Visit

access.to_stderr()
access.write(Visit(request_id="req_1", method="GET", started_s=0.0, route="models", status=200, total_s=0.1))
logging.getLogger("flowgpt.gateway.failures").error("unexpected")
logging.getLogger("aiohttp").info("chatter")
"""


def run(**streams: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, timeout=60, check=False, **streams
    )


def test_the_program_writes_its_log_to_stderr_and_nothing_is_lost_at_its_end() -> None:
    ran = run(stderr=subprocess.PIPE)
    served, failed = (json.loads(line) for line in ran.stderr.splitlines())

    assert (served["route"], served["status"]) == ("models", 200)
    assert (failed["logger"], failed["message"]) == ("flowgpt.gateway.failures", "unexpected")
    assert (ran.returncode, ran.stdout) == (0, "")


def test_i21_the_program_without_stderr_or_with_a_broken_one_ends_well() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as broken:
        codes = [run(stderr=broken).returncode, run(preexec_fn=lambda: os.close(2)).returncode]

    assert codes == [0, 0]
