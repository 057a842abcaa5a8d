"""Node's clients against a real gateway: OpenAI's SDK, and Vercel's AI SDK. The tests themselves are in node/."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from flowgpt.embedded import Server
from tests.clients.conftest import Gateway

NODE = Path(__file__).parent / "node"
SUITES = ("openai.test.mjs", "ai-sdk.test.mjs")

pytestmark = pytest.mark.parametrize("suite", SUITES)


def run(gateway: Gateway, suite: str, *names: str) -> int:
    """Run the suite's tests whose names begin with one of `names`. How many passed; none may fail."""
    patterns = [f"--test-name-pattern=^{name}" for name in names]
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", *patterns, suite],
        cwd=NODE,
        env=os.environ | {"OPENAI_BASE_URL": gateway.base_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[-1])


def test_a_client_of_node_works_unchanged(gateway: Gateway, suite: str) -> None:
    assert run(gateway, suite, "a ", "an ", "the ", "responses ") >= 6


@pytest.mark.parametrize("fault", ["cut_at_line:2", "reset_mid_stream:2"])
def test_a_stream_that_is_cut_is_an_error(gateway: Gateway, upstream: Server, suite: str, fault: str) -> None:
    upstream.fault(fault)

    assert run(gateway, suite, "cut: ") == 1
    assert len(upstream.requests) == 1


def test_who_leaves_a_stream_frees_the_service(gateway: Gateway, upstream: Server, suite: str) -> None:
    upstream.fault("endless")

    assert run(gateway, suite, "endless: ") == 1
    upstream.wait_until_idle()
