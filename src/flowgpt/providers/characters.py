"""Models that are called `character:ID`: which they are, and how a FlowGPT character is fetched before it is asked.

No HTTP and no parsing in here, and nothing of how a chat's request is made: that is brought in by whoever asks.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from .. import transport
from ..config import Options
from ..errors import FlowGPTError, ModelNotFoundError, NotFoundError
from ..messages import Batch
from ..protocol.characters import Character, Decoder, character_id, named
from ..protocol.request import PROMPT_PATH
from . import local_characters

__all__ = [
    "PREFIX",
    "Answering",
    "Cast",
    "Character",
    "checked",
    "fetch",
    "greeting",
    "is_character",
    "local",
    "request",
]

PREFIX = "character:"

Cast = Callable[[Character], tuple[transport.Call, str]]
"""Makes the chat's request to a character, and names its model."""

LIMIT_AGE_S = 600.0
"""How long a fetched character is taken for true."""

LIMIT_KNOWN = 100
"""How many of them are remembered; over it, the one that was longest not asked for is forgotten."""

_known: dict[tuple[str, str], tuple[float, Character]] = {}
"""By origin and id, the last asked one last. Single steps of a dict only: threads and forks may share it."""


def is_character(model: str) -> bool:
    """Whether a model's name is a character's."""
    return model.startswith(PREFIX)


def local(model: str) -> Character | None:
    """The character of this machine that a model's name means, if there is one.

    Raises: ModelNotFoundError for a name that can be no character's; InvalidRequestError for a card that is none.
    """
    card = local_characters.find(_id(model))
    return None if card is None else local_characters.character(card)


def checked(model: str) -> str:
    """A character's name with nothing but its id: of a page's address too. Raises: ModelNotFoundError."""
    return PREFIX + _id(model)


def _id(model: str) -> str:
    return character_id(model.removeprefix(PREFIX))


def request(model: str, options: Options) -> transport.Call:
    """The request for a character: unsigned, and without a key. Source: docs/protocol.md#endpoints."""
    id_ = _id(model)
    url = options.base_url + PROMPT_PATH.format(id=id_)
    return transport.Call(url, b"", lambda _now_s: {}, functools.partial(Decoder, id_), options, method="GET")


async def _fetched(call: transport.Call, model: str, stream: transport.Stream) -> Character:
    """The service's character of that name, from memory when it is there. `stream`: of `call`, its request.

    Raises: ModelNotFoundError (character_not_found) when the service has none of it; FlowGPTError.
    """
    key = (call.origin, _id(model))
    fetched_s, character = _known.pop(key, (0.0, None))
    now_s = time.monotonic()
    if character is None or now_s - fetched_s > LIMIT_AGE_S:
        character, fetched_s = await _read(stream, key[1]), now_s
    for oldest in list(_known)[: 1 - LIMIT_KNOWN]:
        _known.pop(oldest, None)
    _known[key] = (fetched_s, character)
    return character


async def fetch(model: str, **options: Any) -> Character:
    """The service's character of that name, for who wants to see it. `options`: `flowgpt.config.Options`.

    Raises: FlowGPTError.
    """
    call = request(model, Options.resolve(**options))
    with contextlib.closing(transport.Stream(call)) as stream:
        try:
            return await _fetched(call, model, stream)
        except FlowGPTError as error:
            error.attempts = stream.attempts
            raise


def greeting(character: Character, **options: Any) -> str:
    """What a character says first, its placeholders filled in. `options`: `flowgpt.config.Options`."""
    return named(character, Options.resolve(**options).user_name).greeting


async def _read(stream: transport.Stream, id_: str) -> Character:
    try:
        batch = await stream.next()
    except NotFoundError as error:
        raise ModelNotFoundError(
            f"there is no character {id_}",
            code="character_not_found",
            hint="check the id; on flowgpt.com it is in the address of the character's chat",
            phase=error.phase,
            request_id=error.request_id,
        ) from None
    assert batch is not None  # the decoder gives a character or a failure
    character: Character = batch.others[0][1].data
    return character


class Answering:
    """The batches of one call (a `reply.Source`): the character is fetched at the first read, then it is asked.

    `model`: the asked name, and the model that the character has as soon as that is known. `attempts`: of the request
    that is under way, so that they are the same whether or not the character was remembered.
    `call`: the request for the character.
    """

    verified = False

    def __init__(self, call: transport.Call, model: str, cast: Cast) -> None:
        self.model = model
        self._call = call
        self._cast: Cast | None = cast
        self._stream = transport.Stream(call)

    @property
    def attempts(self) -> int:
        return self._stream.attempts

    @property
    def skipped_events(self) -> Mapping[str, int]:
        return self._stream.skipped_events

    async def next(self) -> Batch | None:
        """The next batch, or None after the proper end. Raises: FlowGPTError."""
        if self._cast is not None:
            call, self.model = self._cast(await _fetched(self._call, self.model, self._stream))
            self._cast = None
            self._stream = transport.Stream(call, deadline_s=self._stream.deadline_s)
        batch = await self._stream.next()
        if batch is None:
            self.verified = self._stream.verified
        return batch

    def close(self) -> None:
        self._stream.close()
