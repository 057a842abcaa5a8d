"""Completion: what each shell's script asks and is told, and bash itself."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from flowgpt.cli.completion import VARIABLE
from flowgpt.config import home, templates
from flowgpt.conversation import Turn
from flowgpt.store import Store
from tests.cli.conftest import Invoke, Write

SHELLS = ("bash", "zsh", "fish")


class Told(Protocol):
    def __call__(self, shell: str, *words: str) -> list[str]: ...


@pytest.fixture
def told(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Told:
    """The lines that the program answers to the shell's script; the last word is not complete."""

    def told(shell: str, *words: str) -> list[str]:
        monkeypatch.setenv(VARIABLE, f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["flowgpt", *words]))
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
        result = invoke()
        assert (result.exit_code, result.stderr) == (0, "")
        return [line for line in result.stdout.splitlines() if line]

    return told


@pytest.fixture
def values(told: Told) -> Told:
    """The words alone."""

    def values(shell: str, *words: str) -> list[str]:
        lines = told(shell, *words)
        return lines[1::3] if shell == "zsh" else [line.partition(",")[2].partition("\t")[0] for line in lines]

    return values


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["his"], ["history"]),
        (["--mod"], ["--model"]),
        (["ask", "--no-s"], ["--no-stream", "--no-save"]),
        (["-m", "gemini-"], ["gemini-pro"]),
        (["explain", "--model", "claude-v"], ["claude-v1", "claude-v2"]),
        (["why", "-m", "gpt-4"], ["gpt-4-turbo"]),
        (["config", "set", "history."], ["history.save", "history.retention_days"]),
        (["completion", "z"], ["zsh"]),
        (["zzz"], []),
    ],
)
def test_a_word_becomes_what_it_may_be(values: Told, shell: str, words: list[str], expected: list[str]) -> None:
    assert values(shell, *words) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_what_this_machine_has_is_known(told: Told, values: Told, shell: str) -> None:
    templates.folder().mkdir(parents=True)
    (templates.folder() / "sum-up.toml").touch()
    with contextlib.closing(Store()) as store:
        id_ = store.conversations.add(None, 0, [Turn(role="user", text="Why: is it?", created_s=1.0)])

    assert values(shell, "-t", "s") == ["sum-up"]
    for words in ("ask --cid", "chat --cid", "history show", "history delete", "history export"):
        assert values(shell, *words.split(), id_[:3]) == [id_]
    assert ("Why: is it?" in "".join(told(shell, "ask", "--cid", id_[:3]))) is (shell != "bash")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_broken_configuration_is_no_noise_at_a_prompt(values: Told, shell: str, configure: Write) -> None:
    configure("api_key = 'x'\nnope = \n")
    (home() / "config.toml").chmod(0o644)

    assert values(shell, "-m", "g") == []


@pytest.mark.parametrize("instruction", ["nosuch_complete", "bash_nosuch", "bash", "bash_complete"])
def test_a_question_that_no_script_of_ours_asks_does_nothing(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, instruction: str
) -> None:
    monkeypatch.setenv(VARIABLE, instruction)
    result = invoke("hello")

    assert (result.exit_code, result.output) == (1, "")
    assert isinstance(result.exception, SystemExit), "it ended by itself"


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_is_for_this_program(invoke: Invoke, shell: str) -> None:
    result = invoke("completion", shell)

    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in result.stdout
    assert "flowgpt" in result.stdout


def test_bash_itself_completes(tmp_path: Path) -> None:
    program = tmp_path / "flowgpt"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m flowgpt "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(flowgpt completion bash)"
        COMP_WORDS=(flowgpt ask -m claude-v) COMP_CWORD=3
        _flowgpt_completion flowgpt
        printf '%s\\n' "${COMPREPLY[@]}"
        complete -p flowgpt
    """
    ran = subprocess.run(
        ["bash", "--norc", "-euc", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "claude-v1\nclaude-v2\ncomplete -o nosort -F _flowgpt_completion flowgpt\n"
