"""Whole programs under `-X dev -W error`: however one ends, it ends quietly, with nothing open behind it."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from flowgpt import AuthenticationError, FlowGpt, StreamInterruptedError
from flowgpt.gateway.app import create_app
from flowgpt.gateway.settings import Settings
from flowgpt.messages import Messages
from flowgpt.providers.base import AsyncGeneratorProvider
from tests.gateway.conftest import Served
from tests.transport.calls import ask, limits
from tests.upstream import CHUNKED, FIN, HUNG_UP, Gate, Script, Upstream, answer, chunk, event, reply

pytestmark = pytest.mark.slow  # each case is a program

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ASKED: Messages = [{"role": "user", "content": "?"}]
OPEN: Script = [CHUNKED + chunk(event("a")) + chunk(event("b")), HUNG_UP]
"""A reply that goes on for ever."""

PROGRAM = """
import asyncio, contextlib, gc, logging, os, sys, threading
from flowgpt import FlowGpt
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing"))
URL = sys.argv[1]
def ask(**options):
    return FlowGpt.create_async_generator("", [{"role": "user", "content": "?"}], base_url=URL, **options)
"""
"""With the loops' debug mode, less its complaint of slow steps: a busy machine is no fault."""

PROGRAMS: dict[str, tuple[str, str]] = {
    "a whole reply": (
        "good",
        """
        async def main():
            assert [text async for text in ask()] == ["x", "y"]
        """,
    ),
    "H3 left early": (
        "open",
        """
        async def main():
            async for text in ask():
                break
        """,
    ),
    "H3 left early, in its context": (
        "open",
        """
        async def main():
            async with FlowGpt.stream("", [{"role": "user", "content": "?"}], base_url=URL) as reply:
                async for text in reply:
                    break
        """,
    ),
    "H4 abandoned, the reference kept": (
        "open",
        """
        kept = []
        async def main():
            kept.append(ask())
            assert await anext(kept[0]) == "a"
        """,
    ),
    "H4 the full form, read from and kept": (
        "open",
        """
        kept = FlowGpt.stream("", [{"role": "user", "content": "?"}], base_url=URL)
        async def main():
            assert (await kept.next()).texts[0] == "a"
        """,
    ),
    "H13 a child goes on with its parent's loop": (
        "good",
        """
        async def main():
            assert [text async for text in ask()] == ["x", "y"]
            child = os.fork()
            if child == 0:
                try:
                    await anext(ask())
                except Exception as error:
                    os._exit(0 if getattr(error, "code", "") == "forked_process" else 1)
                os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert [text async for text in ask()] == ["x", "y"]
        """,
    ),
    "H5 abandoned in a cycle": (
        "open",
        """
        gc.disable()
        async def main():
            class Holder: pass
            holder = Holder()
            holder.itself, holder.reply = holder, ask()
            assert await anext(holder.reply) == "a"
        """,
    ),
    "H6 never begun": (
        "good",
        """
        async def main():
            ask()
            FlowGpt.stream("", [{"role": "user", "content": "?"}], base_url=URL)
        """,
    ),
    "H1 cancelled while it waits for the head": (
        "silent",
        """
        async def main():
            task = asyncio.create_task(anext(ask()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), 0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
        """,
    ),
    "H1 cancelled while it reads": (
        "open",
        """
        async def main():
            reply = ask()
            assert [await anext(reply), await anext(reply)] == ["a", "b"]
            task = asyncio.create_task(anext(reply))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
        """,
    ),
    "H10 ended while tasks read": (
        "open",
        """
        async def all_of_it():
            async for text in ask(): pass
        async def main():
            reply = ask()
            await anext(reply)
            asyncio.tasks_kept = [asyncio.create_task(all_of_it()) for _ in range(5)]
            await asyncio.sleep(0)
        """,
    ),
    "H9 an exception in the consumer": (
        "open",
        """
        async def main():
            try:
                async for text in ask():
                    raise KeyError(text)
            except KeyError as error:
                assert error.args == ("a",) and error.__cause__ is error.__context__ is None
            else:
                raise AssertionError
        """,
    ),
    "H8 the caller's own timeout": (
        "open",
        """
        async def main():
            try:
                async with asyncio.timeout(0.2):
                    async for text in ask(): pass
            except TimeoutError as error:
                assert type(error) is TimeoutError
            else:
                raise AssertionError
            reading = asyncio.Event()
            async def read():
                async for text in ask(): reading.set()
            async def leave():
                await reading.wait()
                raise KeyError("left")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(read())
                    group.create_task(leave())
            except* KeyError as errors:
                assert len(errors.exceptions) == 1
        """,
    ),
    "a cut reply": (
        "cut",
        """
        async def main():
            try:
                async for text in ask(): pass
            except Exception as error:
                assert type(error).__name__ == "StreamInterruptedError", error
                assert error.partial_text == "a"
            else:
                raise AssertionError
        """,
    ),
    "refused": (
        "refusing",
        """
        async def main():
            results = await asyncio.gather(*(anext(ask()) for _ in range(3)), return_exceptions=True)
            assert {type(result).__name__ for result in results} == {"AuthenticationError"}
        """,
    ),
    "H11 two runs, one after the other": (
        "good",
        """
        async def main():
            assert [text async for text in ask()] == ["x", "y"]
        asyncio.run(main())
        """,
    ),
    "H11 two loops at once": (
        "good",
        """
        async def main():
            assert [text async for text in ask()] == ["x", "y"]
            thread = threading.Thread(target=lambda: asyncio.run(one()))
            thread.start()
            await asyncio.to_thread(thread.join)
        async def one():
            assert [text async for text in ask()] == ["x", "y"]
        """,
    ),
    "H12 thirty-two threads": (
        "good",
        """
        results = []
        def sync():
            results.append("".join(
                FlowGpt.create_completion("", [{"role": "user", "content": "?"}], base_url=URL)))
        threads = [threading.Thread(target=sync) for _ in range(32)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert results == ["xy"] * 32
        async def main(): pass
        """,
    ),
    "H13 a fork between two runs": (
        "good",
        """
        async def main():
            assert [text async for text in ask()] == ["x", "y"]
        asyncio.run(main())
        child = os.fork()
        if child == 0:
            asyncio.run(main())
            sys.stderr.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
    ),
    "H13 a fork in the middle of a reply": (
        "good",
        """
        async def main():
            reply = ask()
            assert await anext(reply) == "x"
            child = os.fork()
            if child == 0:
                async def again():
                    assert [text async for text in ask()] == ["x", "y"]
                asyncio.run(again())
                sys.stderr.flush()
                os._exit(0)
            assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
            assert [text async for text in reply] == ["y"]
        """,
    ),
    "H14 the sync form, left early at the end of the program": (
        "open",
        """
        kept = FlowGpt.create_completion("", [{"role": "user", "content": "?"}], base_url=URL)
        assert next(kept) == "a"
        async def main(): pass
        """,
    ),
    "H21 collected in another thread": (
        "open",
        """
        gc.disable()
        async def main():
            class Holder: pass
            holder = Holder()
            holder.itself, holder.reply = holder, ask()
            assert await anext(holder.reply) == "a"
            del holder
            await asyncio.to_thread(gc.collect)
            await asyncio.sleep(0)
        """,
    ),
}
SCRIPTS: dict[str, Any] = {
    "good": [reply("x", "y")],
    "open": OPEN,
    "silent": [HUNG_UP],
    "cut": [CHUNKED + chunk(event("a")), lambda peer: _close(peer)],
    "refusing": [b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"],
}


async def _close(peer: Any) -> None:
    peer.writer.close()


ON_BOTH_LOOPS = ("H10", "H21")


@pytest.mark.parametrize(
    ("name", "loop"),
    [(name, "asyncio") for name in PROGRAMS]
    + [(name, "uvloop") for name in PROGRAMS if name.startswith(ON_BOTH_LOOPS)],  # H19
)
def test_a_program_ends_quietly(name: str, loop: str) -> None:
    """No word on stderr, exit code 0, and the service sees every connection closed."""
    script, body = PROGRAMS[name]
    run = "asyncio.run(main())" if loop == "asyncio" else "import uvloop\nuvloop.run(main())"
    program = f"{PROGRAM}{textwrap.dedent(body)}\n{run}\nkept = None\ngc.collect()"
    with Upstream(SCRIPTS[script]) as upstream:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", program, upstream.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)
        upstream.wait_for(lambda: upstream.open == 0, "all connections closed")


# --- at once, and not at the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["break and drop", "aclose", "del", "a cycle, collected", "cancel", "exception"])
def test_h3_who_leaves_a_reply_hangs_up_at_once(how: str, loop: str) -> None:
    """The service sees the end while the program goes on."""

    async def main(upstream: Upstream) -> None:
        texts = FlowGpt.create_async_generator("", ASKED, base_url=upstream.url)
        if how == "break and drop":
            async for _ in texts:
                break
            del texts
        else:
            assert await anext(texts) == "a"
        if how == "aclose":
            await texts.aclose()
        elif how == "del":
            del texts
        elif how == "a cycle, collected":
            cycle: list[Any] = [texts]
            cycle.append(cycle)
            del texts, cycle
            gc.collect()
        elif how == "exception":
            with pytest.raises(KeyError):
                await texts.athrow(KeyError("mine"))
        elif how == "cancel":
            assert await anext(texts) == "b"
            task = asyncio.ensure_future(anext(texts))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await upstream.hung_up()

    with Upstream(OPEN) as upstream, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main(upstream))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("where", ["here", "in another thread", "in a cycle"])
def test_h5_h21_a_reply_that_is_dropped_after_a_read_hangs_up(where: str, loop: str) -> None:
    async def main(upstream: Upstream) -> None:
        kept = [ask(upstream.url)]
        await kept[0].next()
        if where == "in a cycle":
            kept[0].kept = kept[0]  # type: ignore[attr-defined]
        await asyncio.to_thread(kept.clear) if where == "in another thread" else kept.clear()
        gc.collect()
        await upstream.hung_up()

    with Upstream(OPEN) as upstream, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main(upstream))


def test_a_reply_that_is_over_is_held_by_nobody() -> None:
    """No timer, pool or task keeps what has been read or left."""

    async def main(upstream: Upstream) -> list[object]:
        whole, left = ask(upstream.url, timeout=limits(idle_s=100)), ask(upstream.url, timeout=limits(total_s=100))
        await whole.read()
        await left.next()
        left.close()
        marks = [weakref.ref(whole), weakref.ref(left)]
        del whole, left
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        return [mark() for mark in marks]

    with Upstream([reply("x")]) as upstream:
        assert asyncio.run(main(upstream)) == [None, None]


@pytest.mark.parametrize("loop", LOOPS)
def test_h8_a_timeout_around_one_step_is_the_callers(loop: str) -> None:
    """PEP 789: nothing of ours yields inside a scope, so the caller's scope stays whole across the texts."""

    async def main(upstream: Upstream) -> list[str]:
        seen: list[str] = []
        texts = FlowGpt.create_async_generator("", ASKED, base_url=upstream.url)
        raised: BaseException | None = None
        try:
            async with asyncio.timeout(None) as scope:
                async for text in texts:
                    seen.append(text)
                    if text == "b":
                        scope.reschedule(0)
        except BaseException as error:
            raised = error
        assert type(raised) is TimeoutError
        assert scope.expired()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await upstream.hung_up()
        return seen

    with Upstream(OPEN) as upstream, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(main(upstream)) == ["a", "b"]


# --- used wrongly, and from within ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_h7_a_generator_that_is_used_wrongly_says_so_and_goes_on(loop: str) -> None:
    """What Python's own generators say: `create_async_generator` gives one."""
    gate = Gate()

    async def main(upstream: Upstream) -> list[str]:
        texts = FlowGpt.create_async_generator("", ASKED, base_url=upstream.url)
        with pytest.raises(TypeError, match="just-started"):
            await texts.asend("too early")  # type: ignore[arg-type]
        seen = [await anext(texts), await texts.asend("ignored")]  # type: ignore[arg-type]
        first = asyncio.ensure_future(anext(texts))
        await gate.reached()
        for second in (anext(texts), texts.aclose(), texts.athrow(KeyError)):
            with pytest.raises(RuntimeError, match="already running"):
                await second
        gate.open()
        seen.append(await first)
        await texts.aclose()
        await texts.aclose()
        assert [text async for text in texts] == []
        await upstream.hung_up()
        return seen

    script: Script = [CHUNKED + chunk(event("a")) + chunk(event("b")), gate, chunk(event("c")), HUNG_UP]
    with Upstream(script) as upstream, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(main(upstream)) == ["a", "b", "c"]


def test_h7_a_generator_that_failed_is_at_its_end() -> None:
    async def main(upstream: Upstream) -> list[str]:
        texts = FlowGpt.create_async_generator("", ASKED, base_url=upstream.url)
        with pytest.raises(StreamInterruptedError):
            assert [text async for text in texts]
        return [text async for text in texts]

    with Upstream([CHUNKED + chunk(event("a")), FIN]) as upstream:
        assert asyncio.run(main(upstream)) == []


class Handler(logging.Handler):
    """Does `act` at each record, and lets its fault out."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.calls = 0
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        self._act()


@pytest.fixture
def handled() -> Iterator[Callable[[Callable[[], object]], Handler]]:
    """Adds a handler to the package's logger."""
    log = logging.getLogger("flowgpt")
    added: list[Handler] = []

    def add(act: Callable[[], object]) -> Handler:
        added.append(Handler(act))
        log.addHandler(added[-1])
        return added[-1]

    yield add
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("how", ["raises", "logs", "asks"])
def test_h20_a_handler_that_raises_or_calls_back_is_no_fault_of_the_reply(
    how: str, handled: Callable[[Callable[[], object]], Handler]
) -> None:
    def act() -> object:
        if how == "asks":
            return list(FlowGpt.create_completion("", ASKED, base_url=upstream.url))
        if how == "logs":
            logging.getLogger("flowgpt.transport").debug("again")  # and so again, without end
        raise OSError("disk full")

    with Upstream([answer("401 No", b"no")], [reply("good")]) as upstream:
        handler = handled(act)
        with pytest.raises(AuthenticationError) as refused:
            asyncio.run(FlowGpt.create_async("", ASKED, base_url=upstream.url))
        assert refused.value.__context__ is None
        assert asyncio.run(FlowGpt.create_async("", ASKED, base_url=upstream.url)) == "good"
        assert handler.calls >= 1


def test_h20_a_handler_that_raises_is_no_fault_of_the_gateway(
    handled: Callable[[Callable[[], object]], Handler],
) -> None:
    class Faulty(AsyncGeneratorProvider):
        @classmethod
        async def create_async_generator(cls, model, messages, *_, **options):  # type: ignore[no-untyped-def,override]
            if messages[-1]["content"] == "fail":
                raise ValueError
            yield "good"

    def act() -> None:
        raise OSError("disk full")

    handler = handled(act)
    with Served(lambda: create_app(Faulty, settings=Settings())) as gateway:
        assert [gateway.chat("fail").status, gateway.chat("answer").status] == [500, 200]
    assert handler.calls >= 3  # one word of the fault, and one for each request
