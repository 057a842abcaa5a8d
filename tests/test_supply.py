"""What is built and what it is built from: the wheel is the tree, every requirement is pinned by hash and audited."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import audit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted(ROOT.glob("requirements-*.txt"))
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([0-9][^ ;\\]*)", re.MULTILINE)


def test_p1_the_wheel_is_the_tree_and_nothing_runs_at_its_installation(tmp_path: Path) -> None:
    """No `.pth`, no scripts of its own, no native code: the package's files byte by byte, and metadata."""
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    ours = {name: data for name, data in packed.items() if ".dist-info/" not in name}
    source = ROOT / "src"
    tracked = (path for path in (source / "flowgpt").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert ours == {path.relative_to(source).as_posix(): path.read_bytes() for path in tracked}
    rest = {name.partition(".dist-info/")[2] for name in packed.keys() - ours.keys()}
    assert rest == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: f"P2 {path.stem}")
def test_every_requirement_is_pinned_by_its_hash_and_from_no_other_place(lock: Path) -> None:
    entries = [line for line in re.split(r"\\?\n(?! )", lock.read_text()) if line and not line.startswith("#")]
    assert len(entries) > 20
    for entry in entries:
        assert PIN.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry
        assert not re.search(r"://| @ |--(?:extra-)?index|--find-links", entry.partition("--hash")[0]), entry


def test_p2_what_is_pinned_is_at_least_what_a_user_may_have() -> None:
    pinned = dict(PIN.findall((ROOT / "requirements-dev.txt").read_text()))
    for wanted in PROJECT["project"]["dependencies"]:
        name, least = re.match(r"([a-z0-9-]+)>=([0-9.]+)", wanted).groups()  # type: ignore[union-attr]
        assert _version(pinned[name]) >= _version(least), wanted
    assert "aiohttp>=3.14.2" in PROJECT["project"]["dependencies"]  # the first one whose parsers have no known hole


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


REPORT: Any = {
    "dependencies": [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]},
        {"name": "unknown", "skip_reason": "not found"},
    ]
}


def test_p2_an_audit_tells_what_it_found_and_what_it_could_not_ask() -> None:
    assert audit.read(REPORT) == (["bad 2: PYSEC-1, mended in 2.1"], 2, ["unknown"])


@pytest.mark.parametrize(
    ("output", "strict", "code", "words"),
    [
        ('{"dependencies": [{"name": "good", "version": "1", "vulns": []}]}', True, 0, "nothing is known against 1 "),
        ('{"dependencies": [{"name": "a", "skip_reason": ""}]}', False, 0, "NOT ASKED"),
        ('{"dependencies": [{"name": "a", "skip_reason": ""}]}', True, 1, "NOT ASKED"),
        ("", False, 0, "NOT ASKED"),
        ("", True, 1, "NOT ASKED"),
        (json.dumps(REPORT), False, 1, "bad 2: PYSEC-1"),
    ],
    ids=["P2 clean", "P2 not asked", "P2 not asked, strict", "P2 offline", "P2 offline, strict", "P2 a finding"],
)
def test_an_audit_fails_on_a_finding_and_never_passes_in_silence(
    output: str,
    strict: bool,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What pip-audit prints is given: tests ask nobody."""
    done = subprocess.CompletedProcess((), 0, output, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert audit.main(["requirements.txt"], strict=strict) == code
    assert words in capsys.readouterr().out


def test_p3_no_assert_does_anything_but_state() -> None:
    """So that `python -O` changes nothing; `make test-variants` runs a part of the suite under it."""
    doing = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Name) and node.id in ("__debug__", "AssertionError")), path
            if isinstance(node, ast.Assert):
                inner = list(ast.walk(node.test))
                calls = {ast.unparse(part.func) for part in inner if isinstance(part, ast.Call)}
                assert not any(isinstance(part, doing) for part in inner), f"{path}:{node.lineno}"
                assert calls <= {"isinstance", "len", "all", "any", "type"}, f"{path}:{node.lineno}"
