"""Every example runs as it stands, in a process of its own, and says what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each example is a program

EXAMPLES = Path(__file__).parent.parent / "examples"

SAYS = {
    "hello.py": "What is the capital of France?",
    "conversation.py": "google-gemini: complete, 1 attempt",
    "client.py": "[stop]",
    "failures.py": "rate_limit:7: RateLimitError (rate_limited, retry after 7 s)",
    "fallback.py": "status:500: echo-1: You asked: Is anybody there?",
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Not under -X dev, whose loops complain of slow steps: a busy machine is no fault."""
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        timeout=60,
        check=False,
    )


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == SAYS.keys() | {"test_offline.py"}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_without_a_warning_and_says_what_it_promises(name: str) -> None:
    done = run(str(EXAMPLES / name))

    assert (done.returncode, done.stderr) == (0, "")
    assert SAYS[name] in done.stdout


def test_the_example_of_a_users_own_tests_passes() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", str(EXAMPLES / "test_offline.py"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
