"""The embedded server as a child process, seen from its parent. It loads nothing of the server itself."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from ..errors import APIConnectionError

PROGRAM = (sys.executable, "-P", "-m", "flowgpt", "embedded")
"""-P: a file of the user's that happens to be called flowgpt.py is not the program."""

START_S = 30.0
STOP_S = 5.0


@contextlib.contextmanager
def spawn(*arguments: str, program: Sequence[str] = PROGRAM) -> Iterator[str]:
    """Start `flowgpt embedded` for as long as the block lasts, and give its base URL.

    `arguments`: more of its options, as `"--pace", "0.1"`. It has a free port, and ends when this process does,
    however that ends; Ctrl-C in the terminal does not reach it. Raises: APIConnectionError when it does not start.
    """
    command = [*program, "--port", "0", "--until-stdin-closes", *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603  # our own program
    try:
        yield _base_url(child)
    finally:
        _end(child)


def _base_url(child: subprocess.Popen[bytes]) -> str:
    """The child's first line. Raises: APIConnectionError."""
    assert child.stdout is not None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=lambda out=child.stdout: lines.put(out.readline()), daemon=True).start()
    try:
        base_url = lines.get(timeout=START_S).decode(errors="replace").strip()
    except queue.Empty:
        base_url = ""
    if not base_url.startswith("http://"):
        raise APIConnectionError("the embedded server did not start", hint="flowgpt embedded says why")
    return base_url


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()
