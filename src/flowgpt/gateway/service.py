"""Questions answered: admission → provider → pieces → encoder → exchange, and what is under way when the gateway stops.

The life of one answer is here. Routes and refusals are in app.py, the emulations in answer.py, ASGI in exchange.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
        self.under_way: set[Exchange] = set()
        self._provider = provider
        self._settings = settings
        self._options = options
        self._admission = Admission(settings.max_streams, settings.max_streams_per_key, settings.requests_per_minute)
        self._idle = asyncio.Event()
        self._idle.set()
        for name in {"", *settings.model_names.values(), settings.any_model}:
            try:
                self.reply(Ask(model=name, turns=()), [{"role": "user", "content": "?"}]).close()  # nothing is sent
            except ModelNotFoundError:
                if name:  # without a default model it can be asked by name
                    raise

    def cut(self) -> None:
        """End every request that is under way: with an error frame, or a status where no head has left."""
        self.draining = True
        for exchange in self.under_way:
            exchange.break_off(_shutting_down())

    async def wait_until_idle(self) -> None:
        """Until no request is being answered."""
        await self._idle.wait()

    async def answer(
        self, dialect: Dialect, read: Read[Any], ask: Ask, exchange: Exchange, visit: Visit, finish: Finish
    ) -> None:
        """Answer one question. Raises: FlowGPTError while no head has left; ClientLeft."""
        visit.requested_model, visit.stream, visit.ignored = ask.model, bool(read.values.stream), read.ignored
        if ask.n > 1:
            self._let_in(visit.owner, ask.n - 1)  # answers, which count as one request more
            visit.n = ask.n
        question = _Question(self, dialect, read, ask, visit)
        try:
            async with contextlib.aclosing(question.pieces):
                with exchange:
                    exchange.notice_leaving()
                    await (_streamed if visit.stream else _whole)(question, exchange, finish)
        except ClientLeft:
            raise
        except Exception as error:
            if not (visit.stream and exchange.started):  # within a whole answer there is no place for an error
                raise
            problem = replace(failures.problem(error), request_id=visit.request_id)
            visit.code = problem.code
            await exchange.write(question.encoder().failure(problem), more=False)
        finally:
            question.close()

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

    def enter(self, exchange: Exchange, owner: str) -> None:
        """Count a request, with one answer, until it leaves. Raises: ServiceUnavailableError, RateLimitError."""
        if self.draining:
            raise _shutting_down()
        self._let_in(owner, 1)
        self.under_way.add(exchange)
        self._idle.clear()

    def leave(self, exchange: Exchange, owner: str, answers: int) -> None:
        """The request that has entered is over, with so many answers."""
        self._admission.leave(owner, answers)
        self.under_way.remove(exchange)
        if not self.under_way:
            self._idle.set()

    def _let_in(self, owner: str, answers: int) -> None:
        """Raises: as `enter`; InvalidRequestError for more answers than there ever are."""
        if (refused := self._admission.enter(owner, time.monotonic(), answers)) is not None:
            raise refused


class _Question:
    """A question that is being answered: its replies, their pieces, and the encoder of these.

    `_answering`: for each answer the reply that counts. `_replies`: these, and those that were asked for before.
    """

    def __init__(self, service: Service, dialect: Dialect, read: Read[Any], ask: Ask, visit: Visit) -> None:
        rules = schema.rules(ask)
        messages = answer.messages(ask)
        visit.prompt_characters = characters(messages)
        self.read = read
        self.visit = visit
        self._service = service
        self._dialect = dialect
        self._ask = ask
        self._encoder: Encoder | None = None
        self._replies = [service.reply(ask, messages) for _ in range(ask.n)]
        self._answering = [*self._replies]
        self._created = int(time.time())
        self.pieces = answer.side_by_side(
            [
                answer.pieces(
                    reply,
                    messages,
                    functools.partial(self._again, index),
                    answer.stages(ask, _new_id, rules, hold=not visit.stream),
                    index=index,
                )
                for index, reply in enumerate(self._answering)
            ]
        )

    def encoder(self) -> Encoder:
        """Made with the first piece: by then a fallback knows who answers."""
        if self._encoder is None:
            visit = self.visit
            visit.model = self._who()
            facts = Facts(
                new_id=_new_id, created=self._created, model=visit.model, prompt_characters=visit.prompt_characters
            )
            self._encoder = self._dialect.encoder(facts, self.read.values)
        return self._encoder

    def close(self) -> None:
        """Nothing more is wanted. Notes what there was."""
        visit = self.visit
        visit.model = visit.model or self._who()
        visit.attempts = sum(reply.attempts for reply in self._replies)
        visit.characters = sum(len(reply.text) for reply in self._replies)
        for reply in self._replies:
            reply.close()

    def _again(self, index: int, asked: Sequence[Message]) -> Reply:
        reply = self._answering[index] = self._service.reply(self._ask, asked)
        self._replies.append(reply)
        return reply

    def _who(self) -> str:
        """The model that answers: that of the first reply that has begun."""
        return next((reply for reply in self._answering if reply.text), self._answering[0]).model


def _new_id(prefix: str) -> str:
    return prefix + os.urandom(12).hex()


async def _streamed(question: _Question, exchange: Exchange, finish: Finish) -> None:
    """One write for what one read of the upstream brought. Raises: FlowGPTError, after what came before it."""
    exchange.hold(told(question.read))
    encoder: Encoder | None = None
    open_answers = question.visit.n
    async for index, batch in question.pieces:
        last = batch[-1]
        if isinstance(last, Failure):
            batch = batch[:-1]
        if batch:
            data = b""
            if encoder is None:
                encoder = question.encoder()
                data = encoder.start()
            data += encoder.pieces(batch, index)
            open_answers -= isinstance(last, End)
            _note(question.visit, batch)
            if not open_answers:
                data += encoder.end()
                await finish(encoder)
            await exchange.write(data, more=open_answers > 0)
        if isinstance(last, Failure):
            raise last.error


async def _whole(question: _Question, exchange: Exchange, finish: Finish) -> None:
    """The stream, folded. Raises: FlowGPTError."""
    answers: list[list[Piece]] = [[] for _ in range(question.visit.n)]
    async for index, batch in question.pieces:
        last = batch[-1]
        if isinstance(last, Failure):
            raise last.error
        _note(question.visit, batch)
        answers[index] += batch
    encoder = question.encoder()
    body = encoder.whole(answers)
    await finish(encoder)
    await exchange.whole(200, body, told(question.read))


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
