"""One answer as pieces: an `Ask` goes to a provider, and what comes back goes through the stages. No HTTP in here.

`n` answers are asked for side by side. Whoever closes the generators closes everything below them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from ..errors import FlowGPTError, InvalidRequestError
from ..formats.pieces import Again, Ask, End, Failure, Piece, Stage, Turn
from ..formats.stages import json_mode, length, stop, tools
from ..formats.stages.schema import Rules
from ..messages import Message
from ..reply import Reply

Pieces = AsyncGenerator[tuple[int, Sequence[Piece]]]
"""Each batch with its answer's place."""

Asking = Callable[[Sequence[Message]], Reply]
"""Messages to a reply that nobody has read from yet."""


def messages(ask: Ask) -> list[Message]:
    """What the provider is asked: the turns, and after the first system turns the instructions of the emulations.

    Raises: InvalidRequestError for a schema that could just be read, and is too deep to be written.
    """
    instructions = []
    try:
        if ask.tools:
            instructions.append(tools.instruction(ask))
        if ask.output is not None:
            instructions.append(json_mode.instruction(ask.output))
    except RecursionError:
        raise InvalidRequestError("a schema of the request is nested too deeply") from None
    first = next((place for place, turn in enumerate(ask.turns) if turn.role != "system"), len(ask.turns))
    more = [Turn(role="system", text=text) for text in instructions]
    return tools.render([*ask.turns[:first], *more, *ask.turns[first:]])


def stages(ask: Ask, new_id: Callable[[str], str], rules: Rules, *, hold: bool) -> list[Stage]:
    """The emulations that one answer needs, in the order in which pieces pass them.

    `rules`: compiled of `ask`. `hold`: nobody reads the answer before its end, so all of it can still be repaired.
    """
    chain: list[Stage] = []
    if ask.tools:
        # behind it, JSON mode holds all text
        chain.append(tools.stage(ask, new_id, rules.tools, hold=hold or ask.output is not None))
    if ask.output is not None:
        chain.append(json_mode.stage(rules.output))
    if ask.stop:
        chain.append(stop.stage(ask.stop))
    if ask.max_tokens is not None:
        chain.append(length.stage(ask.max_tokens))
    return chain


async def pieces(
    reply: Reply, asked: Sequence[Message], asking: Asking, chain: Sequence[Stage], *, index: int = 0
) -> Pieces:
    """The pieces of one answer, batch by batch; the last one is an End or a Failure. `index`: which of the `n`."""
    while True:
        again: Again | None = None
        try:
            while again is None:
                batch = await _next(reply)
                for stage in chain:
                    batch = stage(batch)
                if batch and isinstance(batch[-1], Again):
                    again = batch[-1]
                elif batch:
                    yield index, batch
                    if isinstance(batch[-1], (End, Failure)):
                        return
        finally:
            reply.close()
        asked = [*asked, *again.messages]
        reply = asking(asked)


async def _next(reply: Reply) -> Sequence[Piece]:
    """What the reply brings next, its end included."""
    try:
        batch = await reply.next()
    except FlowGPTError as error:
        return [Failure(error)]
    return [End("stop" if reply.verdict == "complete" else None)] if batch is None else batch.texts


def side_by_side(answers: Sequence[Pieces]) -> Pieces:
    """The pieces of several answers as they come, each batch with its answer's place."""
    return answers[0] if len(answers) == 1 else _merged(answers)


async def _merged(answers: Sequence[Pieces]) -> Pieces:
    queue: asyncio.Queue[tuple[int, Sequence[Piece]] | Exception] = asyncio.Queue(maxsize=len(answers))

    async def read(index: int) -> None:
        try:
            async with contextlib.aclosing(answers[index]) as answer:
                async for came in answer:
                    await queue.put(came)
        except Exception as error:  # a fault of ours: it must not leave the reader of the queue waiting
            await queue.put(error)

    readers = [asyncio.create_task(read(index)) for index in range(len(answers))]
    try:
        open_answers = len(answers)
        while open_answers:
            came = await queue.get()
            if isinstance(came, Exception):
                raise came
            open_answers -= isinstance(came[1][-1], (End, Failure))
            yield came
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
