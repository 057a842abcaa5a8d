"""One reply, read into one chat completion, with what of a question FlowGPT cannot do itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from ..formats.estimate import characters
from ..formats.openai.chat import ChatAnswer, ChatCompletion, finish_reason
from ..formats.pieces import Ask, End, Piece, Stage
from ..formats.stages import length, stop
from ..messages import Message
from ..reply import Reply


async def completion(reply: Reply, ask: Ask, messages: Sequence[Message]) -> ChatCompletion:
    """The reply, read to its end. Raises: FlowGPTError."""
    try:
        pieces = await _pieces(reply, _stages(ask))
    finally:
        reply.close()
    answer = ChatAnswer(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=reply.model,
        prompt_characters=characters(messages),
    )
    return answer.completion(pieces)


def _stages(ask: Ask) -> list[Stage]:
    """The emulations that an answer needs, in the order in which its pieces pass them."""
    chain = [stop.stage(ask.stop)] if ask.stop else []
    return chain if ask.max_tokens is None else [*chain, length.stage(ask.max_tokens)]


async def _pieces(reply: Reply, chain: Sequence[Stage]) -> list[Piece]:
    """The whole answer, its End included. Raises: FlowGPTError."""
    pieces: list[Piece] = []
    while not (pieces and isinstance(pieces[-1], End)):
        batch = await reply.next()
        came: Sequence[Piece] = [End(finish_reason(reply.verdict))] if batch is None else batch.texts
        for stage in chain:
            came = stage(came)
        pieces += came
    return pieces
