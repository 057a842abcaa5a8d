"""Real clients against the real program: `flowgpt serve` in a process of its own, over an embedded server in this one.

What holds for all tests holds here too (tests/conftest.py): a home of its own, and no way off this machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from flowgpt.embedded import Server

from .model import model

MODEL = "gpt-3.5-turbo"

# LiteLLM asks the network for its table of prices as soon as it is imported, unless it is told this.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"


@dataclass(frozen=True)
class Gateway:
    """A running `flowgpt serve`. `origin`: without a path; `base_url`: with /v1. `home`: its FLOWGPT_HOME."""

    origin: str
    home: Path

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"


@contextlib.contextmanager
def serving(upstream: Server, home: Path, *options: str) -> Iterator[Gateway]:
    """`flowgpt serve` over `upstream`; ended by SIGTERM, after which it must have ended well."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "flowgpt", "serve", "--port", "0", "--base-url", upstream.base_url, *options]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (
        (home / "serve.log").open("w+") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment | {"FLOWGPT_HOME": str(home)},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            assert line.endswith("/v1"), (home / "serve.log").read_text("utf-8")
            yield Gateway(line.removesuffix("/v1"), home)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(20)
            finally:
                process.kill()
        assert code == 0, (home / "serve.log").read_text("utf-8")


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Server]:
    with Server(model) as server:
        yield server


@pytest.fixture(scope="session")
def _gateway(_upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serving(_upstream, tmp_path_factory.mktemp("gateway"), "--drain-timeout", "5") as gateway:
        yield gateway


@pytest.fixture
def upstream(_upstream: Server) -> Server:
    """The embedded server that is asked, new to each test."""
    _upstream.reset()
    return _upstream


@pytest.fixture
def gateway(_gateway: Gateway, upstream: Server) -> Gateway:
    """A gateway over `upstream`, shared by the tests."""
    return _gateway


Serve = Callable[..., Gateway]


@pytest.fixture
def serve(upstream: Server, tmp_path: Path) -> Iterator[Serve]:
    """`serve(*options)`: a gateway of the test's own over `upstream`."""
    with contextlib.ExitStack() as stack:

        def started(*options: str, home: Path = tmp_path / "gateway") -> Gateway:
            return stack.enter_context(serving(upstream, home, "--drain-timeout", "1", *options))

        yield started


Connect = Callable[..., OpenAI]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(gateway, **options)`: OpenAI's client of it, which does not try again unless it is told to."""
    with contextlib.ExitStack() as stack:

        def connected(gateway: Gateway, **options: Any) -> OpenAI:
            given = {"base_url": gateway.base_url, "api_key": "none", "max_retries": 0}
            return stack.enter_context(OpenAI(**(given | options)))

        yield connected


@pytest.fixture
def client(gateway: Gateway, connect: Connect) -> OpenAI:
    """OpenAI's client of `gateway`."""
    return connect(gateway)
