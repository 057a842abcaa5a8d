"""The pytest fixture `flowgpt_server`: the embedded server, for the tests of anyone's program.

pytest loads this file in every run of everyone who has flowgpt installed: the server is imported at the fixture's first
use, not before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .serving import Server


@pytest.fixture(scope="session")
def _flowgpt_session_server() -> Iterator[Server]:
    from .serving import Server

    with Server() as server:
        yield server


@pytest.fixture
def flowgpt_server(_flowgpt_session_server: Server) -> Server:
    """The embedded server (`.base_url`, `.fault(name, times)`, `.requests`, `.wait_until_idle()`), new to each test."""
    _flowgpt_session_server.reset()
    return _flowgpt_session_server
