"""`flowgpt ask`: what is sent, and what is shown of the answer or of its failure."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from flowgpt import config
from flowgpt.embedded import Server
from flowgpt.protocol.request import ChatRequest
from flowgpt.store import Store
from tests.cli.conftest import PYTHON, Invoke, Write
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER


def asked(server: Server) -> ChatRequest:
    """The one chat that the server received."""
    (received,) = server.requests
    assert received.chat is not None
    return received.chat


def reflection(question: str, system: str = "(none)") -> str:
    return (
        "This is flowgpt's embedded server on your own machine. No model answers here; this is what it received:\n"
        f"model: gpt-3.5-turbo\ntemperature: 0.7\nsystem prompt: {system}\nearlier turns: 0\nquestion: {question}\n"
    )


def answering(*texts: str) -> Any:
    async def respond(_request: ChatRequest) -> AsyncGenerator[str, None]:
        for text in texts:
            yield text

    return respond


# --- what is asked ------------------------------------------------------------------------------------------------


def test_the_answer_and_nothing_else_is_on_stdout(server: Server, invoke: Invoke) -> None:
    result = invoke("ask", "What is the capital of France?")

    assert (result.exit_code, result.stdout, result.stderr) == (0, reflection("What is the capital of France?"), "")


def test_options_travel_to_the_request(server: Server, invoke: Invoke) -> None:
    result = invoke("-m", "gemini", "-s", "Be brief.", "--temperature", "0", "--timeout", "20", "Why?")

    chat = asked(server)
    assert result.exit_code == 0
    assert (chat.model, chat.prompt.system, chat.temperature, chat.prompt.question) == (
        "google-gemini",
        "Be brief.",
        0.0,
        "Why?",
    )


@pytest.mark.parametrize(
    ("args", "stdin", "question"),
    [
        (["why", "is", "it", "so?"], "", "why is it so?"),
        (["ask", "models"], "", "models"),
        (["--", "models"], "", "models"),
        ([], "piped\n", "piped"),
        (["ask"], "  two\nlines\n\n", "  two\nlines"),
        (["Summarise this"], "a text\n", "Summarise this\n\na text"),
        (["Summarise this"], " \n", "Summarise this"),
    ],
)
def test_words_and_piped_text_become_one_question(
    server: Server, invoke: Invoke, args: list[str], stdin: str, question: str
) -> None:
    result = invoke(*args, stdin=stdin)

    assert result.exit_code == 0, result.stderr
    assert asked(server).prompt.question == question


@pytest.mark.parametrize(
    ("args", "stdin", "words"),
    [
        (["ask"], "", "There is no question"),
        ([""], "", "There is no question"),
        ([], "\n", "There is no question"),
        (["-m", "gpt-4-turb", "hi"], "", "nearest: gpt-4-turbo"),
        (["--temperature", "nan", "hi"], "", "temperature must be a number from 0 to 2, not nan"),
        (["--temperature", "hot", "hi"], "", "'hot' is not a valid float"),
        (["--timeout", "-1", "hi"], "", "total_s must be a positive number"),
        (["--proxy", "gopher://127.0.0.1", "hi"], "", "not 'gopher'"),
        (["--base-url", "http://127.0.0.1/v3", "hi"], "", "base_url"),
        (["--modle", "x", "hi"], "", "No such option '--modle'"),
        (["hi"], b"\xff", "not UTF-8"),
    ],
)
def test_a_wrong_call_sends_nothing_and_ends_with_2(
    server: Server, invoke: Invoke, args: list[str], stdin: str | bytes, words: str
) -> None:
    result = invoke(*args, stdin=stdin)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert list(server.requests) == []


@pytest.mark.parametrize(
    ("env", "args", "words"),
    [
        ({}, ["--temperature", "nan"], "temperature must be a number from 0 to 2, not nan"),
        ({}, ["--timeout", "0"], "total_s must be a positive number"),
        ({}, ["--proxy", "gopher://127.0.0.1"], "not 'gopher'"),
        ({"FLOWGPT_API_KEY": "a key\n"}, [], "FLOWGPT_API_KEY: api_key has a character"),
        ({"FLOWGPT_MODEL": "nope"}, [], "model 'nope' is not in "),
        ({"FLOWGPT_BASE_URL": "embedded"}, ["--model", "nope"], "model 'nope' is not in "),
    ],
)
def test_a_wrong_call_is_refused_before_the_embedded_server_is_started(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], args: list[str], words: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    result = invoke(*args, "hi")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("flowgpt: ")
    assert words in result.stderr.splitlines()[0]


# --- how it is shown ----------------------------------------------------------------------------------------------


def test_json_is_one_object_with_text_and_figures(server: Server, invoke: Invoke) -> None:
    result = invoke("--json", "Grüße")

    said = json.loads(result.stdout)
    timings = said.pop("timings")
    with contextlib.closing(Store()) as store:
        [kept] = store.conversations.list()
    assert result.stdout.isascii()
    assert said == {
        "conversation": kept.id,
        "model": "gpt-3.5-turbo",
        "text": reflection("Grüße"),
        "verdict": "complete",
        "finish_reason": "stop",
        "attempts": 1,
        "endpoint": server.base_url,
    }
    assert 0 <= timings["first_text_s"] <= timings["total_s"]


def test_a_failure_in_json_is_one_object_with_what_came(server: Server, invoke: Invoke) -> None:
    server.fault("cut_mid_line:2")
    result = invoke("--json", "hi")

    said = json.loads(result.stdout)
    assert result.exit_code == 7
    assert said["text"] == "This is "
    assert said["error"]["type"] == "StreamInterruptedError"
    assert said["error"]["code"] == "stream_interrupted"
    assert said["error"]["message"]
    assert said["error"].keys() >= {"hint", "retriable", "retry_after_s", "attempts", "phase", "request_id"}
    assert result.stderr.startswith("flowgpt: ")


def test_a_configuration_that_cannot_be_read_is_json_too(configure: Write, invoke: Invoke) -> None:
    configure("base_url = \n")
    result = invoke("--json", "hi")

    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_a_cut_answer_keeps_what_came_and_is_marked(server: Server, invoke: Invoke, how: list[str]) -> None:
    server.fault("cut_mid_line:3")
    result = invoke(*how, "hi")

    assert (result.exit_code, result.stdout) == (7, "This is flowgpt's \n")
    mark, message, hint = result.stderr.splitlines()
    assert mark == "[the answer is cut here]"
    assert message.startswith("flowgpt: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("status:400", 2),
        ("status:401", 3),
        ("status:403", 3),
        ("challenge", 3),
        ("rate_limit:7", 4),
        ("status:402", 4),
        ("credit:2", 4),
        ("status:500", 5),
        ("status:503", 5),
        ("stall:2", 6),
        ("stall_head", 6),
        ("refuse", 7),
        ("reset", 7),
        ("reset_mid_stream", 7),
        ("cut_at_line", 7),
        ("truncated_length", 7),
        ("empty", 8),
        ("html_page", 8),
        ("wrong_json", 8),
        ("redirect", 8),
        ("status:404", 8),
    ],
)
def test_each_failure_has_its_exit_code_one_line_and_a_hint(
    server: Server, invoke: Invoke, fault: str, code: int
) -> None:
    server.fault(fault)
    patience = ["--timeout", "0.3"] if fault.startswith("stall") else []
    result = invoke(*patience, "hi")

    assert result.exit_code == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line != "[the answer is cut here]"]
    assert [line.split(": ")[0] for line in lines] == ["flowgpt", "hint"]
    assert not re.search(PYTHON, lines[1])
    server.wait_until_idle()


@pytest.mark.parametrize(
    ("part", "fault", "code"),
    [
        ("head_s", "stall_head", "header_timeout"),
        ("first_event_s", "heartbeat", "first_event_timeout"),
        ("idle_s", "stall:2", "idle_timeout"),
    ],
)
def test_a_limit_of_a_part_is_told_by_its_name_in_the_configuration(
    server: Server, invoke: Invoke, configure: Write, part: str, fault: str, code: str
) -> None:
    """What the hint says to raise is what was set."""
    configure(f"max_retries = 0\n[timeout]\n{part} = 0.2\n")
    server.fault(fault)
    error = json.loads(invoke("--json", "hi").stdout)["error"]

    assert (error["code"], error["hint"]) == (code, f"try later, or raise {part} under [timeout] in the configuration")


@pytest.mark.parametrize(
    ("args", "step"),
    [
        (["--proxy", "http://127.0.0.1:1"], "--proxy ''"),
        (["--model", "nope"], "`flowgpt models` lists them"),
    ],
)
@pytest.mark.usefixtures("server")
def test_the_hint_for_a_wrong_choice_is_an_option_of_the_terminal(invoke: Invoke, args: list[str], step: str) -> None:
    result = invoke(*args, "hi")
    hint = json.loads(invoke(*args, "--json", "hi").stdout)["error"]["hint"]

    assert step in hint
    assert result.stderr.splitlines()[1:] == [f"hint: {hint}"]
    assert not re.search(PYTHON, hint)


def test_an_end_that_nothing_proves_is_noted(server: Server, invoke: Invoke) -> None:
    server.fault("close_delimited", times=3)

    result = invoke("hi")
    assert (result.exit_code, result.stdout) == (0, reflection("hi"))
    assert result.stderr == "flowgpt: this connection cannot prove that the answer is complete\n"
    assert invoke("-q", "hi").stderr == ""
    said = json.loads(invoke("--json", "hi").stdout)
    assert (said["verdict"], said["finish_reason"]) == ("unverified", None)


@pytest.mark.parametrize(
    ("how", "shown"),
    [([], "a[31mb]0;t\nc\n"), (["--no-stream"], "a[31mb]0;t\nc\n"), (["--raw"], "a\x1b[31mb\x1b]0;t\x07\r\nc\n")],
)
def test_e14_an_answer_commands_no_terminal_unless_it_is_raw(invoke: Invoke, how: list[str], shown: str) -> None:
    """Also when an escape is split over texts."""
    with Server(answering("a\x1b", "[31mb\x1b]0", ";t\x07\r\nc")) as server:
        result = invoke("--base-url", server.base_url, *how, "hi")
        said = json.loads(invoke("--base-url", server.base_url, "--json", "hi").stdout)

    assert result.stdout_bytes.decode() == shown
    assert said["text"] == "a\x1b[31mb\x1b]0;t\x07\r\nc"


def test_verbose_tells_who_answered_and_how_it_went_and_no_word_of_the_question(server: Server, invoke: Invoke) -> None:
    result = invoke("-v", "-s", "a secret system", "a secret question")

    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"flowgpt: gpt-3.5-turbo at {server.base_url}, complete, attempts: 1, first text after 0.")
    assert "secret" not in line


def test_verbose_counts_the_events_that_have_no_text(server: Server, invoke: Invoke) -> None:
    server.fault("unknown_events")

    assert "skipped 1 of event 'title'" in invoke("-v", "hi").stderr


def test_verbose_tells_how_often_a_failed_question_was_sent(server: Server, invoke: Invoke, configure: Write) -> None:
    configure("max_retries = 1\n")
    server.fault("reset", times=2)

    result = invoke("-v", "hi")

    assert (result.exit_code, len(server.requests)) == (7, 2)
    assert "attempts: 2" in result.stderr.splitlines()[0]


def test_k1_k2_a_key_and_a_proxy_s_password_are_never_shown(
    server: Server, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWGPT_API_KEY", API_KEY)
    monkeypatch.setenv("FLOWGPT_PROXY", f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:1")
    result = invoke("-v", "--json", "hi")

    assert result.exit_code == 5
    for secret in (API_KEY, PROXY_USER, PROXY_PASSWORD):
        assert secret not in result.output
    monkeypatch.setenv("FLOWGPT_PROXY", "")
    server.fault("status:401")
    result = invoke("-v", "--json", "hi")
    assert result.exit_code == 3
    assert server.requests[-1].headers["authorization"] == f"Bearer {API_KEY}"
    assert API_KEY not in result.output


# --- who answers --------------------------------------------------------------------------------------------------

TWO = """
max_retries = 0
providers = ["first", "second"]
[provider.first]
type = "flowgpt"
base_url = "{}"
[provider.second]
type = "flowgpt"
base_url = "{}"
model = "gemini"
"""


def test_the_next_provider_steps_in_and_is_named(invoke: Invoke, configure: Write) -> None:
    with Server(fault="status:500") as first, Server() as second:
        configure(TWO.format(first.base_url, second.base_url))
        result = invoke("--json", "-m", "gpt-4-turbo", "hi")
        alone = invoke("-v", "--provider", "second", "hi")

    said = json.loads(result.stdout)
    assert (result.exit_code, said["model"], said["endpoint"], said["attempts"]) == (
        0,
        "gpt-4-turbo",
        "first, second",
        2,
    )
    assert alone.stderr.startswith("flowgpt: google-gemini at second, complete, attempts: 1")


def test_when_all_fail_json_and_v_have_what_each_said(invoke: Invoke, configure: Write) -> None:
    with Server(fault="status:500") as first, Server(fault="rate_limit:7") as second:
        configure(TWO.format(first.base_url, second.base_url))
        result = invoke("--json", "hi")
    with Server(fault="status:500") as first, Server(fault="rate_limit:7") as second:
        configure(TWO.format(first.base_url, second.base_url))
        told = invoke("-v", "hi")

    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["code"], error["attempts"]) == (4, "rate_limited", 2)
    assert [(cause["code"], cause["attempts"]) for cause in error["causes"]] == [
        ("server_error", 1),
        ("rate_limited", 1),
    ]
    assert [line.rpartition(" (")[2] for line in told.stderr.splitlines()[:3]] == [
        "server_error, attempts: 1)",
        "rate_limited, attempts: 1)",
        "flowgpt: rate_limited, attempts: 2",
    ]


def test_an_unknown_provider_is_a_wrong_call(invoke: Invoke) -> None:
    result = invoke("--provider", "flowgtp", "hi")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no provider 'flowgtp'; did you mean 'flowgpt'?" in result.stderr


# --- what is kept -------------------------------------------------------------------------------------------------


def kept() -> list[list[tuple[str, str]]]:
    """Text and verdict of each turn of each conversation."""
    with contextlib.closing(Store()) as store:
        each = [store.conversations.turns(conversation.id) for conversation in store.conversations.list()]
    return [[(turn.text, turn.verdict) for turn in turns] for turns in each]


def test_question_and_answer_are_kept(server: Server, invoke: Invoke) -> None:
    said = json.loads(invoke("--json", "Why?").stdout)
    again = json.loads(invoke("--json", "-c", "And?").stdout)

    assert said["conversation"] == again["conversation"]
    assert kept() == [[("Why?", ""), (said["text"], "complete"), ("And?", ""), (again["text"], "complete")]]


@pytest.mark.parametrize(("args", "written"), [(["--no-save"], ""), ([], "[history]\nsave = false\n")])
def test_nothing_is_kept_of_what_is_not_to_be_saved(
    server: Server, invoke: Invoke, configure: Write, args: list[str], written: str
) -> None:
    configure(written)
    result = invoke("--json", *args, "Why?")

    assert (result.exit_code, json.loads(result.stdout)["conversation"]) == (0, None)
    assert not (config.home() / "flowgpt.db").exists()


def test_a_conversation_goes_on_unsaved_and_stays_as_it_was(server: Server, invoke: Invoke) -> None:
    invoke("Why?")
    before = kept()
    result = invoke("-c", "--no-save", "And?")

    assert (result.exit_code, "earlier turns: 2" in result.stdout) == (0, True)
    assert kept() == before


def test_the_partial_text_of_a_cut_answer_is_kept_under_the_id_that_json_names(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, configure: Write
) -> None:
    configure("max_retries = 0\n")
    with Server(fault="cut_mid_line:5") as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        said = json.loads(invoke("--json", "Why?").stdout)

    assert kept() == [[("Why?", ""), (said["text"], "truncated")]]
    with contextlib.closing(Store()) as store:
        assert [conversation.id for conversation in store.conversations.list()] == [said["conversation"]]


@pytest.mark.usefixtures("unwritable_home")
def test_a_store_that_fails_is_told_of_and_the_answer_comes(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        result = invoke("-q", "Why?")
        going_on = invoke("-q", "-c", "Why?")

    assert (result.exit_code, result.stdout) == (0, reflection("Why?"))
    assert "flowgpt: this conversation is not being saved: " in result.stderr
    assert (going_on.exit_code, going_on.stdout) == (9, "")
    assert len(list(server.requests)) == 1


# --- the first block ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "args", "stdout", "noted"),
    [
        (["Here:\n``", "`sh\nls\n```\nDone."], ["-x"], "ls\n", False),
        (["Here:\n```\n\x1b[31mls"], ["-x"], "[31mls\n", False),
        (["Here:\n```\n\x1b[31mls"], ["-x", "--raw"], "\x1b[31mls\n", False),
        (["```\n```"], ["-x"], "", False),
        (["No block."], ["-x"], "No block.\n", True),
        (["No block."], ["-x", "-q"], "No block.\n", False),
    ],
)
def test_only_the_first_block_is_written_and_without_one_the_whole_answer(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, texts: list[str], args: list[str], stdout: str, noted: bool
) -> None:
    with Server(answering(*texts)) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        result = invoke(*args, "How?")

    assert (result.exit_code, result.stdout) == (0, stdout)
    assert result.stderr == "flowgpt: the answer has no fenced block; this is the whole of it\n" * noted


def test_json_has_the_block_and_the_whole_answer(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(answering("A:\n```\nls\n```\n")) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        said = json.loads(invoke("-x", "--json", "How?").stdout)

    assert (said["block"], said["text"]) == ("ls\n", "A:\n```\nls\n```\n")
