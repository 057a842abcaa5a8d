"""Templates: what is in a file, what becomes of it, and that nothing in it or in a value is evaluated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.config import templates
from flowgpt.config.templates import Template
from flowgpt.errors import InvalidRequestError


@pytest.fixture
def folder() -> Path:
    """Where templates are."""
    templates.folder().mkdir(parents=True)
    return templates.folder()


def test_a_file_is_a_template_with_all_its_keys(folder: Path) -> None:
    (folder / "translate.toml").write_text(
        '\ufeffprompt = "To $lang: $input"\nsystem = "Be ${tone}."\nmodel = "gemini"\ntemperature = 0\n'
        '[defaults]\nlang = "English"\n',
        "utf-8",
    )

    made = templates.load("translate")

    assert made == Template(
        prompt="To $lang: $input",
        system="Be ${tone}.",
        model="gemini",
        temperature=0.0,
        defaults={"lang": "English"},
    )
    assert made.variables == ["lang", "input", "tone"]
    assert templates.names() == ["translate"]
    assert templates.filled("translate", "Hallo", {"tone": "brief"}) == Template(
        prompt="To English: Hallo", system="Be brief.", model="gemini", temperature=0.0
    )
    assert templates.filled("translate", "Hallo", {"tone": "x", "lang": "French"}).prompt == "To French: Hallo"


@pytest.mark.parametrize(
    ("text", "asked", "prompt"),
    [
        ("prompt = 'Sum up: $input'", "a text", "Sum up: a text"),
        ("prompt = 'Sum up:'", "a text", "Sum up:\n\na text"),
        ("prompt = 'A joke, for 5 $$'", "", "A joke, for 5 $"),
        ("system = 'Be brief.'", "Why?", "Why?"),
        ("prompt = '$input'\n[defaults]\ninput = 'nothing'", "", "nothing"),
        ("prompt = '$input'\n[defaults]\ninput = 'nothing'", "this", "this"),
    ],
)
def test_what_is_asked_is_input_or_follows_the_prompt(folder: Path, text: str, asked: str, prompt: str) -> None:
    (folder / "a.toml").write_text(text)

    assert templates.filled("a", asked, {}).prompt == prompt


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_m7_what_is_filled_in_is_not_looked_into_again(asked: str, value: str) -> None:
    templates.folder().mkdir(parents=True, exist_ok=True)
    (templates.folder() / "a.toml").write_text("prompt = '[$input|$x]'\nsystem = '$x'\n[defaults]\ny = '$input'")

    made = templates.filled("a", asked + "$x ${y}", {"x": value + "$input ${y} {0} %s"})

    assert made.prompt == f"[{asked}$x ${{y}}|{value}$input ${{y}} {{0}} %s]"
    assert made.system == value + "$input ${y} {0} %s"


def test_m7_a_default_that_names_variables_is_a_plain_text(folder: Path) -> None:
    (folder / "a.toml").write_text("prompt = '$x'\n[defaults]\nx = '$x $y'\ny = '$x'")

    assert templates.filled("a", "", {}).prompt == "$x $y"


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", ".", ".hidden", "", "a\\b", "a\0", "a\n", "-x", "x" * 65, "C:x"]
)
def test_m7_a_name_leads_to_no_other_folder(folder: Path, name: str) -> None:
    (folder.parent / "secret.toml").write_text("prompt = 'secret'")

    with pytest.raises(InvalidRequestError, match="a template's name has letters"):
        templates.load(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("promt = 'a'", "there is no key 'promt'; did you mean 'prompt'"),
        ("zzz = 1", "there is no key 'zzz'; the keys are defaults, model, prompt, system, temperature"),
        ("prompt = 1", "prompt must be a string, not int"),
        ("prompt = '5 $ or less'", "prompt has a \\$ that begins no variable"),
        ("system = '${'", "system has a \\$ that begins no variable"),
        ("model = true", "model must be a string"),
        ("temperature = 3", "temperature must be a number from 0 to 2"),
        ("defaults = 1", "defaults must be a table"),
        ("[defaults]\nx = 1", "defaults.x must be a string"),
        ("prompt = ", "cannot be read"),
        ("a = " + "[" * 5000, "cannot be read"),
        ("#" * (templates.LIMIT_BYTES + 1), "cannot be read: it is larger than"),
    ],
)
def test_i22_a_wrong_template_is_named_with_file_and_key(folder: Path, text: str, words: str) -> None:
    (folder / "a.toml").write_text(text)

    with pytest.raises(InvalidRequestError, match=rf"^{folder}/a\.toml:? {words}"):
        templates.load("a")


@pytest.mark.parametrize(
    ("asked", "values", "words", "hint"),
    [
        ("", {"x": "1"}, "wants input", "ask something"),
        ("q", {}, "wants x", "-p x=VALUE"),
        ("", {}, "wants input, x", "ask something; -p x=VALUE"),
        ("q", {"x": "1", "y": "2"}, "has no variable 'y'; its variables: x", None),
        ("q", {"x": "1", "input": "2"}, "give it as the question", None),
    ],
)
def test_what_is_missing_or_not_wanted_is_told(
    folder: Path, asked: str, values: dict[str, str], words: str, hint: str | None
) -> None:
    (folder / "a.toml").write_text("prompt = '$input $x'")

    with pytest.raises(InvalidRequestError, match=words) as caught:
        templates.filled("a", asked, values)
    assert caught.value.hint == hint


def test_a_template_that_is_not_there_names_the_nearest(folder: Path) -> None:
    (folder / "translate.toml").write_text("prompt = 'a'")
    os.mkfifo(folder / "pipe.toml")
    (folder / "circle.toml").symlink_to("circle.toml")

    for name, words in {"transalte": "did you mean 'translate'", "pipe": "no file", "circle": "no file"}.items():
        with pytest.raises(InvalidRequestError, match=rf"there is no template '{name}'.*{words}"):
            templates.load(name)


def test_without_a_folder_there_are_none() -> None:
    assert templates.names() == []
