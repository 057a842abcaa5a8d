"""`AsyncClient` and `Client`: any provider, used like OpenAI's SDK. Two loops over one stream, and nothing else.

What both need is in `_Base` and in `formats`; the sync side reads through `bridge`. Nothing here parses, retries,
times or knows HTTP.
"""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, Self, overload
from weakref import WeakSet

from .bridge import Batches
from .config import Options, Timeouts, conceal
from .errors import InvalidRequestError
from .formats.estimate import characters
from .formats.openai.chat import ChatAnswer, ChatCompletion, ChatCompletionChunk, finish_reason
from .formats.openai.models import Model, ModelList, model_list
from .formats.pieces import End
from .messages import Messages
from .providers import registry
from .providers.base import Provider
from .reply import Reply


class _Open:
    """What a client and its `with_options` copies share: whether it is open, and what is open through it."""

    def __init__(self) -> None:
        self.closed = False
        self._readers: WeakSet[Reply | Batches] = WeakSet()
        self._lock = threading.Lock()

    def check(self) -> None:
        if self.closed:
            raise InvalidRequestError("this client is closed", code="client_closed")

    def add(self, reader: Reply | Batches) -> None:
        with self._lock:
            self.check()
            self._readers.add(reader)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            readers = list(self._readers)
        for reader in readers:
            reader.close()


class _Base:
    """All that does no I/O."""

    def __init__(self, provider: Provider | None, options: dict[str, Any]) -> None:
        conceal(options)
        self._given = provider
        self._options = options
        self._open = _Open()
        if provider is not None and not callable(getattr(provider, "stream", None)):
            raise InvalidRequestError("provider must have a method `stream`: see flowgpt.providers.base")

    def __repr__(self) -> str:
        name = self._name if self._given or self._options.get("base_url") else "as configured"
        return f"<{type(self).__name__} {'closed' if self._open.closed else 'open'}, provider={name}>"

    @property
    def _provider(self) -> Provider:
        """Who is asked: the one that was given, or the configured one; where a base_url was given, FlowGPT there."""
        return registry.chosen(self._given, self._options)

    @property
    def _name(self) -> str:
        provider = self._provider
        return str(getattr(provider, "__name__", type(provider).__name__))

    def with_options(self, **options: Any) -> Self:
        """A copy with other options; one that is None is as configured again. Closing either closes both."""
        conceal(options)
        other = copy.copy(self)
        other._options = self._options | options
        return other

    def _ask(
        self, model: str, messages: Messages, stream_options: Mapping[str, Any] | None, options: dict[str, Any]
    ) -> tuple[Reply, ChatAnswer]:
        """The reply, not yet asked for, and what puts it into OpenAI's shapes."""
        self._open.check()
        if stream_options is not None and not isinstance(stream_options, Mapping):
            raise InvalidRequestError("stream_options must be a dict, such as {'include_usage': True}")
        if isinstance(messages, Iterator):  # it can be read once, and is read twice
            messages = list(messages)
        given = {name: value for name, value in options.items() if value is not None}
        chosen = {name: value for name, value in (self._options | given).items() if value is not None}
        model = model or chosen.get("model", "")
        reply = registry.chosen(self._given, chosen).stream(messages=messages, **chosen | {"model": model})
        answer = ChatAnswer(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=reply.model,
            prompt_characters=characters(messages),
            include_usage=bool(stream_options and stream_options.get("include_usage")),
        )
        return reply, answer

    def _models(self) -> ModelList:
        self._open.check()
        ids = [*self._catalogue().get_models()]
        aliases = getattr(self._provider, "model_aliases", {})
        as_of = getattr(self._provider, "models_as_of", "")
        created = int(datetime.fromisoformat(f"{as_of}-01T00:00:00+00:00").timestamp()) if as_of else 0
        known = dict.fromkeys([*ids, *aliases], created)
        ids += [id_ for id_ in self._known().extra_models if id_ not in ids]
        return model_list(ids, aliases, created=known, owned_by=self._name.lower())

    def _model(self, model: str) -> Model:
        for entry in self._models():
            if entry.id == model:
                return entry
        known = self._catalogue().get_model(model, allow_unknown_model=self._known().allow_unknown_model)
        return Model(id=known, created=0, owned_by=self._name.lower())

    def _catalogue(self) -> Any:
        if not callable(getattr(self._provider, "get_models", None)):
            raise InvalidRequestError(f"{self._name} has no list of models")
        return self._provider

    def _known(self) -> Options:
        names = ("extra_models", "allow_unknown_model")
        return Options.resolve(**{name: self._options.get(name) for name in names})


def _told(reply: Reply, answer: ChatAnswer) -> ChatAnswer:
    """The answer with who gives it, which a fallback knows when the first text has come."""
    answer.model = reply.model
    return answer


def _last_chunks(reply: Reply, answer: ChatAnswer) -> list[ChatCompletionChunk]:
    return _told(reply, answer).chunks([End(finish_reason(reply.verdict))]) + answer.end()


# --- async ------------------------------------------------------------------------------------------------------------


class AsyncStream(AsyncIterator[ChatCompletionChunk]):
    """A reply as it comes: one chunk for each text, then one with the finish reason.

    `reply`: the Reply below, with its text, verdict, timings and attempts.
    Leaving the `with` block, or closing, closes the connection at once; the iteration then is at its end.
    """

    def __init__(
        self, reply: Reply, first: ChatCompletionChunk, rest: AsyncGenerator[ChatCompletionChunk, None]
    ) -> None:
        self.reply = reply
        self._first: ChatCompletionChunk | None = first
        self._rest = rest
        self._reading = False

    def __repr__(self) -> str:
        return f"<AsyncStream of {self.reply!r}>"

    async def __anext__(self) -> ChatCompletionChunk:
        if self._reading:
            raise InvalidRequestError("this stream is already being read by another task")
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self._reading = True
        try:
            return await anext(self._rest)
        finally:
            self._reading = False

    async def close(self) -> None:
        """Stop reading: the connection below is closed at once."""
        self._first = None
        self.reply.close()
        if not self._reading:  # else its reader ends it
            await self._rest.aclose()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _async_chunks(reply: Reply, answer: ChatAnswer) -> AsyncGenerator[ChatCompletionChunk, None]:
    try:
        while (batch := await reply.next()) is not None:
            for chunk in _told(reply, answer).chunks(batch.texts):
                yield chunk
        for chunk in _last_chunks(reply, answer):
            yield chunk
    finally:
        reply.close()


class AsyncCompletions:
    """`client.chat.completions`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @overload
    async def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: Literal[False] = False,
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: Literal[True],
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncStream: ...

    @overload
    async def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool,
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatCompletion | AsyncStream: ...

    async def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = False,
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatCompletion | AsyncStream:
        """Ask: the whole reply, or with `stream` its chunks; the first text has come when this returns.

        `model`: an id or alias, "" for the configured or default one. `stream_options`: {"include_usage": True}.
        `options`: those of the client, for this call. What FlowGPT has no word for gives a UserWarning.
        Raises: FlowGPTError; a reply that is cut never counts as whole: StreamInterruptedError with `partial_text`.
        """
        conceal(options)
        options |= {"temperature": temperature, "timeout": timeout}
        reply, answer = self._client._ask(model, messages, stream_options, options)
        self._client._open.add(reply)
        if not stream:
            text = await reply.read()
            return _told(reply, answer).completion([text, End(finish_reason(reply.verdict))])
        chunks = _async_chunks(reply, answer)
        return AsyncStream(reply, await anext(chunks), chunks)


class AsyncChat:
    """`client.chat`."""

    def __init__(self, client: AsyncClient) -> None:
        self.completions = AsyncCompletions(client)


class AsyncModels:
    """`client.models`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self) -> ModelList:
        """The models the provider knows, aliases included. Nothing is sent: the list is data with a date."""
        return self._client._models()

    async def retrieve(self, model: str) -> Model:
        """One model, by id or alias. Raises: ModelNotFoundError, naming the nearest ids."""
        return self._client._model(model)


class AsyncClient(_Base):
    """Any provider, used like OpenAI's client: `await client.chat.completions.create(model=..., messages=[...])`.

    Each option stands for all calls unless a call names its own; None is as configured. `provider`: a class or an
    instance with `stream`; None is the configured one, and with a `base_url` it is FlowGPT there. `options`:
    `flowgpt.config.Options`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        proxy: str | None = None,
        timeout: float | Timeouts | None = None,
        max_retries: int | None = None,
        provider: Provider | None = None,
        **options: Any,
    ) -> None:
        options |= {"api_key": api_key, "proxy": proxy}
        options |= {"base_url": base_url, "timeout": timeout, "max_retries": max_retries}
        del api_key, base_url, proxy  # no traceback shows them (K1)
        super().__init__(provider, options)

    @property
    def chat(self) -> AsyncChat:
        """`chat.completions.create`."""
        return AsyncChat(self)

    @property
    def models(self) -> AsyncModels:
        """`models.list` and `models.retrieve`."""
        return AsyncModels(self)

    async def close(self) -> None:
        """Close what is open through this client; later calls are refused (client_closed)."""
        self._open.close()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


# --- sync -------------------------------------------------------------------------------------------------------------


class Stream(Iterator[ChatCompletionChunk]):
    """A reply as it comes: one chunk for each text, then one with the finish reason.

    `reply`: the Reply below, with its text, verdict, timings and attempts.
    Leaving the `with` block, or closing, closes the connection at once; the iteration then is at its end.
    """

    def __init__(
        self,
        reply: Reply,
        batches: Batches,
        first: ChatCompletionChunk,
        rest: Generator[ChatCompletionChunk, None, None],
    ) -> None:
        self.reply = reply
        self._batches = batches
        self._first: ChatCompletionChunk | None = first
        self._rest = rest
        self._reading = False

    def __repr__(self) -> str:
        return f"<Stream of {self.reply!r}>"

    def __next__(self) -> ChatCompletionChunk:
        if self._reading:
            raise InvalidRequestError("this stream is already being read by another thread")
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self._reading = True
        try:
            return next(self._rest)
        finally:
            self._reading = False

    def close(self) -> None:
        """Stop reading: the connection below is closed at once."""
        self._first = None
        self._batches.close()
        if not self._reading:  # else its reader ends it
            self._rest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _chunks(reply: Reply, batches: Batches, answer: ChatAnswer) -> Generator[ChatCompletionChunk, None, None]:
    for batch in batches:
        yield from _told(reply, answer).chunks(batch.texts)
    yield from _last_chunks(reply, answer)


class Completions:
    """`client.chat.completions`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @overload
    def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: Literal[False] = False,
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatCompletion: ...

    @overload
    def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: Literal[True],
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Stream: ...

    @overload
    def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool,
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatCompletion | Stream: ...

    def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = False,
        temperature: float | None = None,
        timeout: float | Timeouts | None = None,
        stream_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ChatCompletion | Stream:
        """Ask: the whole reply, or with `stream` its chunks; the first text has come when this returns.

        `model`: an id or alias, "" for the configured or default one. `stream_options`: {"include_usage": True}.
        `options`: those of the client, for this call. What FlowGPT has no word for gives a UserWarning.
        Raises: FlowGPTError; a reply that is cut never counts as whole: StreamInterruptedError with `partial_text`.
        """
        conceal(options)
        options |= {"temperature": temperature, "timeout": timeout}
        reply, answer = self._client._ask(model, messages, stream_options, options)
        batches = Batches(reply)
        self._client._open.add(batches)
        if not stream:
            for _ in batches:
                pass
            return _told(reply, answer).completion([reply.text, End(finish_reason(reply.verdict))])
        chunks = _chunks(reply, batches, answer)
        return Stream(reply, batches, next(chunks), chunks)


class Chat:
    """`client.chat`."""

    def __init__(self, client: Client) -> None:
        self.completions = Completions(client)


class Models:
    """`client.models`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> ModelList:
        """The models the provider knows, aliases included. Nothing is sent: the list is data with a date."""
        return self._client._models()

    def retrieve(self, model: str) -> Model:
        """One model, by id or alias. Raises: ModelNotFoundError, naming the nearest ids."""
        return self._client._model(model)


class Client(_Base):
    """Any provider, used like OpenAI's client: `client.chat.completions.create(model=..., messages=[...])`.

    Each option stands for all calls unless a call names its own; None is as configured. `provider`: a class or an
    instance with `stream`; None is the configured one, and with a `base_url` it is FlowGPT there. `options`:
    `flowgpt.config.Options`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        proxy: str | None = None,
        timeout: float | Timeouts | None = None,
        max_retries: int | None = None,
        provider: Provider | None = None,
        **options: Any,
    ) -> None:
        options |= {"api_key": api_key, "proxy": proxy}
        options |= {"base_url": base_url, "timeout": timeout, "max_retries": max_retries}
        del api_key, base_url, proxy  # no traceback shows them (K1)
        super().__init__(provider, options)

    @property
    def chat(self) -> Chat:
        """`chat.completions.create`."""
        return Chat(self)

    @property
    def models(self) -> Models:
        """`models.list` and `models.retrieve`."""
        return Models(self)

    def close(self) -> None:
        """Close what is open through this client; later calls are refused (client_closed)."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
