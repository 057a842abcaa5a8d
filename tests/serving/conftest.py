"""A server for each test of a connection, on both kinds of loop: a connection's timers and its ending are theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from flowgpt import serving
from tests.serving.small import Serving

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[serving.new_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    loop: NewLoop = request.param
    return loop


@pytest.fixture
def served(new_loop: NewLoop) -> Iterator[Serving]:
    with Serving(new_loop) as served:
        yield served


@pytest.fixture
def hurried(new_loop: NewLoop) -> Iterator[Serving]:
    """With a deadline for heads that a test can wait for."""
    with Serving(new_loop, head_s=0.05) as served:
        yield served
