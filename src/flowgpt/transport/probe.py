"""One attempt, watched from outside: what `flowgpt doctor` asks the service with.

No retry, no breaker, no pause, no correction of the clock: exactly one request, and how far it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import APIStatusError, FlowGPTError
from . import Call, load

if TYPE_CHECKING:
    from .exchange import Exchange


@dataclass(slots=True)
class Outcome:
    """How far one request came.

    `failure`: None after a whole reply; its phase says where. `head_s`, `total_s`: seconds until the head had come, and
    until the end. `offset_s`: how far the service's clock is ahead of ours, in seconds; 0: it didn't say. `verified`:
    the end was proved. `events`, `unknown_events`: how many came, and those of names that nobody knows.
    """

    failure: FlowGPTError | None = None
    head_s: float | None = None
    total_s: float | None = None
    offset_s: float = 0.0
    verified: bool = False
    events: int = 0
    unknown_events: Mapping[str, int] = field(default_factory=dict)


async def probe(call: Call) -> Outcome:
    """Send the request once, and read the reply to its end; a FlowGPTError is in the outcome, and not raised."""
    room = await load("exchange")
    loop = asyncio.get_running_loop()
    outcome, started_s = Outcome(), loop.time()
    limit_s = call.options.timeout.total_s
    exchange: Exchange
    try:
        exchange = await room.open_exchange(call, deadline_s=None if limit_s is None else started_s + limit_s)
    except FlowGPTError as failure:
        outcome.failure = failure.with_traceback(None)
        if isinstance(failure, APIStatusError):
            outcome.offset_s, outcome.head_s = failure.offset_s, loop.time() - started_s
        return outcome
    outcome.head_s = loop.time() - started_s
    outcome.offset_s = exchange.clock_offset_s()
    try:
        while outcome.failure is None and (batch := await exchange.read()) is not None:
            outcome.failure = batch.failure
    finally:
        exchange.close()
    outcome.total_s = loop.time() - started_s
    outcome.verified = exchange.framed or exchange.decoder.proven
    outcome.events, outcome.unknown_events = exchange.decoder.events, exchange.decoder.unknown_events
    return outcome
