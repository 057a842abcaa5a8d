"""Many questions from a file: asked side by side, in outages not at all, and each answer written as a line.

The engine: what is asked when, what is waited for, and what ends it. Whose fault a failure is says causes.py, the input
is in lines.py, the output, which is the state, in results.py. The forms of lines are in formats/openai/batch.py.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import FlowGPTError, InvalidRequestError
from ..formats.openai.batch import Row, answer_line, failure_line, read_row
from ..formats.openai.chat import ChatCompletion
from ..formats.parameters import wrong
from ..formats.pieces import Ask
from ..formats.stages import tools
from ..messages import Message
from ..providers.base import Provider
from ..reply import Reply
from .answer import completion
from .causes import cause
from .lines import Line, Seen

TRIES = 3
"""How often a row is asked whose failure may be its own."""

LIMIT_DOUBTS = 3
"""So many rows in a row may fail of what may be their own fault; the next one means that the service is out."""

FIRST_WAIT_S, LIMIT_WAIT_S = 1.0, 30.0

TELL_S = 10.0
"""When nothing has been answered for so long, or each question under way has failed, the service is said to be out."""

WINDOW = 4
"""In the order of the input, so many times the concurrency may wait for a row before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to ask. `model`, `system`: of rows that have none of their own. `options`: of the provider's calls.

    `per_minute`: questions, those that are asked again too; None: as many as there are. `ordered`: the output is in
    the input's order. `give_up_after_s`: a service that answers nothing for so long ends the batch.
    """

    model: str = ""
    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    per_minute: float | None = None
    ordered: bool = False
    give_up_after_s: float = 3600.0


@dataclass(slots=True)
class Counts:
    """The account. `rows`: all of the input, None while that is not known.

    `before`: the rows that were done before this run; `before_failed` of them with a failure that stays. Of this run:
    `asked` were sent; `answered` and `failed` stand in the output; of the failed ones `invalid` could not be sent.
    """

    rows: int | None = None
    before: int = 0
    before_failed: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    invalid: int = 0

    @property
    def done(self) -> int:
        return self.before + self.answered + self.failed

    @property
    def left(self) -> int | None:
        return None if self.rows is None else self.rows - self.done


class Pace:
    """So many a minute, one after the other. Pure: the time comes in."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap_s = 60 / per_minute if per_minute else 0.0
        self._next_s = 0.0

    def turn(self, now_s: float) -> float:
        """In how many seconds the next may go; what was not used in time is gone."""
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._gap_s
        return at_s - now_s


async def run(
    source: AsyncIterator[Line],
    write: Callable[[bytes], None],
    provider: Provider,
    settings: Settings,
    counts: Counts,
    *,
    stands: Callable[[int], bool] = lambda number: False,
    tell: Callable[[str], None] = lambda words: None,
) -> None:
    """Ask every row of the source, and write what becomes of it; `counts` are kept up to date.

    Never more rows are in memory than WINDOW times the concurrency. `stands`: whether a line's row is done already.
    `tell`: is given one line when the service is out, and when it is back. Cancelled, what is under way is not written.
    Raises: FlowGPTError, which no row could go on after; OSError, of the source and of `write`.
    """
    running = _Run(source, write, provider, settings, counts, stands, tell)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.concurrency):
                group.create_task(running.work())
    except ExceptionGroup as failures:  # the first one; those that came while it ended the others add nothing
        failure = failures.exceptions[0].with_traceback(None)
    else:
        counts.rows = counts.done
        return
    raise failure


_Done = tuple[Row, ChatCompletion | FlowGPTError] | None
"""A row, and what has become of it: its answer, its failure, or what was wrong with it. None: it was done before."""


class _Run:
    """One run: what its workers share."""

    def __init__(
        self,
        source: AsyncIterator[Line],
        write: Callable[[bytes], None],
        provider: Provider,
        settings: Settings,
        counts: Counts,
        stands: Callable[[int], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._source = source
        self._write = write
        self._provider = provider
        self._settings = settings
        self._counts = counts
        self._stands = stands
        self._tell = tell
        self._pace = Pace(settings.per_minute)
        self._seen = Seen()
        self._room = asyncio.Semaphore(WINDOW * settings.concurrency)
        self._taken = self._written = 0
        self._waiting: dict[int, _Done] = {}
        self._failing_s: float | None = None  # since when nothing was answered
        self._failures = 0  # since then
        self._doubts = 0
        self._told = False
        self._broken = False

    async def work(self) -> None:
        """Row after row, until there are no more."""
        while True:
            await self._room.acquire()
            line = await anext(self._source, None)
            if line is None:
                self._room.release()
                return
            place, self._taken = self._taken, self._taken + 1
            self._settle(place, await self._done(*line))

    def _settle(self, place: int, done: _Done) -> None:
        """Write what has become of a row: now, or when all before it are written."""
        self._waiting[place] = done
        while (next_ := self._written if self._settings.ordered else place) in self._waiting:
            self._put(self._waiting.pop(next_))
            self._written += 1
            self._room.release()

    def _put(self, done: _Done) -> None:
        """Write a row's line, and count it then."""
        if done is None or self._broken:
            return
        row, outcome = done
        line = _line(row, outcome)
        self._broken = True  # until it is written: behind half a line nothing may stand
        self._write(line)
        self._broken = False
        self._counts.answered += isinstance(outcome, ChatCompletion)
        self._counts.failed += isinstance(outcome, FlowGPTError)
        self._counts.invalid += _is_unsent(outcome)

    async def _done(self, number: int, line: bytes) -> _Done:
        """What has become of a line; None: it was done before. Raises: FlowGPTError, when that ends the batch."""
        row = read_row(line, number)
        if row.named and not self._seen.add(row.custom_id):
            row = replace(row, ask=wrong("custom_id", "an earlier line has the same"))
        if not self._stands(number) and isinstance(row.ask, Ask):
            return row, await self._outcome(row.ask)
        await asyncio.sleep(0)  # there may be a million of them
        return None if self._stands(number) or isinstance(row.ask, Ask) else (row, row.ask)

    async def _outcome(self, ask: Ask) -> ChatCompletion | FlowGPTError:
        """The answer, or the failure that stays. Raises: FlowGPTError, when that ends the batch."""
        messages = tools.render(ask.turns)
        if self._settings.system and all(turn.role != "system" for turn in ask.turns):
            messages.insert(0, {"role": "system", "content": self._settings.system})
        count = 0
        while True:
            count += 1
            await asyncio.sleep(self._pace.turn(time.monotonic()))
            try:
                reply = self._reply(ask, messages)
                self._counts.asked += count == 1
                answer = await completion(reply, ask, messages)
            except FlowGPTError as error:
                failure = error.with_traceback(None)
            else:
                self._alive()
                return answer
            match cause(failure):
                case "batch":
                    raise failure
                case "row":
                    if not _is_unsent(failure):
                        self._alive()
                    return failure
                case "doubt" if count >= TRIES and self._doubts < LIMIT_DOUBTS:
                    self._doubts += 1
                    return failure
            await self._wait(failure, count)

    def _alive(self) -> None:
        """The service has answered."""
        if self._told:
            self._tell("the service answers again")
        self._failing_s, self._failures, self._doubts, self._told = None, 0, 0, False

    async def _wait(self, failure: FlowGPTError, count: int) -> None:
        """Until the row may be asked again. Raises: the failure, when that is too late."""
        now_s = time.monotonic()
        self._failing_s = now_s if self._failing_s is None else self._failing_s
        left_s = self._failing_s + self._settings.give_up_after_s - now_s
        wished_s = failure.retry_after_s or 0.0
        if left_s <= wished_s:
            raise failure
        self._failures += 1
        is_out = self._failures >= max(TRIES, self._settings.concurrency) or now_s - self._failing_s >= TELL_S
        if is_out and not self._told:
            self._told = True
            self._tell(f"waiting for the service: {failure.message}")
        backoff_s = min(LIMIT_WAIT_S, FIRST_WAIT_S * 2 ** min(count - 1, 9)) * (1 - random.random() / 2)
        await asyncio.sleep(min(left_s, max(wished_s, backoff_s)))

    def _reply(self, ask: Ask, messages: Sequence[Message]) -> Reply:
        """The reply; nothing is sent yet. Raises: InvalidRequestError."""
        options = dict(self._settings.options)
        if ask.temperature is not None:
            options["temperature"] = ask.temperature
        if self._settings.per_minute:
            options["max_retries"] = 0  # whatever is sent takes a turn
        return self._provider.stream(ask.model or self._settings.model, messages, **options)


def _is_unsent(outcome: ChatCompletion | FlowGPTError) -> bool:
    """Whether nothing was sent; for a character that the service does not have, something was."""
    return isinstance(outcome, InvalidRequestError) and not outcome.attempts


def _line(row: Row, outcome: ChatCompletion | FlowGPTError) -> bytes:
    """The row's line of the output. A cut answer may be asked for again: nobody has used its beginning."""
    if isinstance(outcome, ChatCompletion):
        return answer_line(row, outcome)
    return failure_line(row, outcome, retriable=outcome.retry_class != "never" or cause(outcome) != "row")
