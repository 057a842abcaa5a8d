"""What README shows is run as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flowgpt.embedded import Server

pytestmark = pytest.mark.slow  # its lines of shell start programs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_ten_lines_of_python_run() -> None:
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "What is the capital of France?" in done.stdout


def lines_of(code: str) -> list[str]:
    return [line.split("  #")[0].strip() for line in code.splitlines()]


def talk_lines() -> list[str]:
    """Those that stand together, and need each other."""
    (block,) = [block for block in blocks("sh") if "flowgpt chat" in block]
    return lines_of(block)


def shell_lines() -> list[str]:
    servers = ("export", "flowgpt embedded", "flowgpt serve")
    lines = [line for line in lines_of("".join(blocks("sh"))) if line not in talk_lines()]
    return [line for line in lines if "flowgpt" in line and not line.startswith(servers)]


def run(line: str, *, asked: str = "") -> subprocess.CompletedProcess[str]:
    command = line.replace("flowgpt ", f"{shlex.quote(sys.executable)} -m flowgpt ").replace(
        "python3 ", f"{shlex.quote(sys.executable)} "
    )
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, input=asked, timeout=60, check=False)


def test_the_lines_of_shell_are_found() -> None:
    assert len(shell_lines()) >= 6


@pytest.mark.parametrize("line", shell_lines())
def test_a_line_of_shell_runs(line: str) -> None:
    done = run(line)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_lines_of_a_talk_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("Cold.\n")
    (tmp_path / "questions.jsonl").write_text('{"prompt": "Where?"}\n')
    monkeypatch.chdir(tmp_path)
    lines = talk_lines()
    with Server() as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        for line in lines:
            # No page of FlowGPT's is known here, but the embedded server's character.
            done = run(
                line.replace("chat/ID", "chat/flowgpt-embedded-char"), asked="And in summer?\n" * ("chat" in line)
            )

            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() or "batch" in line
    assert '"line":1,' in (tmp_path / "answers.jsonl").read_text()
    assert len(lines) == 6


def test_the_words_of_make_are_those_that_readme_names() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=60, check=True).stdout

    for word in ("demo", "test", "install"):
        assert f"make {word} " in listed
        assert f"make {word} " in README


def test_every_link_to_a_file_leads_somewhere() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    for document in [*pages, *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
