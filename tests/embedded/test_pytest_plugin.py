"""embedded/pytest_plugin.py: the fixture, used as a stranger's test suite would use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import http.client, json, sys
import pytest
sys.path.insert(0, {root!r})
from tests.embedded.wire import body, connect, request as chat

def test_a_nothing_is_loaded_before_the_fixture_is_used():
    assert "flowgpt.embedded.pytest_plugin" in sys.modules
    assert not {"uvicorn", "starlette", "httptools", "aiohttp", "uvloop"} & set(sys.modules)

@pytest.fixture
def status(flowgpt_server):
    def ask():
        connection = http.client.HTTPConnection(flowgpt_server.base_url.removeprefix("http://"), timeout=10)
        connection.request("GET", "/prompt/flowgpt-embedded-char/")
        with connection.getresponse() as response:
            response.read()
        connection.close()
        return response.status
    return ask

def test_b_one_test_leaves_traces(flowgpt_server, status, request):
    assert status() == 200
    flowgpt_server.fault("empty", times=3)
    assert [each.path for each in flowgpt_server.requests] == ["/prompt/flowgpt-embedded-char/"]
    request.config.stash[KEY] = flowgpt_server.base_url
    left_open = request.config.stash[OPEN] = connect(flowgpt_server.base_url)
    left_open.sendall(chat(data=body(fault="stall")))
    flowgpt_server.wait_until_open(1)

def test_c_the_next_one_sees_none_and_has_the_same_server(flowgpt_server, status, request):
    assert list(flowgpt_server.requests) == []
    assert flowgpt_server.open_streams == 0
    request.config.stash[OPEN].close()
    assert request.config.stash[KEY] == flowgpt_server.base_url

KEY, OPEN = pytest.StashKey(), pytest.StashKey()
"""


@pytest.mark.slow
def test_a_strangers_suite_has_the_fixture_and_pays_only_when_it_uses_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE.replace("{root!r}", repr(str(request.config.rootpath))))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environment,
    )

    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
