"""What a shell may put in: from the configuration and the store, and nothing where they cannot be read."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from typing import Any

import click
import pytest

from flowgpt import config
from flowgpt.cli import candidates
from flowgpt.config import templates
from flowgpt.conversation import Turn
from flowgpt.store import Store
from tests.cli.conftest import Write

Found = list[tuple[str, "str | None"]]


@pytest.fixture
def found() -> Callable[..., Found]:
    def found(complete: candidates.Complete, incomplete: str = "") -> Found:
        command = click.Command("x", params=[click.Option(["--x"])])
        items = complete(click.Context(command), command.params[0], incomplete)
        return [(item.value, item.help) for item in items]

    return found


def test_models_are_those_of_all_providers_with_what_an_alias_stands_for(found: Any, configure: Write) -> None:
    configure(
        "providers = ['flowgpt', 'local']\nextra_models = ['gem-own']\n"
        "[provider.local]\ntype = 'openai'\nbase_url = 'http://127.0.0.1:1'\nmodels = ['gem-local']\n"
    )

    assert found(candidates.models, "gem") == [
        ("gemini", "stands for google-gemini"),
        ("gemini-pro", "stands for google-gemini"),
        ("gem-local", "local"),
        ("gem-own", "extra_models"),
    ]


@pytest.mark.parametrize(
    "name", ["$(id)", "`id`", "a b", "*", "x;id", "x\\ny", "\\u001b[31m", "'q", "a|b", "-o", "~", "a&", "\\\\"]
)
def test_what_a_shell_would_not_take_as_a_plain_word_is_not_put_in(found: Any, configure: Write, name: str) -> None:
    """Bash puts a candidate into the command line as it is."""
    configure(f'extra_models = ["{name}", "own/model-1.5:x"]\n[provider."{name}"]\ntype = "openai"\n')

    assert [value for value, words in found(candidates.models) if words == "extra_models"] == ["own/model-1.5:x"]
    assert found(candidates.providers) == [("flowgpt", None)]


def test_words_about_a_candidate_command_no_terminal(found: Any, configure: Write) -> None:
    configure('[provider.x]\ntype = "a\\u001b[2J\\nb"\n')

    assert found(candidates.providers, "x") == [("x", "a[2J b")]


def test_providers_and_templates_are_those_of_the_home(found: Any, configure: Write) -> None:
    configure("[provider.local]\ntype = 'openai'\n[provider.other]\n")
    templates.folder().mkdir()
    (templates.folder() / "sum-up.toml").touch()

    assert found(candidates.providers) == [("flowgpt", None), ("local", "openai"), ("other", "other")]
    assert found(candidates.providers, "lo") == [("local", "openai")]
    assert found(candidates.templates, "s") == [("sum-up", None)]


def test_conversations_have_their_titles_the_last_one_first(found: Any) -> None:
    with contextlib.closing(Store()) as store:
        ids = [
            store.conversations.add(None, 0, [Turn(role="user", text=text, created_s=1.0)])
            for text in ("Why\n is it so?", "And this?")
        ]

    assert found(candidates.conversations) == [(ids[1], "And this?"), (ids[0], "Why is it so?")]
    assert found(candidates.conversations, ids[0][:5]) == [(ids[0], "Why is it so?")]


@pytest.mark.parametrize("complete", [candidates.models, candidates.providers, candidates.conversations])
def test_what_cannot_be_read_has_no_candidates(found: Any, configure: Write, complete: candidates.Complete) -> None:
    configure("nope = ")
    (config.home() / "flowgpt.db").write_bytes(b"no database at all" * 100)

    assert [value for value, _ in found(complete)] in ([], ["flowgpt"])


def test_nothing_is_made_and_nothing_is_started(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    for complete in (candidates.models, candidates.providers, candidates.templates, candidates.conversations):
        found(complete)

    assert not config.home().exists()
