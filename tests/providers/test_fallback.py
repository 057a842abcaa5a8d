"""Several providers as one: who is asked, when the next one is, and what is told when all fail. Over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt import (
    AsyncClient,
    Client,
    Fallback,
    FlowGpt,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    ServiceUnavailableError,
    StreamInterruptedError,
    transport,
)
from flowgpt.limits.breaker import LEAST_CALLS, LIMIT_OPEN_S, Health
from flowgpt.messages import Batch, Message
from flowgpt.providers.base import AsyncGeneratorProvider, AsyncResult, Messages, ProviderModelMixin
from flowgpt.providers.registry import Configured
from flowgpt.reply import Reply, TextSource
from tests.conftest import API_KEY
from tests.upstream import CHUNKED, FIN, HUNG_UP, LAST, Script, Upstream, answer, chunk, event, reply

ASK: list[Message] = [{"role": "user", "content": "What is it?"}]


def at(url: str, **options: Any) -> Configured:
    """FlowGPT at that address."""
    return Configured("there", FlowGpt, {"base_url": url, "max_retries": 0} | options)


@contextlib.contextmanager
def servers(*scripts: Script) -> Iterator[list[Upstream]]:
    """One upstream for each script."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Upstream(script)) for script in scripts]


async def read(reply: Reply) -> str:
    async with reply:
        return await reply.read()


def asked(upstreams: Sequence[Upstream]) -> list[int]:
    """How many requests each has heard."""
    return [len(upstream.requests) for upstream in upstreams]


@contextlib.contextmanager
def circuit_open(*then: Script) -> Iterator[Upstream]:
    """A server that has failed so often that nothing is sent there; afterwards it would play `then`."""

    async def fail(url: str) -> None:
        for _ in range(LEAST_CALLS):
            with pytest.raises(InternalServerError):
                await read(at(url).stream(messages=ASK))

    with Upstream(*[[answer(500)]] * LEAST_CALLS, *then) as there:
        asyncio.run(fail(there.url))
        assert not at(there.url).working
        yield there


# Order


def test_the_first_that_can_answers_and_the_others_are_not_asked() -> None:
    with servers([reply("one")], [reply("two")]) as there:
        told = Fallback([at(each.url) for each in there]).stream(messages=ASK)

        assert asyncio.run(read(told)) == "one"
        assert (told.attempts, told.verdict, asked(there)) == (1, "complete", [1, 0])


def test_a_failure_before_the_first_text_goes_on_to_the_next() -> None:
    with servers([answer(500)], [CHUNKED, chunk(b"\n\n"), FIN], [reply("thr", "ee")], [reply("four")]) as there:
        told = Fallback([at(each.url) for each in there]).stream(messages=ASK)

        assert asyncio.run(read(told)) == "three"
        assert (told.attempts, told.verdict, asked(there)) == (3, "complete", [1, 1, 1, 0])


def test_events_without_a_text_are_no_answer_yet() -> None:
    with servers([CHUNKED, chunk(event("x", "mood")), FIN], [reply("two")]) as there:
        told = Fallback([at(each.url) for each in there]).stream(messages=ASK)

        assert asyncio.run(read(told)) == "two"
        assert told.skipped_events == {}, "those of who answered"


@pytest.mark.parametrize(("name", "said", "causes"), [("mood", "two", None), ("text", "x", ["bad_event"])])
def test_a_failure_that_comes_with_an_event_in_one_read_counts_behind_it(
    name: str, said: str, causes: list[str] | None
) -> None:
    with servers([CHUNKED, chunk(event("x", name) + b"{no event}\n"), LAST], [reply("two")]) as there:
        told = Fallback([at(each.url) for each in there]).stream(messages=ASK)

        if causes is None:
            assert asyncio.run(read(told)) == said
            return
        with pytest.raises(ProtocolError) as caught:
            asyncio.run(read(told))
        assert (told.text, [cause.code for cause in caught.value.causes]) == (said, causes)


def test_after_the_first_text_nobody_else_is_asked() -> None:
    with servers([CHUNKED, chunk(event("o")), chunk(event("n")), FIN], [reply("two")]) as there:
        told = Fallback([at(each.url) for each in there]).stream(messages=ASK)

        with pytest.raises(StreamInterruptedError) as caught:
            asyncio.run(read(told))
        assert (caught.value.partial_text, told.text, told.verdict) == ("on", "on", "truncated")
        assert asked(there) == [1, 0]


def test_when_all_fail_the_last_error_is_raised_with_what_each_said() -> None:
    with socket.socket() as reserved:  # bound, and not listening
        reserved.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with servers([answer(503)], [answer(500)]) as there:
            told = Fallback([at(gone), *(at(each.url) for each in there)]).stream(messages=ASK)

            with pytest.raises(InternalServerError) as caught:
                asyncio.run(read(told))
    error = caught.value
    assert [cause.code for cause in error.causes] == ["connect_error", "service_unavailable", "server_error"]
    assert [cause.attempts for cause in error.causes] == [1, 1, 1]
    assert (error.attempts, error.partial_text) == (3, "")
    assert error not in error.causes
    assert all(cause.causes == () for cause in error.causes)


def test_what_every_provider_would_say_is_said_at_once() -> None:
    with servers([reply("one")], [reply("two")]) as there:
        both = Fallback([at(each.url) for each in there])

        with pytest.raises(InvalidRequestError, match="temperature"):
            both.stream(messages=ASK, temperature=9)
        assert asked(there) == [0, 0]


def test_each_provider_has_its_own_retries_and_they_are_counted_together() -> None:
    with Upstream([answer(503)], [answer(503)]) as first, Upstream([reply("two")]) as second:
        told = Fallback([at(first.url, max_retries=1), at(second.url)]).stream(messages=ASK)

        assert asyncio.run(read(told)) == "two"
        assert (told.attempts, asked([first, second])) == (3, [2, 1])


def test_f14_nobody_waits_for_the_end_of_a_429_while_there_are_others() -> None:
    """Neither the call that was refused, nor those that come within the pause, whoever is next."""
    with Upstream([answer(429, b"", "Retry-After: 100")]) as first, Upstream([reply("two")]) as second:
        patient = Fallback([at(first.url, max_retries=2), at(second.url, max_retries=2)])

        for _ in range(3):
            told = patient.stream(messages=ASK, timeout=20)
            assert (asyncio.run(read(told)), told.attempts) == ("two", 2 if not _ else 1)
        assert asked([first, second]) == [1, 3]


@pytest.mark.parametrize(("options", "attempts"), [({}, 3), ({"safe_retries_only": True}, 2)])
def test_what_may_have_been_processed_is_sent_again_by_the_last_alone(options: dict[str, Any], attempts: int) -> None:
    with Upstream([answer(500)]) as first, Upstream([answer(500)]) as second:
        told = Fallback([at(first.url, max_retries=1), at(second.url, max_retries=1)]).stream(messages=ASK, **options)

        with pytest.raises(InternalServerError):
            asyncio.run(read(told))
        assert (told.attempts, asked([first, second])) == (attempts, [1, attempts - 1])


# Health


def test_o5_whose_circuit_is_open_is_asked_last_and_hears_nothing() -> None:
    with circuit_open([reply("one")]) as first, Upstream([reply("two")]) as second:
        both = Fallback([at(first.url), at(second.url)])

        assert asyncio.run(read(both.stream(messages=ASK))) == "two"
        assert (asked([first, second]), both.working) == ([LEAST_CALLS, 1], True)


def test_o5_what_is_asked_last_is_told_last() -> None:
    with circuit_open([reply("one")]) as first, Upstream([answer(503)]) as second:
        told = Fallback([at(first.url), at(second.url)]).stream(messages=ASK)

        with pytest.raises(ServiceUnavailableError) as caught:
            asyncio.run(read(told))
        assert [cause.code for cause in caught.value.causes] == ["service_unavailable", "circuit_open"]


def test_o5_a_provider_that_has_recovered_is_asked_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with circuit_open([reply("one")]) as first, Upstream([reply("two")]) as second:
        both = Fallback([at(first.url), at(second.url)])
        monkeypatch.setattr(transport.health, "monotonic", lambda: time.monotonic() + LIMIT_OPEN_S)  # time for a probe

        assert asyncio.run(read(both.stream(messages=ASK))) == "one"
        assert both.health() == Health()


def test_o5_when_all_circuits_are_open_it_says_so_and_sends_nothing() -> None:
    with circuit_open([reply("one")]) as first, circuit_open([reply("two")]) as second:
        both = Fallback([at(first.url), at(second.url)])

        with pytest.raises(ServiceUnavailableError) as caught:
            asyncio.run(read(both.stream(messages=ASK)))
        assert [cause.code for cause in caught.value.causes] == ["circuit_open", "circuit_open"]
        assert not both.working
        assert (both.health().reason, both.health().asked) == ("server_error", False)
        assert asked([first, second]) == [LEAST_CALLS, LEAST_CALLS]


# Models


class Local(AsyncGeneratorProvider, ProviderModelMixin):
    """A server of one's own."""

    default_model = "llama3"
    models: ClassVar = ["llama3", "qwen3"]
    model_aliases: ClassVar = {"llama": "llama3", "gpt-3.5-turbo": "llama3"}
    given: ClassVar[list[dict[str, Any]]] = []

    @classmethod
    def stream(cls, model: str = "", messages: Messages = (), **options: Any) -> Reply:
        cls.given.append(options)

        async def texts() -> AsyncResult:
            yield "from here"

        return Reply(TextSource(texts()), model=cls.get_model(model))


class AnyId(Local):
    """It has no list, and takes every id."""

    default_model = ""
    models: ClassVar = []
    model_aliases: ClassVar = {}


class Deaf(Local):
    """The same models, and no answer."""

    @classmethod
    def stream(cls, model: str = "", messages: Messages = (), **options: Any) -> Reply:
        async def texts() -> AsyncResult:
            raise InternalServerError("no answer")
            yield ""

        return Reply(TextSource(texts()), model=cls.get_model(model))


@pytest.mark.parametrize(
    ("model", "answers"),
    [("", "gpt-3.5-turbo"), ("gemini", "google-gemini"), ("qwen3", "qwen3"), ("llama", "llama3")],
)
def test_who_has_the_asked_model_is_asked_first(model: str, answers: str) -> None:
    with servers([reply("one")]) as there:
        told = Fallback([at(there[0].url), Local]).stream(model, ASK)

        assert (told.model, asyncio.run(read(told)), told.model) == (
            answers,
            "one" if answers in FlowGpt.models else "from here",
            answers,
        )


def test_whoever_steps_in_answers_with_its_own_model_and_the_reply_says_so() -> None:
    with servers([answer(500)]) as there:
        told = Fallback([at(there[0].url), Local]).stream("gpt-4-turbo", ASK)

        assert told.model == "gpt-4-turbo"
        assert asyncio.run(read(told)) == "from here"
        assert told.model == "llama3"


def test_a_model_that_nobody_has_is_refused_with_the_nearest_of_all() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'qwen33' is in no provider's list; the nearest: qwen3"):
        Fallback([FlowGpt, Local]).stream("qwen33", ASK)


def test_a_model_that_nobody_lists_goes_to_who_takes_any() -> None:
    told = Fallback([FlowGpt, AnyId]).stream("gemma", ASK)

    assert (told.model, asyncio.run(read(told))) == ("gemma", "from here")


def test_the_lists_are_one_list() -> None:
    both = Fallback([FlowGpt, Local])

    assert both.models == both.get_models() == [*FlowGpt.models, "llama3", "qwen3"]
    assert both.model_aliases == {"gemini": "google-gemini", "gemini-pro": "google-gemini", "llama": "llama3"}
    assert (both.models_as_of, Fallback([FlowGpt, FlowGpt]).models_as_of) == ("", FlowGpt.models_as_of)
    assert (both.get_model(), both.default_model) == ("gpt-3.5-turbo", "gpt-3.5-turbo")
    assert [both.get_model(name) for name in ("llama", "gemini")] == ["llama3", "google-gemini"]
    with pytest.raises(ModelNotFoundError):
        both.get_model("nobodys")


# Who is told what


def test_k1_flowgpt_s_key_and_address_go_to_nobody_else() -> None:
    with servers([answer(500)]) as there:
        Local.given.clear()
        told = Fallback([FlowGpt, Local]).stream(
            messages=ASK, api_key=API_KEY, base_url=there[0].url, timeout=5, max_retries=0, safe_retries_only=True
        )

        assert asyncio.run(read(told)) == "from here"
        assert there[0].requests[0].headers["authorization"] == f"Bearer {API_KEY}"
    (given,) = Local.given
    assert given.keys() == {"proxy", "temperature", "timeout", "max_retries", "safe_retries_only"}


@pytest.mark.parametrize("providers", [[], FlowGpt, [FlowGpt, object()], [None]])
def test_what_is_no_list_of_providers_is_refused(providers: Any) -> None:
    with pytest.raises(InvalidRequestError, match="list of providers"):
        Fallback(providers)


# Closing


def test_h1_cancelling_closes_the_connection_and_asks_nobody_else() -> None:
    async def cancel(first: Upstream, second: Upstream) -> None:
        told = Fallback([at(first.url), at(second.url)]).stream(messages=ASK)
        reading = asyncio.create_task(told.read())
        await first.until(lambda: first.requests, "a request")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await first.hung_up()
        assert second.connections == 0

    with servers([HUNG_UP], [reply("two")]) as (first, second):
        asyncio.run(cancel(first, second))


def test_closing_closes_what_is_below() -> None:
    async def close(first: Upstream, second: Upstream) -> None:
        told = Fallback([at(first.url), at(second.url)]).stream(messages=ASK)
        assert (await told.next()) == Batch(["two"])
        told.close()
        await second.hung_up()

    with servers([answer(500)], [CHUNKED, chunk(event("two")), HUNG_UP]) as (first, second):
        asyncio.run(close(first, second))


# The clients


def test_both_clients_say_who_answered() -> None:
    async def both(url: str) -> None:
        async with AsyncClient(provider=Fallback([at(url), Local])) as client:
            whole = await client.chat.completions.create(model="gpt-4-turbo", messages=ASK)
            stream = await client.chat.completions.create(model="gpt-4-turbo", messages=ASK, stream=True)
            chunks = [each async for each in stream]
        assert {whole.model, *(each.model for each in chunks)} == {"llama3"}

    with servers([answer(500)]) as (there,):
        asyncio.run(both(there.url))
        with Client(provider=Fallback([at(there.url), Local])) as client:
            whole = client.chat.completions.create(model="gpt-4-turbo", messages=ASK)
            chunks = [*client.chat.completions.create(model="gpt-4-turbo", messages=ASK, stream=True)]
    assert {whole.model, *(each.model for each in chunks)} == {"llama3"}
    assert whole.choices[0].message.content == "from here"


# Any script of failures

FAILS: dict[str, type[FlowGPTError]] = {"500": InternalServerError, "503": ServiceUnavailableError}


def scripted(name: str, script: str) -> type[AsyncGeneratorProvider]:
    """A provider that plays: "ok" answers, "cut" fails after a text, all else fails before one."""

    async def texts() -> AsyncResult:
        if script in FAILS:
            raise FAILS[script](name)
        yield name
        if script == "cut":
            raise StreamInterruptedError(name)

    class Scripted(AsyncGeneratorProvider):
        @classmethod
        def stream(cls, model: str = "", messages: Messages = (), **options: Any) -> Reply:
            return Reply(TextSource(texts()), model=name)

    return Scripted


@given(st.lists(st.sampled_from(["500", "503", "cut", "ok"]), min_size=1, max_size=6))
def test_the_answer_is_that_of_the_first_that_can(scripts: list[str]) -> None:
    told = Fallback([scripted(str(place), script) for place, script in enumerate(scripts)]).stream(messages=ASK)
    first = next((place for place, script in enumerate(scripts) if script not in FAILS), len(scripts) - 1)

    if scripts[first] == "ok":
        assert (asyncio.run(read(told)), told.model) == (str(first), str(first))
        return
    with pytest.raises(FlowGPTError) as caught:
        asyncio.run(read(told))
    assert [cause.message for cause in caught.value.causes] == [str(place) for place in range(first + 1)]
    assert (caught.value.message, told.model) == (str(first), str(first))
    assert caught.value.partial_text == told.text == (str(first) if scripts[first] == "cut" else "")
