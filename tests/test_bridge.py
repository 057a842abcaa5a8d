"""Sync over async: order, early leaving, threads, forks, signals, and an interpreter that ends in the middle."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest

from flowgpt import FlowGpt, FlowGPTError, InvalidRequestError, StreamInterruptedError, bridge
from flowgpt.bridge import AHEAD, Batches
from flowgpt.messages import Batch, Message
from flowgpt.providers.base import AsyncGeneratorProvider
from flowgpt.reply import Reply, TextSource
from tests.upstream import BOUND_S, CHUNKED, FIN, HUNG_UP, Gate, Upstream, chunk, endless, event, reply

ASK: list[Message] = [{"role": "user", "content": "?"}]


def asked(upstream: Upstream, **options: Any) -> Iterator[str]:
    return FlowGpt.create_completion(messages=ASK, base_url=upstream.url, **options)


def batches(texts: AsyncIterator[str]) -> Batches:
    return Batches(Reply(TextSource(texts), model="m"))


def in_loop_thread(call: Callable[[], Any]) -> None:
    """Do it in the loop thread, and wait until it is done."""
    done = threading.Event()
    bridge._thread().soon(call)
    bridge._thread().soon(done.set)
    assert done.wait(BOUND_S)


async def forever() -> AsyncIterator[str]:
    yield "first"
    await asyncio.Event().wait()


def test_the_texts_come_in_order_one_for_each_event() -> None:
    texts = [f"text {number} " for number in range(500)]

    with Upstream([reply(*texts)]) as upstream:
        assert list(asked(upstream)) == texts


def test_it_works_inside_a_running_event_loop() -> None:
    async def notebook(upstream: Upstream) -> list[str]:
        return list(asked(upstream))

    with Upstream([reply("a", "b")]) as upstream:
        assert asyncio.run(notebook(upstream)) == ["a", "b"]


def test_h6_nothing_is_sent_before_the_first_text_is_asked_for() -> None:
    with Upstream([reply("a")]) as upstream:
        asked(upstream)
        reading = Batches(FlowGpt.stream(messages=ASK, base_url=upstream.url))
        reading.close()

        with pytest.raises(InvalidRequestError, match="closed before its end"):
            next(reading)
        assert upstream.connections == 0


def test_h3_leaving_early_closes_the_connection_at_once() -> None:
    """The loop variable is gone at the break; no collection is needed."""
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        for text in asked(upstream):
            assert text == "a"
            break

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_leaving_early_closes_the_connection_also_when_more_was_read_ahead() -> None:
    with Upstream([CHUNKED, endless(chunk(event("a")))]) as upstream:
        texts = asked(upstream)
        assert next(texts) == "a"
        in_loop_thread(lambda: None)

        del texts

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


@pytest.mark.parametrize("form", [Batches, bridge.texts])
def test_closing_waits_until_the_task_has_ended(form: Callable[[Reply], Any]) -> None:
    ended = []

    async def texts() -> AsyncIterator[str]:
        try:
            async for text in forever():
                yield text
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    reading = form(Reply(TextSource(texts()), model="m"))
    next(reading)

    reading.close()

    assert ended == [True]


def test_closing_closes_a_source_that_waits_to_be_read_on() -> None:
    closed = []

    class Source:
        """Always has the next batch."""

        attempts, verified = 1, True
        skipped_events: Mapping[str, int] = MappingProxyType({})

        async def next(self) -> Batch | None:
            return Batch(["a"])

        def close(self) -> None:
            closed.append(True)

    reading = Batches(Reply(Source(), model="m"))
    next(reading)
    assert closed == []

    reading.close()

    assert closed


def test_h9_an_exception_of_the_consumer_is_its_own_and_closes_the_connection() -> None:
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        with pytest.raises(ZeroDivisionError):
            assert [1 / 0 for _ in asked(upstream)]

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_a_cut_is_raised_after_all_texts_that_came() -> None:
    with Upstream([CHUNKED, chunk(event("a") + event("b")), FIN]) as upstream:
        read: list[str] = []
        with pytest.raises(StreamInterruptedError) as cut:
            read.extend(asked(upstream))

    assert read == ["a", "b"]
    assert cut.value.partial_text == "ab"


def test_the_end_and_a_failure_are_told_again() -> None:
    async def texts(error: bool) -> AsyncIterator[str]:
        yield "a"
        if error:
            raise FlowGPTError("no more")

    good, bad = batches(texts(False)), batches(texts(True))

    assert [batch.texts for batch in good] == [["a"]]
    assert list(good) == []
    assert next(bad).texts == ["a"]
    for _ in range(2):
        with pytest.raises(FlowGPTError, match="no more"):
            next(bad)


def test_h15_only_so_many_batches_are_read_ahead() -> None:
    """A reader that stops stops the source, once AHEAD batches wait."""
    made = []

    async def texts() -> AsyncIterator[str]:
        for number in range(1000):
            made.append(number)
            yield str(number)

    async def turns() -> AsyncIterator[str]:
        for number in range(100):
            await asyncio.sleep(0)
            yield str(number)

    reading = batches(texts())
    next(reading)
    assert len(list(batches(turns()))) == 100  # the loop has turned that often meanwhile
    assert len(made) == AHEAD
    next(reading)
    assert len(list(batches(turns()))) == 100
    assert len(made) == AHEAD + 1

    assert [batch.texts[0] for batch in reading] == [str(number) for number in range(2, 1000)]


def test_the_source_sees_the_context_of_its_caller() -> None:
    var = contextvars.ContextVar("var", default="default")

    async def texts() -> AsyncIterator[str]:
        yield var.get()
        yield var.get()

    var.set("caller")

    assert [batch.texts for batch in batches(texts())] == [["caller"], ["caller"]]


# Threads


def test_h12_32_threads_read_at_once_and_each_gets_its_own() -> None:
    together = threading.Barrier(32)

    class Echo(AsyncGeneratorProvider):
        @classmethod
        async def create_async_generator(cls, model, messages, *_, **options):  # type: ignore[no-untyped-def,override]
            for number in range(20):
                yield f"{model} {number}"
                await asyncio.sleep(0)

    def ask(model: str) -> list[str]:
        texts = Echo.create_completion(model, ASK)
        first = next(texts)
        together.wait(BOUND_S)  # all are in the middle
        return [first, *texts]

    with ThreadPoolExecutor(32) as pool:
        got = list(pool.map(ask, [f"m{number}" for number in range(32)]))

    assert got == [[f"m{model} {number}" for number in range(20)] for model in range(32)]


def test_h7_a_second_thread_may_not_read_the_same_reply() -> None:
    begun = threading.Event()

    async def texts() -> AsyncIterator[str]:
        begun.set()
        await asyncio.Event().wait()
        yield "never"

    reading = batches(texts())
    seen: list[BaseException] = []

    def read() -> None:
        try:
            next(reading)
        except FlowGPTError as error:
            seen.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(BOUND_S)
    with pytest.raises(InvalidRequestError, match="already being read by another thread"):
        next(reading)
    reading.close()
    thread.join(BOUND_S)

    assert [error.code for error in seen if isinstance(error, FlowGPTError)] == ["client_closed"]


def test_closing_from_another_thread_wakes_the_reader() -> None:
    gate = Gate()
    with Upstream([gate]) as upstream, ThreadPoolExecutor(1) as pool:
        reading = Batches(FlowGpt.stream(messages=ASK, base_url=upstream.url))
        reader = pool.submit(next, reading)
        asyncio.run(gate.reached())

        reading.close()

        error = reader.exception(BOUND_S)
        assert isinstance(error, InvalidRequestError)
        assert error.code == "client_closed"
        gate.open()
        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_h21_a_reply_dropped_in_the_loop_thread_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "LIMIT_CLOSE_S", 10 * BOUND_S)
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        held = [asked(upstream)]
        assert next(held[0]) == "a"

        in_loop_thread(held.clear)

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_h21_a_reply_in_a_cycle_is_closed_by_a_collection_in_a_foreign_thread() -> None:
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        reading = Batches(FlowGpt.stream(messages=ASK, base_url=upstream.url))
        assert next(reading).texts == ["a"]
        cycle: list[Any] = [reading]
        cycle.append(cycle)
        gc.disable()
        try:
            del reading, cycle
            thread = threading.Thread(target=gc.collect)
            thread.start()
            thread.join(BOUND_S)
        finally:
            gc.enable()

        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_a_sync_call_inside_of_the_loop_thread_is_refused() -> None:
    """A provider that asks another one in the sync way, when it is asked in the sync way itself."""

    async def texts() -> AsyncIterator[str]:
        for batch in batches(forever()):
            yield batch.texts[0]

    with pytest.raises(InvalidRequestError, match="would wait for itself") as refused:
        next(batches(texts()))
    assert refused.value.code == "wrong_loop"


def test_a_source_that_exits_ends_its_own_reader_and_no_other() -> None:
    async def fatal() -> AsyncIterator[str]:
        yield "a"
        raise SystemExit(3)

    async def texts() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    dying, other = batches(fatal()), batches(texts())
    assert next(dying).texts == next(other).texts == ["a"]

    with pytest.raises(SystemExit):
        next(dying)

    assert [batch.texts for batch in other] == [["b"]]


def test_a_call_after_the_loop_thread_was_stopped_gets_a_new_one() -> None:
    """As one does that is made in an exit handler of the caller's, which ran after ours."""
    bridge._thread().stop()

    assert next(batches(forever())).texts == ["first"]


def test_a_loop_thread_can_be_stopped_as_soon_as_it_exists() -> None:
    for _ in range(20):
        thread = bridge._Thread()
        thread.stop()
        thread.stop()

        assert not thread.thread.is_alive()
        assert thread.loop.is_closed()


# Signals, forks, exits


def test_j10_ctrl_c_in_the_reader_closes_the_connection() -> None:
    """In the middle of a reply, and the reader's exception is the KeyboardInterrupt."""
    gate = Gate()

    def interrupt() -> None:
        asyncio.run(gate.reached())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Upstream([CHUNKED, chunk(event("a")), gate, HUNG_UP]) as upstream:
            reading = Batches(FlowGpt.stream(messages=ASK, base_url=upstream.url))
            assert next(reading).texts == ["a"]
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                next(reading)
            thread.join(BOUND_S)
            gate.open()
            upstream.wait_for(lambda: upstream.closed, "the connection to be closed")
    finally:
        signal.signal(signal.SIGINT, before)


PATIENCE = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
"""
"""The loops' debug mode complains of slow steps: a busy machine is no fault."""


def run(script: str, upstream: Upstream) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter that takes every warning for an error."""
    strict = ["-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]  # 3.12 on fork with threads
    head = f"{PATIENCE}from flowgpt import Client, FlowGpt\nURL, ASK = {upstream.url!r}, {ASK!r}\n"
    return subprocess.run(
        [sys.executable, *strict, "-c", head + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env=dict(os.environ),
    )


H14 = {
    "with an open iterator": "texts = FlowGpt.create_completion(messages=ASK, base_url=URL)\nprint(next(texts))",
    "with an open stream": """
        client = Client(base_url=URL)
        stream = client.chat.completions.create(messages=ASK, stream=True)
        print(next(stream).choices[0].delta.content)
        """,
    "with a reader in a daemon thread": """
        import threading
        texts, first = FlowGpt.create_completion(messages=ASK, base_url=URL), threading.Event()
        def read():
            for text in texts:
                print(text, flush=True)
                first.set()
        threading.Thread(target=read, daemon=True).start()
        first.wait()
        """,
    "after an open iterator was left": """
        for text in FlowGpt.create_completion(messages=ASK, base_url=URL):
            print(text)
            break
        """,
}


@pytest.mark.parametrize("script", H14.values(), ids=H14)
def test_h14_the_interpreter_ends_without_a_word(script: str) -> None:
    with Upstream([CHUNKED, chunk(event("a")), HUNG_UP]) as upstream:
        ended = run(script, upstream)

        assert (ended.stdout, ended.stderr, ended.returncode) == ("a\n", "", 0)
        upstream.wait_for(lambda: upstream.closed, "the connection to be closed")


def test_h14_an_open_source_is_ended_in_order_when_the_interpreter_ends() -> None:
    with Upstream() as upstream:
        ended = run(
            """
            from flowgpt.providers.base import AsyncGeneratorProvider
            class Tidy(AsyncGeneratorProvider):
                @classmethod
                async def create_async_generator(cls, *args, **options):
                    try:
                        while True:
                            yield "a"
                    finally:
                        print("ended")
            texts = Tidy.create_completion()
            print(next(texts))
            """,
            upstream,
        )

    assert (ended.stdout, ended.stderr, ended.returncode) == ("a\nended\n", "", 0)


def test_h14_a_source_that_refuses_to_end_does_not_hold_the_interpreter() -> None:
    with Upstream() as upstream:
        ended = run(
            """
            import threading
            from flowgpt.providers.base import AsyncGeneratorProvider
            class Deaf(AsyncGeneratorProvider):
                @classmethod
                async def create_async_generator(cls, *args, **options):
                    yield "a"
                    threading.Event().wait()  # blocks the loop itself
            texts = Deaf.create_completion()
            print(next(texts))
            """,
            upstream,
        )

    assert (ended.stdout, ended.returncode) == ("a\n", 0)


def test_h13_a_forked_child_gets_a_loop_of_its_own_and_the_parents_stream_goes_on() -> None:
    gate = Gate()
    with Upstream([CHUNKED, chunk(event("a")), gate, chunk(event("b")), b"0\r\n\r\n"], [reply("child")]) as upstream:
        script = """
            import os
            from flowgpt import FlowGPTError, bridge
            reading = bridge.Batches(FlowGpt.stream(messages=ASK, base_url=URL))
            print(next(reading).texts, flush=True)
            bridge._lock.acquire()  # as another thread might, at that moment
            child = os.fork()
            if child == 0:
                try:
                    next(reading)
                except FlowGPTError as error:
                    print(error.code, flush=True)
                reading.close()
                print(list(FlowGpt.create_completion(messages=ASK, base_url=URL)), flush=True)
                del reading
                os._exit(0)
            bridge._lock.release()
            print(os.waitpid(child, 0)[1], flush=True)
            print([batch.texts for batch in reading])
            """
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, script, upstream)
            upstream.wait_for(lambda: len(upstream.requests) == 2, "the child's request")
            gate.open()
            ended = running.result(30)

    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout.splitlines() == ["['a']", "forked_process", "['child']", "0", "[['b']]"]
