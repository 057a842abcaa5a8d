"""A reply: its texts, events, verdict and figures; who may read it, and what closing means. On a real connection."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowgpt import FlowGpt, InvalidRequestError, ProtocolError, StreamInterruptedError
from flowgpt.messages import Event, Message
from flowgpt.reply import Reply, TextSource
from tests.upstream import CHUNKED, FIN, HUNG_UP, LAST, Gate, Script, Upstream, answer, chunk, event, head, reply

ASK: list[Message] = [{"role": "user", "content": "?"}]
TITLED: Script = [CHUNKED, chunk(event("a") + event("t", name="title") + event("b")), LAST]
CUT: Script = [CHUNKED, chunk(event("a") + event("b") + b'{"event":"te'), FIN]


def asked(upstream: Upstream, **options: Any) -> Reply:
    return FlowGpt.stream(messages=ASK, base_url=upstream.url, **options)


def test_the_full_form_gives_the_texts_and_then_the_facts() -> None:
    async def ask(upstream: Upstream) -> None:
        async with asked(upstream, model="gemini") as answered:
            assert (answered.text, answered.verdict, answered.attempts) == ("", None, 0)
            assert repr(answered) == "<Reply from google-gemini, open, 0 characters>"
            assert (answered.timings.first_text_s, answered.timings.total_s) == (None, None)
            assert [text async for text in answered] == ["Hel", "lo"]
        assert (answered.text, answered.verdict, answered.attempts) == ("Hello", "complete", 1)
        assert repr(answered) == "<Reply from google-gemini, complete, 5 characters>"
        assert answered.timings.first_text_s is not None
        assert answered.timings.total_s is not None
        assert 0 < answered.timings.first_text_s <= answered.timings.total_s
        assert await answered.next() is None
        assert await answered.read() == "Hello"

    with Upstream([reply("Hel", "lo")]) as upstream:
        asyncio.run(ask(upstream))
        assert len(upstream.requests) == 1


def test_h6_nothing_is_sent_before_the_first_read() -> None:
    async def ask(upstream: Upstream) -> None:
        asked(upstream)
        async with asked(upstream):
            pass
        FlowGpt.create_async_generator(messages=ASK, base_url=upstream.url)

    with Upstream() as upstream:
        asyncio.run(ask(upstream))
        gc.collect()
        assert upstream.connections == 0


def test_e1_other_events_come_in_their_place_for_those_who_ask_and_are_counted_for_all() -> None:
    async def ask(upstream: Upstream) -> None:
        first, second = asked(upstream), asked(upstream)
        assert [got async for got in first.events()] == [Event("text", "a"), Event("title", "t"), Event("text", "b")]
        assert [text async for text in second] == ["a", "b"]
        assert first.text == second.text == "ab"
        assert first.skipped_events == second.skipped_events == {"'title'": 1}

    with Upstream(TITLED) as upstream:
        asyncio.run(ask(upstream))


def test_a_cut_reply_keeps_its_text_and_says_truncated_however_it_is_read() -> None:
    async def ask(upstream: Upstream) -> None:
        answered = asked(upstream)
        with pytest.raises(StreamInterruptedError) as cut:
            [text async for text in answered]
        assert (cut.value.partial_text, cut.value.tail, cut.value.attempts) == ("ab", b'{"event":"te', 1)
        assert (answered.text, answered.verdict) == ("ab", "truncated")
        with pytest.raises(StreamInterruptedError) as again:
            await answered.next()
        assert again.value is cut.value

        with pytest.raises(StreamInterruptedError):
            await asked(upstream).read()
        with pytest.raises(StreamInterruptedError):
            [event async for event in asked(upstream).events()]

    with Upstream(CUT) as upstream:
        asyncio.run(ask(upstream))


def test_the_texts_before_a_cut_are_delivered_first() -> None:
    async def ask(upstream: Upstream) -> None:
        texts = aiter(asked(upstream))
        assert [await anext(texts), await anext(texts)] == ["a", "b"]
        with pytest.raises(StreamInterruptedError):
            await anext(texts)

    with Upstream(CUT) as upstream:
        asyncio.run(ask(upstream))


def test_c8_an_end_that_nothing_proves_is_unverified() -> None:
    with Upstream([head("200 OK", "Connection: close"), event("a"), FIN]) as upstream:
        answered = asked(upstream)
        assert asyncio.run(answered.read()) == "a"

    assert answered.verdict == "unverified"


def test_e11_a_proper_end_without_a_text_is_no_success() -> None:
    with Upstream([CHUNKED, LAST]) as upstream:
        answered = asked(upstream, max_retries=0)
        with pytest.raises(ProtocolError) as empty:
            asyncio.run(answered.read())

    assert empty.value.code == "empty_reply"
    assert answered.verdict == "truncated"


def test_attempts_are_counted() -> None:
    async def ask(upstream: Upstream) -> None:
        answered = asked(upstream)
        assert await answered.read() == "a"
        assert answered.attempts == 2

    with Upstream([answer(503, b"", "Retry-After: 0.001")], [reply("a")]) as upstream:
        asyncio.run(ask(upstream))


def test_h7_a_second_task_may_not_read_the_same_reply() -> None:
    gate = Gate()

    async def ask(upstream: Upstream) -> None:
        answered = asked(upstream)
        reader = asyncio.create_task(answered.read())
        await gate.reached()
        with pytest.raises(InvalidRequestError, match="already being read by another task"):
            await answered.next()
        gate.open()
        assert await reader == "a"

    with Upstream([gate, reply("a")]) as upstream:
        asyncio.run(ask(upstream))


def test_h3_leaving_the_with_block_closes_the_connection_and_ends_the_reading() -> None:
    async def ask(upstream: Upstream) -> None:
        async with asked(upstream) as answered:
            async for text in answered:
                assert text == "a"
                break
        await upstream.hung_up()
        assert repr(answered) == "<Reply from gpt-3.5-turbo, left early, 1 characters>"
        with pytest.raises(InvalidRequestError) as closed:
            await answered.read()
        assert closed.value.code == "client_closed"
        await answered.aclose()

    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        asyncio.run(ask(upstream))


def test_h1_a_cancelled_read_closes_the_connection_and_stays_a_cancellation() -> None:
    gate = Gate()

    async def ask(upstream: Upstream) -> None:
        answered = asked(upstream)
        reader = asyncio.create_task(answered.read())
        await gate.reached()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        gate.open()
        await upstream.hung_up()
        with pytest.raises(InvalidRequestError, match="closed before its end"):
            await answered.read()

    with Upstream([CHUNKED, chunk(event("a")), gate, HUNG_UP]) as upstream:
        asyncio.run(ask(upstream))


# A stranger's texts


async def strange(*texts: str, ended: list[bool] | None = None) -> AsyncIterator[str]:
    try:
        for text in texts:
            yield text
    finally:
        if ended is not None:
            ended.append(True)


def test_a_strangers_texts_are_a_reply() -> None:
    answered = Reply(TextSource(strange("Hel", "lo")), model="m")

    assert asyncio.run(answered.read()) == "Hello"
    assert (answered.verdict, answered.attempts, answered.skipped_events) == ("complete", 1, {})


def test_a_strangers_generator_is_closed_when_its_reply_is() -> None:
    ended: list[bool] = []

    async def ask() -> None:
        answered = Reply(TextSource(strange("a", "b", ended=ended)), model="m")
        await answered.next()
        answered.close()
        async with asyncio.timeout(10):
            while not ended:
                await asyncio.sleep(0)

    asyncio.run(ask())

    assert ended == [True]


def test_a_strangers_exception_is_its_own() -> None:
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ZeroDivisionError

    answered = Reply(TextSource(broken()), model="m")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(answered.read())

    assert answered.text == "a"
