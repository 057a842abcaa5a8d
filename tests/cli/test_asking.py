"""What the commands that ask have in common: what a question is made of, and which conversation goes on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from flowgpt.config import templates
from flowgpt.conversation import Turn
from flowgpt.embedded import Server
from flowgpt.store import Store
from tests.cli.conftest import Invoke


@pytest.fixture
def said() -> str:
    """The id of a conversation of which one question is answered; another one was gone on with later."""
    with contextlib.closing(Store()) as store:
        ids = [
            store.conversations.add(
                None,
                0,
                [
                    Turn(role="user", text=f"{name} question", created_s=1.0),
                    Turn(
                        role="assistant",
                        text=f"{name} answer",
                        created_s=2.0,
                        model="google-gemini",
                        system="Be kind.",
                        parameters={"temperature": 0.2},
                        verdict="complete",
                    ),
                ],
            )
            for name in ("first", "second")
        ]
    return ids[0]


@pytest.fixture
def template() -> None:
    templates.folder().mkdir(parents=True)
    (templates.folder() / "to.toml").write_text(
        "prompt = 'To $lang: $input'\nsystem = 'Be $tone.'\nmodel = 'gemini'\ntemperature = 0.5\n"
        "[defaults]\nlang = 'English'\ntone = 'brief'\n"
    )


def asked(server: Server) -> tuple[str, str, float, str, list[str]]:
    """Model, system, temperature, question, and what was said before."""
    chat = server.requests[-1].chat
    assert chat is not None
    before = [turn.content for turn in chat.prompt.history]
    return chat.model, chat.prompt.system, chat.temperature, chat.prompt.question, before


def test_words_piped_text_and_files_are_one_question_in_this_order(
    server: Server, invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("A")
    (tmp_path / "b.txt").write_text("B")

    result = invoke("Sum", "up", "-a", f"{tmp_path}/a.txt", "-a", f"{tmp_path}/b.txt", stdin="piped\n")

    assert result.exit_code == 0, result.stderr
    assert asked(server)[3] == "Sum up\n\npiped\n\n```a.txt\nA\n```\n\n```b.txt\nB\n```"


def test_a_file_alone_is_a_question(server: Server, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A")

    assert invoke("-a", f"{tmp_path}/a.txt").exit_code == 0
    assert asked(server)[3] == "```a.txt\nA\n```"


@pytest.mark.usefixtures("template")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-t", "to", "Hallo"], ("google-gemini", "Be brief.", 0.5, "To English: Hallo", [])),
        (["-t", "to", "-p", "lang=a=b", "x"], ("google-gemini", "Be brief.", 0.5, "To a=b: x", [])),
        (
            ["-t", "to", "-p", "tone=", "-m", "gpt-4-turbo", "--temperature", "0", "x"],
            ("gpt-4-turbo", "Be .", 0.0, "To English: x", []),
        ),
        (["-t", "to", "-s", "Be long.", "x"], ("google-gemini", "Be long.", 0.5, "To English: x", [])),
    ],
)
def test_a_template_makes_the_question_and_options_go_before_its_own(
    server: Server, invoke: Invoke, args: list[str], expected: tuple[object, ...]
) -> None:
    result = invoke(*args)

    assert result.exit_code == 0, result.stderr
    assert asked(server) == expected


def test_continue_is_the_last_conversation_and_cid_says_which(server: Server, invoke: Invoke, said: str) -> None:
    assert invoke("-c", "More?").exit_code == 0
    assert asked(server) == ("google-gemini", "Be kind.", 0.2, "More?", ["second question", "second answer"])
    assert invoke("--cid", said[:6], "More?").exit_code == 0
    assert asked(server)[4] == ["first question", "first answer"]
    assert invoke("-c", "And?").exit_code == 0
    assert asked(server)[4][0] == "first question", "it was gone on with last"


def test_a_new_model_system_prompt_and_temperature_count_in_a_conversation_that_goes_on(
    server: Server, invoke: Invoke, said: str
) -> None:
    how = ("-m", "gpt-4-turbo", "-s", "Be brief.", "--temperature", "1")
    assert invoke("--cid", said, *how, "More?").exit_code == 0
    assert asked(server)[:3] == ("gpt-4-turbo", "Be brief.", 1.0)
    assert invoke("-c", "And?").exit_code == 0
    assert asked(server)[:3] == ("gpt-4-turbo", "Be brief.", 1.0)


def test_explain_shows_the_same_question(invoke: Invoke, said: str, tmp_path: Path, template: None) -> None:
    (tmp_path / "a.txt").write_text("A")
    result = invoke("explain", "--json", "--cid", said, "-t", "to", "-a", f"{tmp_path}/a.txt")

    body = json.loads(json.loads(result.stdout)["body"])
    assert body["question"] == "To English: ```a.txt\nA\n```"
    assert [turn["content"] for turn in body["history"]] == ["first question", "first answer"]
    assert (body["model"], body["system"]) == ("google-gemini", "Be brief.")


@pytest.mark.parametrize("command", ["ask", "explain"])
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-a", "-", "x"], "'-' is no file"),
        (["-a", "missing.txt", "x"], "missing.txt cannot be read: No such file"),
        (["-t", "nope", "x"], "there is no template 'nope'"),
        (["-t", "../nope", "x"], "a template's name has"),
        (["-p", "a=b", "x"], "--param is for a template"),
        (["-t", "to", "-p", "ab", "x"], "'ab' is not of the form NAME=VALUE"),
        (["-t", "to"], "template 'to' wants input"),
        (["-c", "--cid", "a", "x"], "give one of them"),
        (["-c", "x"], "there is no conversation yet"),
        (["--cid", "", "x"], "there is no conversation ''"),
        (["--cid", "abc", "x"], "there is no conversation 'abc'"),
        (["--cid", "%", "x"], "there is no conversation '%'"),
    ],
)
@pytest.mark.usefixtures("template")
def test_what_cannot_be_asked_is_refused_and_nothing_is_sent(
    server: Server, invoke: Invoke, command: str, args: list[str], words: str
) -> None:
    result = invoke(command, *args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert list(server.requests) == []
