"""The clipboard: the first program that takes the text has it; the terminal's part is shown in test_chat.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowgpt.cli import clipboard


def test_the_first_program_that_takes_the_text_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("pbcopy", "exit 1"), ("wl-copy", f"exec cat > '{tmp_path}/a'"), ("xclip", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")

    assert clipboard.put("日本", to_terminal=False) == ["wl-copy"]
    assert (tmp_path / "a").read_text("utf-8") == "日本"


def test_what_is_no_terminal_gets_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert clipboard.put("x", to_terminal=True) == []
    assert capsys.readouterr() == ("", "")
