"""The commands of a chat, one by one. tests/cli/test_chat.py has them in a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowgpt import Client
from flowgpt.cli import slash
from flowgpt.cli.dialogue import Dialogue
from flowgpt.cli.slash import Next, Talk
from flowgpt.errors import FlowGPTError, InvalidRequestError, ModelNotFoundError
from flowgpt.messages import Messages
from flowgpt.providers.base import AsyncGeneratorProvider
from flowgpt.providers.flowgpt import FlowGpt
from flowgpt.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "chat.md"


class Echo(AsyncGeneratorProvider):
    """Answers with the question."""

    @classmethod
    async def create_async_generator(  # type: ignore[override]  # a stranger's bare form
        cls, model: str = "", messages: Messages = (), *_: Any, **__: Any
    ) -> AsyncIterator[str]:
        yield f"re: {messages[-1]['content']}"


@pytest.fixture
def talk() -> Iterator[Talk]:
    with (
        contextlib.closing(Store()) as store,
        Client(provider=Echo) as client,
        contextlib.closing(Dialogue(client, store, tell=print, default_model="default")) as dialogue,
    ):
        yield Talk(dialogue, client, store)


def ask(talk: Talk, question: str) -> None:
    assert [*talk.dialogue.ask(question)] == [f"re: {question}"]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("/help", True),
        ("/model x y", True),
        ("/nix", True),
        (" /help", False),
        ("/etc/passwd is what?", False),
        ("/", False),
        ("//", False),
        ("/model\nx", True),
        ("help", False),
    ],
)
def test_a_slash_and_a_word_are_a_command(text: str, is_one: bool) -> None:
    assert slash.is_command(text) is is_one


def test_what_is_no_command_names_the_nearest(talk: Talk) -> None:
    with pytest.raises(InvalidRequestError, match=r"there is no /modle; did you mean /model\?") as failure:
        slash.run(talk, "/modle gpt-4-turbo")

    assert failure.value.hint is not None
    assert "/help" in failure.value.hint


def test_retry_asks_again_in_the_place_of_what_was_answered(talk: Talk) -> None:
    ask(talk, "one")

    assert slash.run(talk, "/retry") == Next(question="one", instead=True)
    talk.dialogue.turns[-1] = talk.dialogue.turns[-2]
    assert slash.run(talk, "/edit two words") == Next(question="two words", instead=True)


def test_edit_puts_the_question_into_a_prompt_that_can_be_filled(talk: Talk) -> None:
    ask(talk, "one")
    with pytest.raises(InvalidRequestError, match="/edit TEXT"):
        slash.run(talk, "/edit")
    talk.editor = True

    assert slash.run(talk, "/edit") == Next(fill="one")
    assert len(talk.dialogue.turns) == 2  # nothing is taken back before something is asked instead


@pytest.mark.parametrize("line", ["/retry", "/edit", "/undo", "/fork", "/save x", "/copy", "/save"])
def test_what_needs_a_talk_says_so(talk: Talk, line: str) -> None:
    with pytest.raises(InvalidRequestError, match="there is n"):
        slash.run(talk, line)


def test_settings_are_told_set_and_unset(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("/system", "/system Be brief.", "/system -", "/temperature", "/temperature 0.5", "/temperature -"):
        assert slash.run(talk, line) == Next()
    for line in ("/model", "/model own"):
        assert slash.run(talk, line) == Next()

    assert capsys.readouterr().err.splitlines() == [
        "system prompt: (none)",
        "system prompt: Be brief.",
        "system prompt: (none)",
        "temperature: as configured",
        "temperature: 0.5",
        "temperature: as configured",
        "model: default; /model and Tab list the others",
        "model: own",  # who answers has no list of models
    ]
    assert (talk.dialogue.system, talk.dialogue.temperature, talk.dialogue.model) == ("", None, "own")


@pytest.mark.parametrize("value", ["hot", "3", "nan", "-1"])
def test_a_wrong_temperature_changes_nothing(talk: Talk, value: str) -> None:
    talk.dialogue.temperature = 0.5

    with pytest.raises(InvalidRequestError, match="temperature must be a number from 0 to 2"):
        slash.run(talk, f"/temperature {value}")
    assert talk.dialogue.temperature == 0.5


def test_a_model_that_is_not_there_changes_nothing() -> None:
    with Client(provider=FlowGpt) as client:
        talk = Talk(Dialogue(client, None, tell=print), client, None)
        with pytest.raises(ModelNotFoundError, match="gpt-4-turbo"):
            slash.run(talk, "/model gpt-4-turb")
        slash.run(talk, "/model gemini")

        assert talk.dialogue.model == "gemini"
        assert "gpt-4-turbo" in slash.completions(talk, "/model gpt-4")


def test_a_fork_and_the_way_back(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    ask(talk, "one")
    first = talk.dialogue.id
    slash.run(talk, "/fork")
    ask(talk, "two")
    second = talk.dialogue.id
    slash.run(talk, f"/continue {first}")

    assert first is not None
    assert second is not None
    assert (talk.dialogue.id, len(talk.dialogue.turns)) == (first, 2)
    assert capsys.readouterr() == ("> one\nre: one\n", f"this goes on as {second}; {first} stays as it is\n")
    assert slash.completions(talk, f"/continue {second}") == [second]
    slash.run(talk, "/continue")
    listed = capsys.readouterr().out.splitlines()
    assert [line[:10] for line in listed] == [second, first]
    assert listed[0].endswith("  one")


def test_undo_takes_back_and_says_what(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    ask(talk, "one\x1b[2J")
    slash.run(talk, "/undo")

    assert talk.dialogue.turns == []
    assert capsys.readouterr().err == "taken back: one[2J\n"


def test_save_writes_a_new_file_only(talk: Talk, tmp_path: Path) -> None:
    ask(talk, "one")
    path = tmp_path / "a talk.md"
    slash.run(talk, f"/save {path}")
    assert path.stat().st_mode & 0o777 == 0o600

    assert "re: one" in path.read_text("utf-8")
    before = path.read_bytes()
    with pytest.raises(InvalidRequestError, match="is there already"):
        slash.run(talk, f"/save {path}")
    assert path.read_bytes() == before
    for wrong in (tmp_path, tmp_path / "no" / "folder", "a\0b"):
        with pytest.raises(InvalidRequestError, match=r"cannot write|is there already"):
            slash.run(talk, f"/save {wrong}")


def test_copy_without_any_way_says_what_else_there_is(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask(talk, "one")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(InvalidRequestError, match="no way to a clipboard") as failure:
        slash.run(talk, "/copy")
    assert "/save" in (failure.value.hint or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/", [f"{row.name} ".rstrip() if not row.argument else f"{row.name} " for row in slash.COMMANDS]),
        ("/mo", ["/model "]),
        ("/re", ["/retry"]),
        ("/model x", []),  # who answers has no list of models
        ("model", []),
        ("/mo\n", []),
        ("/nix a", []),
        ("/continue ", []),
    ],
)
def test_words_are_completed(talk: Talk, text: str, words: list[str]) -> None:
    assert slash.completions(talk, text) == words


def test_a_store_that_fails_completes_nothing(talk: Talk) -> None:
    assert talk.store is not None
    talk.store.close()

    assert slash.completions(talk, "/continue ") == []


def test_help_has_every_command_and_key_at_any_width(
    talk: Talk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("80", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        slash.run(talk, "/help")
        shown = capsys.readouterr().out
        assert all(row.name in shown and row.words in shown for row in slash.COMMANDS)
        assert all(key in shown and words in shown for key, words in slash.KEYS)
        assert max(map(len, shown.splitlines())) < int(columns)


def test_the_page_has_the_commands_and_keys_of_help() -> None:
    page = PAGE.read_text("utf-8")
    rows = [(f"{row.name} {row.argument}".strip(), row.words) for row in slash.COMMANDS] + [*slash.KEYS]

    assert [line for line in page.splitlines() if line.startswith("| `")] == [
        f"| `{name}` | {words} |" for name, words in rows
    ]


def test_only_our_own_errors_come_out(talk: Talk) -> None:
    for row in slash.COMMANDS:
        for argument in ("", "x", "\x1b[2J", "-", "\0", "a" * 5000):
            with contextlib.suppress(FlowGPTError):
                assert isinstance(slash.run(talk, f"{row.name} {argument}"), Next)
