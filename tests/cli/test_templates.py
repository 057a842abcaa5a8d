"""`flowgpt templates`: which there are, and what is in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowgpt.config import templates
from tests.cli.conftest import Invoke


@pytest.fixture
def folder() -> Path:
    templates.folder().mkdir(parents=True)
    (templates.folder() / "to.toml").write_text("prompt = 'To $lang: $input'\n[defaults]\nlang = '\u202e'", "utf-8")
    (templates.folder() / "brief.toml").write_text("system = 'Be brief.'\n")
    return templates.folder()


def test_the_folder_is_told_whether_it_is_there_or_not(invoke: Invoke) -> None:
    assert invoke("templates", "path").stdout == f"{templates.folder()}\n"


def test_each_is_listed_with_its_variables(invoke: Invoke, folder: Path) -> None:
    assert invoke("templates", "list").stdout == "brief\nto     [lang] input\n"
    assert json.loads(invoke("templates", "list", "--json").stdout) == {
        "templates": [
            {"name": "brief", "variables": [], "defaults": {}},
            {"name": "to", "variables": ["lang", "input"], "defaults": {"lang": "\u202e"}},
        ]
    }


def test_without_any_it_is_told_where_they_would_be(invoke: Invoke) -> None:
    result = invoke("templates", "list")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"flowgpt: there is no template in {templates.folder()}\n"


def test_i22_a_wrong_one_is_named_and_the_others_are_listed(invoke: Invoke, folder: Path) -> None:
    (folder / "bad.toml").write_text("promt = 'a'")
    result = invoke("templates", "list")

    assert (result.exit_code, result.stdout) == (0, "brief\nto     [lang] input\n")
    assert f"{folder}/bad.toml: there is no key 'promt'" in result.stderr
    assert invoke("templates", "show", "bad").exit_code == 2


def test_e14_the_file_is_shown_and_commands_no_terminal(invoke: Invoke, folder: Path) -> None:
    assert invoke("templates", "show", "to").stdout == "prompt = 'To $lang: $input'\n[defaults]\nlang = ''\n"


@pytest.mark.parametrize("name", ["../config", "/etc/hostname", "", "nope"])
def test_m7_what_is_no_template_is_not_shown(invoke: Invoke, folder: Path, name: str) -> None:
    (folder.parent / "config.toml").write_text("model = 'secret'")
    result = invoke("templates", "show", name)

    assert (result.exit_code, result.stdout) == (2, "")
