"""`flowgpt serve` as a process: its first line, its options, who may come in, and when it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import click
import pytest

from flowgpt import config, serving
from flowgpt.cli import serve
from flowgpt.embedded import Server
from flowgpt.gateway.settings import SETTINGS
from tests.cli.conftest import Invoke, Start, Write

pytestmark = pytest.mark.slow  # each test starts the program

QUESTION = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def upstream() -> Iterator[Server]:
    with Server() as server:
        yield server


def base_url(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().decode().removesuffix("\n")


def ask(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """A status and the JSON of an answer. `path`: under /v1."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=20)) as connection:
        sent = None if body is None else json.dumps(body)
        connection.request(
            "GET" if body is None else "POST", parts.path + path, sent, headers | {"content-type": "application/json"}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def chat(url: str, **headers: str) -> str:
    status, answer = ask(url, "/chat/completions", QUESTION, **headers)
    assert status == 200, answer
    said: str = answer["choices"][0]["message"]["content"]
    return said


def end(child: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> tuple[int, bytes, str]:
    child.send_signal(number)
    rest, notes = child.communicate(timeout=30)
    return child.returncode, rest, notes.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_first_line_is_the_base_url_its_hints_connect_and_a_signal_ends_it(
    start: Start, upstream: Server, number: signal.Signals
) -> None:
    child = start("serve", "--port", "0", "--base-url", upstream.base_url)

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", url := base_url(child))
    assert "question: hi" in chat(url)
    code, rest, notes = end(child, number)
    assert (code, rest) == (0, b"")
    told = [line for line in notes.splitlines() if not line.startswith("{")]
    assert told == [
        f"flowgpt: {upstream.base_url} answers here until Ctrl-C; a program asks it with",
        f"hint: OPENAI_BASE_URL={url}",
        "hint: OPENAI_API_KEY=none",
    ]
    (logged,) = [json.loads(line) for line in notes.splitlines() if line.startswith("{")]
    assert (logged["route"], logged["status"]) == ("chat", 200)


def test_with_nothing_configured_the_embedded_server_answers(start: Start) -> None:
    child = start("serve", "--port", "0")

    assert "flowgpt's embedded server" in chat(base_url(child))
    code, _, notes = end(child)
    assert code == 0
    assert notes.startswith("flowgpt: no endpoint is configured, so the embedded server answers")


# --- options ----------------------------------------------------------------------------------------------------------


def test_every_setting_is_an_option_with_its_words(invoke: Invoke) -> None:
    words = " ".join(invoke("serve", "--help").stdout.split())
    options = {option.name: option for option in serve.command.params if isinstance(option, click.Option)}

    for name, setting in SETTINGS.items():
        assert (options[name].help or "").startswith(setting.metadata["help"])
    assert {name for name, option in options.items() if option.multiple} == {
        "model_names",
        "allow_hosts",
        "allow_origins",
    }
    for option in ("--model-name NAME=MODEL", "--allow-host HOST", "--max-streams NUMBER", "--hold-s SECONDS"):
        assert option in words


def test_options_reach_the_gateway_and_may_come_again(start: Start, invoke: Invoke, upstream: Server) -> None:
    key = "Bearer " + invoke("keys", "add", "alice").stdout.strip()
    names = ["--model-name", "one=gpt-3.5-turbo", "--model-name", "two=gemini"]
    options = ["--base-url", upstream.base_url, *names, "--allow-host", "a.example", "--allow-host", "b.example"]
    child = start("serve", "--port", "0", *options, "--any-model", "gemini", "--requests-per-minute", "1")
    url = base_url(child)

    named = [ask(url, f"/models/{name}", authorization=key)[1]["alias_of"] for name in ("one", "two")]
    assert named == ["gpt-3.5-turbo", "gemini"]
    hosts = ("a.example", "b.example", "c.example")
    assert [ask(url, "/models", authorization=key, host=host)[0] for host in hosts] == [200, 200, 421]
    asked = QUESTION | {"model": "nobody's"}
    answered = [ask(url, "/chat/completions", asked, authorization=key)[0] for _ in range(5)]
    assert (answered[0], {*answered[1:]}) == (200, {429})


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model-name", "one"], "'one' is not of the form NAME=MODEL"),
        (["--model-name", "=two"], "'' is not of the form NAME=MODEL"),
        (["--max-streams", "0"], "max_streams must be a whole number of at least 1, not 0"),
        (["--max-streams", "many"], "'many' is not a valid int"),
        (["--hold-s", "-1"], "hold_s must be a positive number of seconds"),
        (["--drain-timeout", "-1"], "--drain-timeout"),
        (["--workers", "0"], "--workers"),
        (["--port", "70000"], "70000"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--base-url", "ftp://127.0.0.1"], "base_url"),
        (["--base-url", "ftp://127.0.0.1", "--workers", "2"], "base_url"),
    ],
)
def test_i22_a_wrong_call_is_told_before_anything_is_served(invoke: Invoke, args: list[str], words: str) -> None:
    result = invoke("serve", "--port", "0", "--base-url", "http://127.0.0.1:9", *args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[gateway]\nmax_streams = 'many'\n", "gateway.max_streams must be a whole number of at least 1, not 'many'"),
        ("[gateway]\nmax_stream = 1\n", "gateway.max_stream: there is no such setting"),
        ("gateway = 1\n", "gateway must be a table, not 1"),
    ],
)
def test_i22_a_wrong_configuration_is_told_with_file_key_and_reason(
    configure: Write, invoke: Invoke, toml: str, words: str
) -> None:
    configure(toml)
    result = invoke("serve", "--port", "0", "--base-url", "http://127.0.0.1:9")

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{config.home() / 'config.toml'}: {words}" in result.stderr


def test_a_port_that_is_taken_is_a_clear_error(invoke: Invoke) -> None:
    with serving.bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        result = invoke("serve", "--port", port)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"flowgpt: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


# --- who may come in --------------------------------------------------------------------------------------------------


def test_l5_without_a_key_it_listens_to_this_machine_only(invoke: Invoke) -> None:
    result = invoke("serve", "--port", "0", "--host", "0.0.0.0", "--base-url", "http://127.0.0.1:9")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "flowgpt: whoever reaches 0.0.0.0 could ask, for there is no key yet\n"
        "hint: make one with `flowgpt keys add NAME`, or say --insecure-no-auth\n"
    )


def test_l5_with_a_key_it_listens_to_all_and_asks_for_it(start: Start, invoke: Invoke, upstream: Server) -> None:
    key = invoke("keys", "add", "alice").stdout.strip()
    child = start("serve", "--port", "0", "--host", "0.0.0.0", "--base-url", upstream.base_url)
    url = base_url(child).replace("0.0.0.0", "127.0.0.1")

    assert ask(url, "/chat/completions", QUESTION)[0] == 401
    assert "question: hi" in chat(url, authorization=f"Bearer {key}")
    code, _, notes = end(child)
    assert code == 0
    assert "hint: OPENAI_API_KEY=a key of `flowgpt keys add NAME`" in notes
    assert key not in notes


def test_l5_whoever_wants_no_keys_is_warned(start: Start, upstream: Server) -> None:
    child = start("serve", "--port", "0", "--host", "0.0.0.0", "--insecure-no-auth", "--base-url", upstream.base_url)

    assert "question: hi" in chat(base_url(child).replace("0.0.0.0", "127.0.0.1"))
    assert "warning: whoever reaches this address can ask; nobody is asked for a key" in end(child)[2]


@pytest.mark.usefixtures("unwritable_home")
def test_l5_without_its_store_it_serves_only_who_wants_no_keys(start: Start, invoke: Invoke, upstream: Server) -> None:
    """It cannot know who may come in."""
    refused = invoke("serve", "--port", "0", "--base-url", upstream.base_url)
    assert (refused.exit_code, refused.stdout) == (9, "")

    child = start("serve", "--port", "0", "--base-url", upstream.base_url, "--insecure-no-auth")
    assert "question: hi" in chat(base_url(child))
    assert "flowgpt: warning: responses are not stored: " in end(child)[2]


# --- its surroundings -------------------------------------------------------------------------------------------------


def test_i21_it_goes_on_when_nobody_reads_its_log(start: Start, upstream: Server) -> None:
    read, write = os.pipe()
    child = start("serve", "--port", "0", "--base-url", upstream.base_url, stderr=write)
    os.close(write)
    url = base_url(child)
    os.close(read)

    for _ in range(20):
        assert "question: hi" in chat(url)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0


def test_several_workers_answer_as_one(start: Start, upstream: Server) -> None:
    child = start("serve", "--port", "0", "--workers", "2", "--base-url", upstream.base_url, "--drain-timeout", "5")
    url = base_url(child)

    assert all("question: hi" in chat(url) for _ in range(5))
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        figures = connection.getresponse().read().decode()
    assert 'flowgpt_gateway_requests_total{route="chat",status="200"} 5.0' in figures
    code, rest, notes = end(child)
    assert (code, rest) == (0, b"")
    assert len(re.findall("^flowgpt: ", notes, re.MULTILINE)) == 1
    upstream.wait_until_idle()


def test_an_error_of_its_workers_is_told_once(start: Start, configure: Write) -> None:
    configure("temperature = 9\n")
    child = start("serve", "--port", "0", "--workers", "3", "--base-url", "http://127.0.0.1:9")

    rest, notes = child.communicate(timeout=30)
    assert (child.returncode, rest) == (2, b"")
    assert notes.decode().count("flowgpt: ") == 1
    assert "temperature" in notes.decode()


# --- providers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_chosen_providers_answer(start: Start, upstream: Server, configure: Write, workers: str) -> None:
    configure(f"[provider.there]\ntype = 'flowgpt'\nbase_url = '{upstream.base_url}'\n")
    child = start("serve", "--port", "0", "--workers", workers, "--provider", "there")

    assert "question: hi" in chat(base_url(child))
    code, _, notes = end(child)
    assert code == 0
    assert "flowgpt: there answers here until Ctrl-C" in notes
