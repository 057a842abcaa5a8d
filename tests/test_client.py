"""Both clients on a real server: what comes back, what is raised, what is closed; and that the two are twins."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import subprocess
import sys
import threading
import typing
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flowgpt import (
    AsyncClient,
    Client,
    FlowGpt,
    FlowGPTError,
    InvalidRequestError,
    ModelNotFoundError,
    RateLimitError,
    StreamInterruptedError,
    Timeouts,
    client,
)
from flowgpt.embedded import Server
from flowgpt.formats.openai.chat import ChatCompletion, ChatCompletionChunk
from flowgpt.messages import Message
from flowgpt.providers.base import AsyncGeneratorProvider
from flowgpt.reply import Reply, TextSource
from tests.conftest import API_KEY, PROXY_PASSWORD
from tests.upstream import (
    BOUND_S,
    CHUNKED,
    FIN,
    HUNG_UP,
    LAST,
    Gate,
    Script,
    Upstream,
    answer,
    chunk,
    event,
    head,
    reply,
)

ASK: list[Message] = [{"role": "user", "content": "What is it?"}]


class Twin:
    """One test body for both clients: the sync one as it is, the async one driven to each result."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()

    def client(self, **options: Any) -> Any:
        return Client(**options) if self.kind == "sync" else AsyncClient(**options)

    def do(self, call: Any) -> Any:
        """What a call gives."""
        return self._runner.run(self._awaited(call)) if inspect.isawaitable(call) else call

    def create(self, client: Any, **call: Any) -> Any:
        return self.do(client.chat.completions.create(messages=ASK, **call))

    def all(self, stream: Any) -> list[ChatCompletionChunk]:
        return list(stream) if self.kind == "sync" else self._runner.run(self._collected(stream))

    def next(self, stream: Any) -> ChatCompletionChunk:
        return self.do(stream.__next__() if self.kind == "sync" else stream.__anext__())  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def within(self, manager: Any) -> Iterator[Any]:
        """A `with` or `async with` block."""
        if self.kind == "sync":
            with manager as value:
                yield value
            return
        value = self.do(manager.__aenter__())
        try:
            yield value
        finally:
            self.do(manager.__aexit__(None, None, None))

    @staticmethod
    async def _awaited(call: Any) -> Any:
        return await call

    @staticmethod
    async def _collected(stream: Any) -> list[ChatCompletionChunk]:
        return [chunk async for chunk in stream]

    def end(self) -> None:
        self._runner.close()


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    twin = Twin(request.param)
    yield twin
    twin.end()


def contents(chunks: list[ChatCompletionChunk]) -> list[str | None]:
    return [chunk.choices[0].delta.content for chunk in chunks]


# Answers


def test_a_whole_reply(twin: Twin) -> None:
    with Upstream([reply("It is", " a test.")]) as upstream:
        completion = twin.create(twin.client(base_url=upstream.url), model="gemini")

    assert isinstance(completion, ChatCompletion)
    assert completion.choices[0].message.content == "It is a test."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "google-gemini"
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", completion.id)
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 4)


def test_a_stream_is_one_chunk_for_each_text_and_one_for_the_end(twin: Twin) -> None:
    with Upstream([reply("It", " is", " it.")]) as upstream:
        stream = twin.create(twin.client(base_url=upstream.url), stream=True)
        chunks = twin.all(stream)

    assert contents(chunks) == ["It", " is", " it.", None]
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert (stream.reply.text, stream.reply.verdict, stream.reply.attempts) == ("It is it.", "complete", 1)
    assert stream.reply.timings.total_s >= stream.reply.timings.first_text_s
    assert twin.all(stream) == []


def test_a_streams_usage_comes_when_it_is_asked_for(twin: Twin) -> None:
    with Upstream([reply("It is it.")]) as upstream:
        asking = twin.client(base_url=upstream.url)
        chunks = twin.all(twin.create(asking, stream=True, stream_options={"include_usage": True}))
        without = twin.all(twin.create(asking, stream=True, stream_options={"include_usage": False}))

    assert [chunk.usage and chunk.usage.total_tokens for chunk in chunks] == [None, None, 6]
    assert chunks[-1].choices == []
    assert len(without) == 2


def test_c8_an_end_that_nothing_proves_is_not_called_stop(twin: Twin) -> None:
    close_delimited: Script = [head("200 OK", "Connection: close"), event("It."), FIN]
    with Upstream(close_delimited) as upstream:
        asking = twin.client(base_url=upstream.url)
        whole = twin.create(asking)
        stream = twin.create(asking, stream=True)
        chunks = twin.all(stream)

    assert whole.choices[0].finish_reason is None
    assert whole.choices[0].message.content == "It."
    assert chunks[-1].choices[0].finish_reason is None
    assert stream.reply.verdict == "unverified"


def test_a_provider_that_is_an_instance_answers_too(twin: Twin) -> None:
    class Echo(AsyncGeneratorProvider):
        def __init__(self, word: str) -> None:
            Echo.word = word

        word = ""

        @classmethod
        async def create_async_generator(cls, model, messages, *_, **options):  # type: ignore[no-untyped-def,override]
            yield f"{cls.word} {model} {messages[-1]['content']}"

    completion = twin.create(twin.client(provider=Echo("instance")), model="m")

    assert completion.choices[0].message.content == "instance m What is it?"


def test_a_provider_is_given_what_the_caller_gave_and_nothing_else(twin: Twin) -> None:
    seen: list[dict[str, Any]] = []

    class Noting(AsyncGeneratorProvider):
        @classmethod
        def stream(cls, **given: Any) -> Reply:  # type: ignore[override]
            seen.append(given)
            return Reply(TextSource(texts()), model="m")

    async def texts() -> AsyncIterator[str]:
        yield "a"

    asking = twin.client(provider=Noting, timeout=5, mood="calm")
    twin.create(asking)
    twin.create(asking, model="m", temperature=0, timeout=None, proxy="", mood=None)

    assert seen == [
        {"messages": ASK, "model": "", "timeout": 5, "mood": "calm"},
        {"messages": ASK, "model": "m", "timeout": 5, "mood": "calm", "temperature": 0, "proxy": ""},
    ]


@pytest.mark.parametrize("provider", [object(), "flowgpt"])
def test_a_provider_without_a_stream_is_refused(twin: Twin, provider: Any) -> None:
    """The keys that are in the frames then don't show, as the canary sees."""
    with pytest.raises(InvalidRequestError, match="`stream`"):
        twin.client(api_key=API_KEY, proxy=f"http://u:{PROXY_PASSWORD}@127.0.0.1:1", provider=provider)


def test_messages_that_can_be_read_once_are_asked_and_counted(twin: Twin) -> None:
    with Upstream([reply("It.")]) as upstream:
        asking = twin.client(base_url=upstream.url)
        completion = twin.do(asking.chat.completions.create(messages=iter(ASK)))

    assert completion.usage.prompt_tokens == 3
    assert b'"question":"What is it?"' in upstream.requests[0].body


# Options


def test_the_options_of_client_copy_and_call_are_laid_over_each_other(twin: Twin) -> None:
    with Upstream([reply("a")]) as upstream:
        asking = twin.client(api_key=API_KEY, base_url=upstream.url, model="gpt-4-turbo", nsfw=True)
        other = asking.with_options(temperature=0.5, nsfw=False, api_key=None)
        twin.create(asking)
        twin.create(other)
        twin.create(other, temperature=1.5, model="claude-v2", nsfw=None)
        twin.create(asking)

    bodies = [request.body for request in upstream.requests]
    assert [request.target for request in upstream.requests] == [
        "/v3/chat",
        "/v3/chat-anonymous",
        "/v3/chat-anonymous",
        "/v3/chat",
    ]
    for body, facts in zip(
        bodies,
        [
            ('"gpt-4-turbo"', '"nsfw":true', '"temperature":0.7'),
            ('"gpt-4-turbo"', '"nsfw":false', '"temperature":0.5'),
            ('"claude-v2"', '"nsfw":false', '"temperature":1.5'),
            ('"gpt-4-turbo"', '"nsfw":true', '"temperature":0.7'),
        ],
        strict=True,
    ):
        assert all(fact.encode() in body for fact in facts), body


def test_a_copy_shares_the_clients_life(twin: Twin) -> None:
    asking = twin.client()
    copy = asking.with_options(timeout=5)
    assert type(copy) is type(asking)

    twin.do(copy.close())

    with pytest.raises(InvalidRequestError, match="this client is closed"):
        twin.do(asking.models.list())


@pytest.mark.parametrize("word", ["tools", "n", "logprobs", "max_tokens", "seed", "response_format", "extra_headers"])
def test_j7_what_flowgpt_has_no_word_for_gives_a_warning_and_the_call_goes_on(twin: Twin, word: str) -> None:
    with Upstream([reply("a")]) as upstream:
        asking = twin.client(base_url=upstream.url)
        with pytest.warns(UserWarning, match=f"flowgpt knows no option '{word}'"):
            completion = twin.create(asking, **{word: 2})

    assert completion.choices[0].message.content == "a"
    assert b'"' + word.encode() + b'"' not in upstream.requests[0].body


def test_j7_a_keyword_that_is_none_is_not_given(twin: Twin) -> None:
    with Upstream([reply("a")]) as upstream:
        assert twin.create(twin.client(base_url=upstream.url), tools=None, temperature=None).choices


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"timeout": -1}, "timeout"),
        ({"model": 5}, "model"),
        ({"model": "gpt-9"}, "gpt-9"),
        ({"proxy": f"ftp://user:{PROXY_PASSWORD}@host"}, "proxy"),
        ({"base_url": "http://127.0.0.1:1/path"}, "base_url"),
        ({"api_key": f"{API_KEY}\r\nX: 1"}, "api_key"),
        ({"max_retries": -1}, "max_retries"),
        ({"stream_options": "include_usage"}, "stream_options"),
        ({"extra_body": {"a": object()}}, "JSON"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_call_sends_nothing(twin: Twin, options: dict[str, Any], words: str) -> None:
    with Upstream() as upstream:
        asking = twin.client(base_url=upstream.url)
        for stream in (False, True):
            with pytest.raises(InvalidRequestError, match=words):
                twin.create(asking, stream=stream, **options)

        assert upstream.connections == 0


def test_k1_a_key_shows_nowhere(twin: Twin) -> None:
    """The canary looks at all frames of the error; here are the reprs."""
    asking = twin.client(api_key=API_KEY, proxy=f"http://u:{PROXY_PASSWORD}@127.0.0.1:1", base_url="nonsense")

    with pytest.raises(InvalidRequestError) as refused:
        twin.create(asking)

    shown = repr(asking) + repr(vars(asking)) + repr(refused.value)
    assert API_KEY not in shown
    assert PROXY_PASSWORD not in shown


# Failures


def test_a_refusal_is_raised_by_create(twin: Twin) -> None:
    with Upstream([answer(429, b'{"message":"slow down"}')]) as upstream:
        asking = twin.client(base_url=upstream.url, max_retries=0)
        for stream in (False, True):
            with pytest.raises(RateLimitError, match="slow down"):
                twin.create(asking, stream=stream)


def test_a_cut_reply_is_never_a_completion(twin: Twin) -> None:
    with Upstream([CHUNKED, chunk(event("It is") + b'{"ev'), FIN]) as upstream:
        asking = twin.client(base_url=upstream.url)
        with pytest.raises(StreamInterruptedError) as cut:
            twin.create(asking)
        assert cut.value.partial_text == "It is"

        stream = twin.create(asking, stream=True)
        assert contents([twin.next(stream)]) == ["It is"]
        with pytest.raises(StreamInterruptedError) as cut:
            twin.next(stream)
        assert cut.value.partial_text == stream.reply.text == "It is"
        assert stream.reply.verdict == "truncated"
        assert twin.all(stream) == []


def test_a_failure_before_the_first_text_is_raised_by_create(twin: Twin) -> None:
    with Upstream([CHUNKED, chunk(event("later", name="title")), FIN]) as upstream:
        asking = twin.client(base_url=upstream.url)

        with pytest.raises(StreamInterruptedError):
            twin.create(asking, stream=True)


# Closing


def test_closing_a_stream_closes_the_connection_at_once(twin: Twin) -> None:
    with Upstream([CHUNKED, chunk(event("a") + event("b")), HUNG_UP]) as upstream:
        stream = twin.create(twin.client(base_url=upstream.url), stream=True)
        assert contents([twin.next(stream)]) == ["a"]

        twin.do(stream.close())

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")
        assert twin.all(stream) == []
        twin.do(stream.close())


def test_a_stream_that_is_closed_before_it_is_read_gives_nothing(twin: Twin) -> None:
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        stream = twin.create(twin.client(base_url=upstream.url), stream=True)

        twin.do(stream.close())

        assert twin.all(stream) == []
        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_leaving_the_with_block_of_a_stream_closes_it(twin: Twin) -> None:
    with Upstream([CHUNKED, chunk(event("a") + event("b")), HUNG_UP]) as upstream:
        asking = twin.client(base_url=upstream.url)
        with twin.within(twin.create(asking, stream=True)) as stream:
            assert contents([twin.next(stream)]) == ["a"]

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")
        assert twin.all(stream) == []


def test_dropping_a_stream_closes_the_connection() -> None:
    with Upstream([CHUNKED, chunk(event("a") + event("b")), HUNG_UP]) as upstream:
        stream = Client(base_url=upstream.url).chat.completions.create(messages=ASK, stream=True)

        del stream

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_dropping_an_async_stream_closes_the_connection() -> None:
    async def dropped(upstream: Upstream) -> None:
        stream = await AsyncClient(base_url=upstream.url).chat.completions.create(messages=ASK, stream=True)
        del stream
        await upstream.hung_up()

    with Upstream([CHUNKED, chunk(event("a") + event("b")), HUNG_UP]) as upstream:
        asyncio.run(dropped(upstream))


def test_closing_a_client_closes_its_open_streams_and_refuses_later_calls(twin: Twin) -> None:
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        with twin.within(twin.client(base_url=upstream.url)) as asking:
            stream = twin.create(asking, stream=True)
            assert repr(asking) == f"<{type(asking).__name__} open, provider=FlowGpt>"

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")
        assert repr(asking) == f"<{type(asking).__name__} closed, provider=FlowGpt>"
        assert "left early" in repr(stream)
        twin.next(stream)
        for refused in (
            lambda: twin.next(stream),
            lambda: twin.create(asking),
            lambda: twin.create(asking.with_options(timeout=1), stream=True),
            lambda: twin.do(asking.models.retrieve("gemini")),
        ):
            with pytest.raises(InvalidRequestError) as error:
                refused()
            assert error.value.code == "client_closed"
        assert len(upstream.requests) == 1


def test_h11_one_client_is_used_in_several_event_loops_one_after_the_other() -> None:
    """The pool belongs to the loop, not to the client."""
    with Upstream([reply("a")]) as upstream:
        asking = AsyncClient(base_url=upstream.url)

        async def ask() -> str:
            return (await asking.chat.completions.create(messages=ASK)).choices[0].message.content or ""

        assert [asyncio.run(ask()), asyncio.run(ask())] == ["a", "a"]


def test_h12_one_client_serves_32_threads_at_once() -> None:
    gate, together = Gate(), threading.Barrier(33)
    with Upstream([CHUNKED, chunk(event("a")), gate, chunk(event("b")), LAST]) as upstream:
        asking = Client(base_url=upstream.url)

        def ask(_: int) -> list[str | None]:
            stream = asking.chat.completions.create(messages=ASK, stream=True)
            together.wait(BOUND_S)  # all are in the middle
            return contents(list(stream))

        with ThreadPoolExecutor(32) as pool:
            got = pool.map(ask, range(32))
            together.wait(BOUND_S)
            gate.open()
            assert list(got) == [["a", "b", None]] * 32
        assert upstream.connections == 32


def test_the_sync_client_works_inside_a_running_event_loop() -> None:
    async def notebook(url: str) -> str:
        return Client(base_url=url).chat.completions.create(messages=ASK).choices[0].message.content or ""

    with Upstream([reply("a")]) as upstream:
        assert asyncio.run(notebook(upstream.url)) == "a"


def test_h7_a_second_reader_of_a_stream_is_told_so() -> None:
    gate = Gate()

    async def two(upstream: Upstream) -> None:
        stream = await AsyncClient(base_url=upstream.url).chat.completions.create(messages=ASK, stream=True)
        await anext(stream)
        reader = asyncio.create_task(anext(stream))
        await gate.reached()
        with pytest.raises(InvalidRequestError, match="already being read by another task"):
            await anext(stream)
        gate.open()
        await stream.close()
        await upstream.hung_up()
        with pytest.raises(FlowGPTError):
            await reader

    with Upstream([CHUNKED, chunk(event("a")), gate, HUNG_UP]) as upstream:
        asyncio.run(two(upstream))


def test_h7_a_second_reading_thread_is_told_so_and_closing_wakes_the_first() -> None:
    gate = Gate()
    with Upstream([CHUNKED, chunk(event("a")), gate, HUNG_UP]) as upstream, ThreadPoolExecutor(1) as pool:
        stream = Client(base_url=upstream.url).chat.completions.create(messages=ASK, stream=True)
        next(stream)
        reader = pool.submit(next, stream)
        while not stream._reading:  # a few turns at most: nothing else is to be waited for
            asyncio.run(gate.reached())
        with pytest.raises(InvalidRequestError, match="already being read by another thread"):
            next(stream)

        stream.close()

        error = reader.exception(BOUND_S)
        assert isinstance(error, InvalidRequestError)
        assert error.code == "client_closed"
        gate.open()
        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_h1_a_cancelled_create_closes_the_connection() -> None:
    gate = Gate()

    async def cancelled(url: str) -> None:
        asking = asyncio.create_task(AsyncClient(base_url=url).chat.completions.create(messages=ASK, stream=True))
        await gate.reached()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    with Upstream([gate]) as upstream:
        asyncio.run(cancelled(upstream.url))
        gate.open()
        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


# Models


def test_the_models_are_the_catalogues_with_its_date_and_the_aliases(twin: Twin) -> None:
    listed = twin.do(twin.client().models.list())

    assert [model.id for model in listed] == [*FlowGpt.models, "gemini", "gemini-pro"]
    assert listed.data[0].model_dump() == {
        "id": "gpt-3.5-turbo",
        "object": "model",
        "created": 1711929600,  # 2024-04-01
        "owned_by": "flowgpt",
        "alias_of": None,
    }
    assert listed.data[-1].alias_of == "google-gemini"


def test_a_model_is_retrieved_by_id_or_alias(twin: Twin) -> None:
    asking = twin.client()

    assert twin.do(asking.models.retrieve("gemini")).alias_of == "google-gemini"
    assert twin.do(asking.models.retrieve("claude-v2")).id == "claude-v2"
    with pytest.raises(ModelNotFoundError, match="claude-v2"):
        twin.do(asking.models.retrieve("claude-v3"))


def test_models_that_are_configured_are_listed_and_unknown_ones_may_be_allowed(twin: Twin) -> None:
    asking = twin.client(extra_models=["FlowGPT-Ares", "claude-v2"])

    assert [model.id for model in twin.do(asking.models.list())].count("claude-v2") == 1
    assert twin.do(asking.models.retrieve("FlowGPT-Ares")).created == 0
    assert twin.do(asking.with_options(allow_unknown_model=True).models.retrieve("x")).id == "x"


def test_a_provider_without_a_list_says_so(twin: Twin) -> None:
    class Bare(AsyncGeneratorProvider):
        pass

    with pytest.raises(InvalidRequestError, match="Bare has no list of models"):
        twin.do(twin.client(provider=Bare).models.list())


# The twins


def members(owner: type) -> dict[str, Any]:
    """A class's own and inherited public members, and how it is built and entered."""
    kept = {"__init__"} | {f"__{a}{name}__" for a in ("", "a") for name in ("enter", "exit", "next", "iter")}
    return {
        name: value
        for name, value in inspect.getmembers(owner)
        if (not name.startswith("_") or name in kept) and name != "aclose"
    }


def words(text: str | None) -> str:
    """Text without its async words."""
    text = re.sub(r"\b(async |await )|Async|(?<=__)a(?=(enter|exit|next|iter)__)", "", text or "")
    return text.replace("another task", "another thread")


PAIRS = [
    (AsyncClient, Client),
    (client.AsyncChat, client.Chat),
    (client.AsyncCompletions, client.Completions),
    (client.AsyncModels, client.Models),
    (client.AsyncStream, client.Stream),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1].__name__)
def test_both_clients_have_equal_members_signatures_and_docstrings(pair: tuple[type, type]) -> None:
    theirs = {words(name): value for name, value in members(pair[0]).items()}
    ours = members(pair[1])

    assert words(pair[0].__doc__) == pair[1].__doc__
    assert theirs.keys() == ours.keys()
    for name in ours.keys() - {"__init__" if pair[1] is client.Stream else ""}:
        one, other = theirs[name], ours[name]
        if name != "__next__":  # inherits Python's own words, which differ
            assert words(inspect.getdoc(one)) == words(inspect.getdoc(other)), name
        if callable(other) and not isinstance(other, type(object.__init__)):
            assert words(str(inspect.signature(one))) == str(inspect.signature(other)), name


def test_aclose_is_close() -> None:
    assert AsyncClient.aclose is AsyncClient.close
    assert client.AsyncStream.aclose is client.AsyncStream.close


def test_create_has_equal_overloads() -> None:
    ours = typing.get_overloads(client.Completions.create)
    theirs = typing.get_overloads(client.AsyncCompletions.create)

    assert [str(inspect.signature(one)) for one in ours] == [words(str(inspect.signature(one))) for one in theirs]
    assert len(ours) == 3


def test_the_stream_argument_decides_the_type() -> None:
    """For mypy, which checks this file; nothing is run."""

    async def typed(asking: AsyncClient, sync: Client, either: bool) -> None:
        whole: ChatCompletion = await asking.chat.completions.create(messages=ASK)
        stream: client.AsyncStream = await asking.chat.completions.create(messages=ASK, stream=True)
        both: ChatCompletion | client.Stream = sync.chat.completions.create(messages=ASK, stream=either)
        timed: client.Stream = sync.chat.completions.create(messages=ASK, stream=True, timeout=Timeouts(idle_s=1))
        assert whole, (stream, both, timed)

    assert inspect.iscoroutinefunction(typed)


def test_importing_the_clients_is_light() -> None:
    """Only msgspec and what it imports, of all that is not Python's own."""
    script = """if True:
        import sys
        import msgspec
        before = set(sys.modules)
        import flowgpt
        new = {name.partition(".")[0] for name in sys.modules.keys() - before}
        print(sorted(new - sys.stdlib_module_names))
        """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "['flowgpt']\n"


def test_a_question_of_megabytes_arrives_whole_and_without_a_warning() -> None:
    question = "x" * 3_000_000
    with Server() as server, Client(base_url=server.base_url) as client:
        answered = client.chat.completions.create(messages=[{"role": "user", "content": question}])

    assert question in (answered.choices[0].message.content or "")
