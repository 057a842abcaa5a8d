"""A reply: one answer, with its verdict and figures, read batch by batch from wherever it comes.

Every form of an answer is a loop over `Reply.next`; nothing here parses, retries, sends or knows HTTP.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, Self

from .errors import FlowGPTError, InvalidRequestError
from .messages import Batch, Event, Verdict


class Source(Protocol):
    """Where a reply is read from. One that learns only on the way who answers has a `model` too."""

    @property
    def attempts(self) -> int:
        """How many attempts were made."""

    @property
    def verified(self) -> bool:
        """After the end: whether the transport proved that it was the end."""

    @property
    def skipped_events(self) -> Mapping[str, int]:
        """Events that have no text: how many, by name."""

    async def next(self) -> Batch | None:
        """The next batch (its failure included), or None after the proper end. Raises: FlowGPTError."""

    def close(self) -> None:
        """Let go of everything below, now. May be called at any time, and again."""


def closed_early() -> InvalidRequestError:
    """What a reader gets whose reply was closed by somebody else."""
    return InvalidRequestError("this reply was closed before its end", code="client_closed")


@dataclass(slots=True)
class Timings:
    """Seconds since the reply was first read from; None for what has not happened."""

    first_text_s: float | None = None
    total_s: float | None = None


class Reply:
    """One answer. `async with FlowGpt.stream(...) as reply: async for text in reply` reads it text by text.

    Nothing is sent before the first read. `text`: what has come so far. `verdict`: None while it goes on, then
    `complete`, `truncated`, or `unverified` (it ended, but the connection's form cannot prove that this was the end).
    `model`: who answers; of a fallback, who is asked first until a text has come.
    """

    def __init__(self, source: Source, *, model: str) -> None:
        self._model = model
        self.verdict: Verdict | None = None
        self.timings = Timings()
        self._source = source
        self._parts: list[str] = []
        self._failure: FlowGPTError | None = None
        self._started_s: float | None = None
        self._busy = self._closed = False

    @property
    def model(self) -> str:
        model: str = getattr(self._source, "model", self._model)
        return model

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def attempts(self) -> int:
        return self._source.attempts

    @property
    def skipped_events(self) -> Mapping[str, int]:
        return MappingProxyType(dict(self._source.skipped_events))

    def __repr__(self) -> str:
        state = self.verdict or ("left early" if self._closed else "open")
        return f"<Reply from {self.model}, {state}, {sum(map(len, self._parts))} characters>"

    async def next(self) -> Batch | None:
        """The next batch, or None at the proper end; its texts come before its failure is raised.

        Raises: FlowGPTError with `partial_text`; InvalidRequestError when another task is reading, or after `close`.
        """
        if self._failure is not None:
            raise self._failed(self._failure)
        if self.verdict is not None:
            return None
        if self._busy or self._closed:
            if self._busy:
                raise InvalidRequestError("this reply is already being read by another task")
            raise closed_early()
        if self._started_s is None:
            self._started_s = time.monotonic()
        self._busy = True
        try:
            batch = await self._source.next()
        except FlowGPTError as failure:
            raise self._failed(failure) from None
        except BaseException:  # cancelled, or a stranger's own fault: what is below goes at once
            self.close()
            raise
        finally:
            self._busy = False
        if batch is None:
            self.verdict = "complete" if self._source.verified else "unverified"
            self._end()
            return None
        if batch.texts:
            if self.timings.first_text_s is None:
                self.timings.first_text_s = time.monotonic() - self._started_s
            self._parts.append("".join(batch.texts))
        if batch.failure is not None:
            self._failure = batch.failure
            if not batch.texts and not batch.others:
                raise self._failed(batch.failure)
        return batch

    def _failed(self, failure: FlowGPTError) -> FlowGPTError:
        if self.verdict is None:
            self._failure = failure
            failure.partial_text = self.text
            failure.attempts = self.attempts
            self.verdict = "truncated"
            self._end()
        return failure.with_traceback(None)

    def _end(self) -> None:
        if self._started_s is not None:
            self.timings.total_s = time.monotonic() - self._started_s
        self.close()

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        """The texts, one for each text event. Raises: FlowGPTError."""
        try:
            while (batch := await self.next()) is not None:
                for text in batch.texts:
                    yield text
        finally:
            self.close()

    async def events(self) -> AsyncGenerator[Event, None]:
        """All events, those of unknown names too. Raises: FlowGPTError."""
        try:
            while (batch := await self.next()) is not None:
                for event in batch.events():
                    yield event
        finally:
            self.close()

    async def read(self) -> str:
        """Read to the end, and give the whole text. Raises: FlowGPTError."""
        while await self.next() is not None:
            pass
        return self.text

    def close(self) -> None:
        """Stop reading: the connection below is closed at once, unless the reply was read to its end."""
        self._closed = True
        self._source.close()

    async def aclose(self) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class TextSource:
    """Reads a stranger's bare async generator of texts as a source, one text a batch."""

    attempts = 1
    verified = True
    skipped_events: Mapping[str, int] = MappingProxyType({})

    def __init__(self, texts: AsyncIterator[str]) -> None:
        self._texts: AsyncIterator[str] | None = texts

    async def next(self) -> Batch | None:
        if self._texts is None:
            return None
        text = await anext(self._texts, None)
        return None if text is None else Batch([text])

    def close(self) -> None:
        self._texts = None  # a generator that is dropped is closed by the event loop's own hook
