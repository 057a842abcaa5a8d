"""Questions answered: admission → provider → pieces → encoder → exchange, and what is under way when the gateway stops.

The life of one answer is here. Routes and refusals are in app.py, the emulations in answer.py, ASGI in exchange.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ModelNotFoundError, ServiceUnavailableError
from ..formats.estimate import characters
from ..formats.parameters import Read
from ..formats.pieces import Ask, Encoder, End, Facts, Failure, Piece
from ..formats.stages import schema
from ..limits.admission import Admission
from ..messages import Message, Messages
from ..providers.base import Provider
from ..reply import Reply
from . import answer, failures
from .dialects import Dialect
from .exchange import ClientLeft, Exchange
from .settings import Settings
from .visit import Visit

Finish = Callable[[Encoder], Awaitable[None]]
"""What is to be done with an answer that has ended, before its client learns of the end."""


class Service:
    """Answers questions from one provider. `draining`: new ones are refused. `under_way`: requests being answered.

    Raises: InvalidRequestError for options that cannot be used, or names that stand for unknown models.
    """

    def __init__(self, provider: Provider, settings: Settings, options: Mapping[str, Any]) -> None:
        self.draining = False
        self.under_way = 0
        self._provider = provider
        self._settings = settings
        self._options = options
        self._admission = Admission(settings.max_streams, settings.max_streams_per_key, settings.requests_per_minute)
        self._ends: set[Callable[[Exception], None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        for name in {"", *settings.model_names.values(), settings.any_model}:
            try:
                self.reply(Ask(model=name, turns=()), [{"role": "user", "content": "?"}]).close()  # nothing is sent
            except ModelNotFoundError:
                if name:  # without a default model it can be asked by name
                    raise

    def cut(self) -> None:
        """End every answer that is under way: with an error frame, or a status where no head has left."""
        self.draining = True
        for end in self._ends:
            end(_shutting_down())

    async def wait_until_idle(self) -> None:
        """Until no request is being answered."""
        await self._idle.wait()

    async def answer(
        self, dialect: Dialect, read: Read[Any], ask: Ask, exchange: Exchange, visit: Visit, finish: Finish
    ) -> None:
        """Answer one question. Raises: FlowGPTError while no head has left; ClientLeft."""
        visit.requested_model, visit.stream, visit.n = ask.model, bool(read.values.stream), ask.n
        visit.ignored = read.ignored
        with self._side_by_side(ask, visit.owner):
            rules = schema.rules(ask)
            messages = answer.messages(ask)
            replies = [self.reply(ask, messages) for _ in range(ask.n)]
            answering = [*replies]
            created = int(time.time())
            visit.prompt_characters = characters(messages)

            @functools.cache
            def encoder() -> Encoder:  # made with the first piece: by then a fallback knows who answers
                visit.model = _who(answering)
                facts = Facts(
                    new_id=_new_id,
                    created=created,
                    model=visit.model,
                    prompt_characters=visit.prompt_characters,
                )
                return dialect.encoder(facts, read.values)

            def again(index: int, asked: Sequence[Message]) -> Reply:
                replies.append(self.reply(ask, asked))
                answering[index] = replies[-1]
                return replies[-1]

            answers = [
                answer.pieces(
                    reply,
                    messages,
                    functools.partial(again, index),
                    answer.stages(ask, _new_id, rules, hold=not visit.stream),
                    index=index,
                )
                for index, reply in enumerate([*replies])
            ]
            send = _streamed if visit.stream else _whole
            try:
                async with contextlib.aclosing(answer.side_by_side(answers)) as pieces:
                    await self._while_wanted(exchange, send(encoder, pieces, exchange, told(read), visit, finish))
            except ClientLeft:
                raise
            except Exception as error:
                if not (visit.stream and exchange.started):  # within a whole answer there is no place for an error
                    raise
                problem = replace(failures.problem(error), request_id=visit.request_id)
                visit.code = problem.code
                await exchange.write(encoder().failure(problem), more=False)
            finally:
                visit.model = visit.model or _who(answering)
                visit.attempts = sum(reply.attempts for reply in replies)
                visit.characters = sum(len(reply.text) for reply in replies)
                for reply in replies:
                    reply.close()

    def reply(self, ask: Ask, messages: Messages) -> Reply:
        """The reply of the model that stands for the asked one; nothing is sent yet. Raises: InvalidRequestError."""
        options = {**self._options, "safe_retries_only": True}
        if ask.temperature is not None:
            options["temperature"] = ask.temperature
        model = self._settings.model_names.get(ask.model, ask.model)
        try:
            return self._provider.stream(model, messages, **options)
        except ModelNotFoundError:
            if self._settings.any_model in ("", ask.model):
                raise
        return self._provider.stream(self._settings.any_model, messages, **options)

    @contextlib.contextmanager
    def admitted(self, owner: str) -> Iterator[None]:
        """Count a request, with one answer. Raises: ServiceUnavailableError, RateLimitError."""
        if self.draining:
            raise _shutting_down()
        if (refused := self._admission.enter(owner, time.monotonic())) is not None:
            raise refused
        self.under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._admission.leave(owner)
            self.under_way -= 1
            if not self.under_way:
                self._idle.set()

    @contextlib.contextmanager
    def _side_by_side(self, ask: Ask, owner: str) -> Iterator[None]:
        """Count the answers beyond the first, as one request more. Raises: as `admitted`."""
        more = ask.n - 1
        if more and (refused := self._admission.enter(owner, time.monotonic(), more)) is not None:
            raise refused
        try:
            yield
        finally:
            self._admission.leave(owner, more)

    async def _while_wanted(self, exchange: Exchange, sending: Coroutine[Any, Any, None]) -> None:
        """Until it is sent, or nobody wants it any more. Raises: ClientLeft; ServiceUnavailableError when cut."""
        ended: list[Exception] = []
        scope = asyncio.timeout(None)

        def end(reason: Exception) -> None:
            if not ended:
                ended.append(reason)
                scope.reschedule(0)

        self._ends.add(end)
        exchange.watch(lambda: end(ClientLeft()))
        try:
            async with scope:
                await sending
        except TimeoutError:
            if not ended:
                raise
            raise ended[0] from None
        finally:
            self._ends.discard(end)


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def _who(replies: Sequence[Reply]) -> str:
    """The model that answers: that of the first reply that has begun."""
    return next((reply for reply in replies if reply.text), replies[0]).model


async def _streamed(
    encoder: Callable[[], Encoder],
    pieces: answer.Pieces,
    exchange: Exchange,
    headers: Sequence[tuple[str, str]],
    visit: Visit,
    finish: Finish,
) -> None:
    """One write for what one read of the upstream brought. Raises: FlowGPTError, after what came before it."""
    exchange.hold(headers)
    begun = False
    open_answers = visit.n
    async for index, batch in pieces:
        last = batch[-1]
        if isinstance(last, Failure):
            batch = batch[:-1]
        if batch:
            data = b"" if begun else encoder().start()
            data, begun = data + encoder().pieces(batch, index), True
            open_answers -= isinstance(last, End)
            _note(visit, batch)
            if not open_answers:
                data += encoder().end()
                await finish(encoder())
            await exchange.write(data, more=open_answers > 0)
        if isinstance(last, Failure):
            raise last.error


async def _whole(
    encoder: Callable[[], Encoder],
    pieces: answer.Pieces,
    exchange: Exchange,
    headers: Sequence[tuple[str, str]],
    visit: Visit,
    finish: Finish,
) -> None:
    """The stream, folded. Raises: FlowGPTError."""
    answers: list[list[Piece]] = [[] for _ in range(visit.n)]
    async for index, batch in pieces:
        last = batch[-1]
        if isinstance(last, Failure):
            raise last.error
        _note(visit, batch)
        answers[index] += batch
    body = encoder().whole(answers)
    await finish(encoder())
    await exchange.whole(200, body, headers)


def _note(visit: Visit, batch: Sequence[Piece]) -> None:
    last = batch[-1]
    if visit.first_text_s is None:
        visit.first_text_s = time.monotonic() - visit.started_s
    if isinstance(last, End):
        visit.reason = last.reason
    visit.texts += len(batch) - isinstance(last, End)


def told(read: Read[Any]) -> list[tuple[str, str]]:
    """The headers that say what became of the parameters."""
    named = {"x-flowgpt-ignored": read.ignored, "x-flowgpt-emulated": read.emulated}
    return [(header, ", ".join(names)) for header, names in named.items() if names]


def _shutting_down() -> ServiceUnavailableError:
    return ServiceUnavailableError("the gateway is shutting down", code="shutting_down", retry_after_s=1.0)
