"""embedded/child.py: a child process that answers, and never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from flowgpt.embedded import spawn
from flowgpt.errors import APIConnectionError
from tests.embedded.wire import BOUND_S, ask, body, connect, read_to_end, read_until, request

RUN = """
import sys
from flowgpt.embedded import run
assert sys.argv[1:4] == ["--port", "0", "--until-stdin-closes"], sys.argv
fault = sys.argv[5] if len(sys.argv) > 5 else None
run(ready=lambda base_url: print(base_url, flush=True), until_stdin_closes=True, fault=fault)
"""
PROGRAM = (sys.executable, "-c", RUN)

PARENT = f"""
import sys
from flowgpt.embedded import spawn
with spawn(program={PROGRAM!r}) as base_url:
    print(base_url, flush=True)
    sys.stdin.read()
"""


def test_a_spawned_server_answers_and_is_gone_afterwards() -> None:
    with spawn(program=PROGRAM) as base_url:
        assert base_url.startswith("http://127.0.0.1:")
        answer = ask(base_url)
        assert answer.status == 200
        assert b"embedded " in answer.body
    with pytest.raises(ConnectionRefusedError):
        connect(base_url)


def test_options_reach_the_child() -> None:
    with spawn("--fault", "status:418", program=PROGRAM) as base_url:
        assert ask(base_url).status == 418


def test_a_failure_in_the_block_ends_the_child_too() -> None:
    with pytest.raises(RuntimeError, match="of the block"), spawn(program=PROGRAM) as base_url:
        raise RuntimeError("of the block")
    with pytest.raises(ConnectionRefusedError):
        connect(base_url)


@pytest.mark.parametrize("script", ["", "print('no address')", "raise SystemExit(3)"])
def test_a_child_that_does_not_start_is_a_typed_error(script: str) -> None:
    with pytest.raises(APIConnectionError, match="did not start"), spawn(program=(sys.executable, "-c", script)):
        pass


def test_a_killed_parent_takes_its_child_along() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        base_url = parent.stdout.readline().strip()
        with connect(base_url) as connection:
            connection.sendall(request(data=body(fault="stall")))
            read_until(connection, b'"event":"text"')
            os.kill(parent.pid, signal.SIGKILL)
            parent.wait(BOUND_S)
            read_to_end(connection)  # ends when the child has ended
    with pytest.raises(ConnectionRefusedError):
        connect(base_url)


def test_the_parent_loads_nothing_of_the_server() -> None:
    script = (
        "import sys; from flowgpt.embedded import spawn;"
        "print(sorted({'uvicorn', 'starlette', 'aiohttp', 'httptools'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "[]\n"
