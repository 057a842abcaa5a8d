"""`flowgpt embedded` as a process: what it prints, and when it ends."""

from __future__ import annotations

import signal
import subprocess

import pytest

from flowgpt import Client, InternalServerError
from tests.cli.conftest import Invoke, Start

pytestmark = pytest.mark.slow  # each test starts the program

QUESTION = [{"role": "user", "content": "hi"}]


def base_url(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().decode().rstrip("\n")


def answer(child: subprocess.Popen[bytes]) -> str:
    with Client(base_url=base_url(child), max_retries=0, timeout=20) as client:
        return client.chat.completions.create(messages=QUESTION).choices[0].message.content or ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_first_line_is_the_base_url_and_a_signal_ends_it(start: Start, number: signal.Signals) -> None:
    child = start("embedded", "--port", "0")

    with Client(base_url=(origin := base_url(child)), timeout=20) as client:
        said = client.chat.completions.create(messages=QUESTION).choices[0].message.content or ""
    child.send_signal(number)
    rest, notes = child.communicate(timeout=20)

    assert "question: hi" in said
    assert (child.returncode, rest) == (0, b"")
    assert f"hint: flowgpt --base-url {origin} " in notes.decode()


def test_it_ends_with_its_standard_input_and_gives_no_hints(start: Start) -> None:
    child = start("embedded", "--port", "0", "--until-stdin-closes", stdin=subprocess.PIPE)

    assert "question: hi" in answer(child)
    rest, notes = child.communicate(timeout=20)
    assert (child.returncode, rest, notes) == (0, b"", b"")


def test_a_fault_plays_in_every_answer(start: Start) -> None:
    child = start("embedded", "--port", "0", "--fault", "status:503")

    with Client(base_url=base_url(child), max_retries=0, timeout=20) as client:
        for _ in range(2):
            with pytest.raises(InternalServerError) as caught:  # no 429: the next call would wait
                client.chat.completions.create(messages=QUESTION)
            assert caught.value.status_code == 503


def test_an_upstream_that_cannot_be_reached_is_a_clear_error(start: Start) -> None:
    child = start("embedded", "--port", "0", "--upstream", "http://127.0.0.1:1/v1", "--upstream-model", "tiny")
    asking = start("--base-url", base_url(child), "--timeout", "20", "hi", env={"FLOWGPT_MODEL": "gpt-4-turbo"})

    said, words = asking.communicate(timeout=30)

    assert (asking.returncode, said) == (5, b"")
    assert b"cannot reach the upstream http://127.0.0.1:1/v1" in words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--responder", "upstream"], "need --upstream URL"),
        (["--upstream-model", "tiny"], "need --upstream URL"),
        (["--responder", "mirror", "--upstream", "http://127.0.0.1:1"], "does not ask"),
        (["--fault", "rate_limits"], "nearest: rate_limit"),
        (["--fault", "status:7"], "from 200 to 599"),
        (["--pace", "-1"], "-1"),
        (["--pace", "nan"], "--pace must be a number of seconds"),
        (["--port", "70000"], "70000"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
    ],
)
def test_a_wrong_call_is_told_before_anything_listens(invoke: Invoke, args: list[str], words: str) -> None:
    result = invoke("embedded", "--port", "0", *args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_an_upstream_that_is_no_address_is_told_too(start: Start) -> None:
    child = start("embedded", "--port", "0", "--upstream", "ftp://127.0.0.1")

    said, words = child.communicate(timeout=20)
    assert (child.returncode, said) == (2, b"")
    assert words.startswith(b"flowgpt: the upstream must be an http or https address")


def test_l5_whoever_opens_it_to_the_network_is_warned(start: Start) -> None:
    child = start("embedded", "--port", "0", "--host", "0.0.0.0")
    base_url(child)
    child.send_signal(signal.SIGINT)

    assert b"warning: whoever reaches 0.0.0.0 can ask this server" in child.communicate(timeout=20)[1]
