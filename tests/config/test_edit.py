"""Changes in the configuration file: what was there stays as it was, and a change is whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.config import edit, path
from flowgpt.errors import InvalidRequestError
from tests.conftest import API_KEY

NAMES = st.sampled_from(["model", "timeout", "provider", "x"])
VALUES = st.integers(-5, 5) | st.booleans() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)

PUT: list[tuple[str, list[str], Any, str]] = [
    ("", ["model"], "a", 'model = "a"\n'),
    ("", ["timeout", "head_s"], 5, "[timeout]\nhead_s = 5\n"),
    ("", ["provider", "x", "type"], "openai", '[provider.x]\ntype = "openai"\n'),
    ("# mine\nmodel = 'a' # here\n", ["model"], "b", '# mine\nmodel = "b" # here\n'),
    ("nsfw=true", ["model"], "b", 'nsfw=true\nmodel = "b"\n'),
    ("[timeout]\nhead_s=1", ["model"], "b", 'model = "b"\n\n[timeout]\nhead_s=1\n'),
    ("timeout = {head_s=1}\n", ["timeout", "head_s"], 2, "timeout = {head_s=2}\n"),
    ("[provider.x]\na=1\n[timeout]\n[provider.y]\n", ["provider", "y", "b"], 1, None),  # type: ignore[list-item]
    ("model = 'a'\r\n# c\r\n", ["model"], "b", 'model = "b"\r\n# c\r\n'),
    ("", ["extra_body"], {"a": 1}, "extra_body = {a = 1}\n"),
]


@pytest.mark.parametrize(("before", "keys", "value", "after"), PUT)
def test_a_value_is_put_and_the_rest_stays(
    file: Path, before: str, keys: list[str], value: Any, after: str | None
) -> None:
    file.write_bytes(before.encode())
    edit.put(keys, value)

    read: Any = tomllib.loads(file.read_bytes().decode())
    for key in keys:
        read = read[key]
    assert read == value
    if after is not None:
        assert file.read_bytes().decode() == after


@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), VALUES), max_size=6))
def test_whatever_is_put_is_read_back_or_refused_with_the_file_as_it_was(changes: list[tuple[list[str], Any]]) -> None:
    path().unlink(missing_ok=True)
    wanted: dict[str, Any] = {}
    for keys, value in changes:
        try:
            edit.put(keys, value)
        except InvalidRequestError:
            continue
        table = wanted
        for key in keys[:-1]:
            table = table.setdefault(key, {})
        table[keys[-1]] = value
    assert (tomllib.loads(path().read_text("utf-8")) if wanted else {}) == wanted


@pytest.mark.parametrize(
    ("before", "keys", "after"),
    [
        ("# c\nmodel = 'a'\nnsfw = true\n", ["model"], "# c\nnsfw = true\n"),
        ("[timeout]\nhead_s = 1\nidle_s = 2\n", ["timeout", "head_s"], "[timeout]\nidle_s = 2\n"),
        ("[timeout]\nhead_s = 1\n\n[gateway]\n", ["timeout", "head_s"], "[gateway]\n"),
        ("[timeout]\n# why\nhead_s = 1\n", ["timeout", "head_s"], "[timeout]\n# why\n"),
        ("nsfw = true\n[provider.x]\na = 1\n", ["provider", "x"], "nsfw = true\n"),
        ("[provider.x]\na = 1\n[provider.y]\nb = 1\n", ["provider", "x", "a"], "[provider.y]\nb = 1\n"),
        ("zzz = 1\n", ["zzz"], ""),
    ],
)
def test_what_is_dropped_is_gone_with_its_empty_table(file: Path, before: str, keys: list[str], after: str) -> None:
    file.write_text(before)
    edit.drop(keys)

    assert file.read_text() == after


@pytest.mark.parametrize("keys", [["model"], ["timeout", "head_s"], ["nsfw", "x"], ["a", "b", "c"]])
def test_what_is_not_there_cannot_be_dropped(file: Path, keys: list[str]) -> None:
    file.write_text("nsfw = true\n")
    with pytest.raises(InvalidRequestError, match=rf"^{file}: there is no {'.'.join(keys)}"):
        edit.drop(keys)
    assert file.read_text() == "nsfw = true\n"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("timeout = 5\n", "timeout is a value, and no table"),
        ("[timeout.head_s]\na = 1 # mine\n", "timeout.head_s is a table, and no value"),
        ("nope = \n", "cannot be changed"),
        ("\0", "cannot be"),
    ],
)
def test_i22_a_file_that_cannot_be_changed_stays_as_it_is(file: Path, before: str, words: str) -> None:
    file.write_text(before)
    with pytest.raises(InvalidRequestError, match=f"^{file}:? {words}"):
        edit.put(["timeout", "head_s"], 5)
    assert file.read_text() == before
    assert os.listdir(file.parent) == [file.name]


def test_what_would_not_be_read_back_is_not_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("nsfw = true\n")
    monkeypatch.setattr(tomlkit, "dumps", lambda _: "nsfw = true\n")
    with pytest.raises(InvalidRequestError, match="use an editor"):
        edit.put(["model"], "a")
    assert file.read_text() == "nsfw = true\n"


def test_k9_a_new_file_and_one_with_a_key_is_its_owners_alone(file: Path) -> None:
    file.unlink()
    edit.put(["model"], "a")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    edit.put(["model"], "b")
    assert file.stat().st_mode & 0o777 == 0o644, "who opened it to others meant it"
    edit.put(["provider", "x", "api_key"], API_KEY)
    assert file.stat().st_mode & 0o777 == 0o600


def test_k1_a_file_that_cannot_be_read_shows_none_of_its_text(file: Path) -> None:
    file.write_text(f"api_key = '{API_KEY}'\nmodel = \n")
    with pytest.raises(InvalidRequestError, match="cannot be changed"):
        edit.put(["model"], "a")


def test_k1_no_failure_shows_a_key_that_was_to_be_put(file: Path) -> None:
    file.write_text(f"provider = 'x'\nproxy = '{API_KEY}'\n")
    with pytest.raises(InvalidRequestError, match="provider is a value, and no table"):
        edit.put(["provider", "x", "api_key"], API_KEY)
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidRequestError, match="cannot be changed"):
        edit.put(["api_key"], API_KEY)


def test_a_change_waits_for_another_one_and_loses_none_of_it(file: Path) -> None:
    """Each reads what the other wrote: of many processes' changes all are in the file."""
    program = "import sys; from flowgpt.config.edit import put; sys.stdin.read(); put(['provider', *sys.argv[1:]], 1)"
    others = [
        subprocess.Popen([sys.executable, "-c", program, f"p{number}", "x"], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for number in range(50):
        edit.put(["provider", f"own{number}", "type"], "x")
        if number == 10:
            for other in others:
                assert other.stdin is not None
                other.stdin.close()
    assert [other.wait(30) for other in others] == [0] * 4

    assert len(tomllib.loads(file.read_text())["provider"]) == 54


def test_a_link_stays_a_link_and_a_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "dotfiles" / "flowgpt.toml"
    target.parent.mkdir()
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "a" / "b"))
    edit.put(["model"], "a")
    path().unlink()
    path().symlink_to(target)
    edit.put(["model"], "b")

    assert path().is_symlink()
    assert target.read_text() == 'model = "b"\n'


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(InvalidRequestError, match=r"config\.toml cannot be changed"):
        edit.put(["model"], "a")
