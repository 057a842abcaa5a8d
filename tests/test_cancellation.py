"""Cancelled at every await, once, twice and by a signal, in every form of a call: nothing is left, and the next works.

Ways to leave a reply other than these are in test_lifecycle.py.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from flowgpt import AsyncClient, FlowGpt, FlowGPTError, RateLimitError, ServiceUnavailableError
from flowgpt.config import Options
from flowgpt.embedded import Server
from flowgpt.gateway.app import create_app
from flowgpt.gateway.exchange import HEARTBEAT, Exchange
from flowgpt.gateway.settings import Settings
from flowgpt.gateway.visit import Visit
from flowgpt.limits.breaker import LEAST_CALLS, LIMIT_OPEN_S
from flowgpt.messages import Message
from flowgpt.providers.fallback import Fallback
from flowgpt.reply import Reply
from flowgpt.transport import health, load
from flowgpt.transport.pool import current_pool
from tests.gateway.conftest import Served, post
from tests.stepper import Stepper, When
from tests.transport.calls import limits
from tests.upstream import BOUND_S, CHUNKED, FIN, HUNG_UP, LAST, Script, Upstream, answer, chunk, event, head, reply

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ASK: list[Message] = [{"role": "user", "content": "?"}]

Say = Callable[[bytes], Any]
Form = Callable[..., Coroutine[Any, Any, str]]


def whole(say: Say) -> Script:
    """A good reply, piece by piece."""
    return [say(piece) for piece in (CHUNKED, chunk(event("a")), chunk(event("b")), LAST)]


# --- what may be cancelled ------------------------------------------------------------------------------------------


async def _generator(url: str, **options: Any) -> str:
    return "".join([text async for text in FlowGpt.create_async_generator("", ASK, base_url=url, **options)])


async def _joined(url: str, **options: Any) -> str:
    return await FlowGpt.create_async("", ASK, base_url=url, **options)


async def _full(url: str, **options: Any) -> str:
    async with FlowGpt.stream("", ASK, base_url=url, **options) as reply:
        return "".join([event.data async for event in reply.events()])


KEPT: list[Reply] = []


async def _full_kept(url: str, **options: Any) -> str:
    """Its caller holds on to it: no reference that goes closes anything."""
    KEPT[:] = [FlowGpt.stream("", ASK, base_url=url, **options)]
    return await KEPT[0].read()


async def _fallback(url: str, **options: Any) -> str:
    """The first provider is asked once, the second one answers."""
    options["max_retries"] = 0
    return await Fallback([FlowGpt, FlowGpt]).stream("", ASK, base_url=url, **options).read()


async def _client_stream(url: str, **options: Any) -> str:
    async with AsyncClient(base_url=url, **options) as client:
        stream = await client.chat.completions.create(messages=ASK, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def _client_whole(url: str, **options: Any) -> str:
    completion = await AsyncClient(base_url=url, **options).chat.completions.create(messages=ASK)
    return completion.choices[0].message.content or ""


FORMS: dict[str, Form] = {
    "create_async_generator": _generator,
    "create_async": _joined,
    "stream": _full,
    "stream, kept": _full_kept,
    "Fallback": _fallback,
    "AsyncClient, stream": _client_stream,
    "AsyncClient, whole": _client_whole,
}


# --- where it may be ------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """The monotonic clock of the endpoints' health; every long sleep of the transport is passed over."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, genuine = Clock(), asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        clock.ahead_s += seconds
        return await genuine(min(seconds, 0.0005), result)  # a timer all the same: it is there to be cancelled

    monkeypatch.setattr(health, "monotonic", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock


Begin = Callable[[str, dict[str, Any], Clock], Awaitable[Reply | None]]
"""Done before the call, with its address and options; the reply is closed when the call is over."""


async def _nothing(url: str, options: dict[str, Any], clock: Clock) -> None: ...


async def _pause(url: str, options: dict[str, Any], clock: Clock) -> None:
    _endpoint(url).note(RateLimitError("slowly", status_code=429, retry_after_s=100))


async def _open_circuit(url: str, options: dict[str, Any], clock: Clock) -> None:
    for _ in range(LEAST_CALLS):
        _endpoint(url).note(ServiceUnavailableError("down", code="service_unavailable"))
    assert not _endpoint(url).health().working
    clock.ahead_s += LIMIT_OPEN_S


async def _fill_pool(url: str, options: dict[str, Any], clock: Clock) -> Reply:
    held = FlowGpt.stream("", ASK, base_url=url, **options)
    assert await held.next() is not None
    return held


def _endpoint(url: str) -> health.Endpoint:
    return health.endpoint(Options.resolve(base_url=url))


@dataclass(frozen=True)
class Scene:
    """`scripts`: made of the stepper's `say`. `ends`: the text of a call that is left alone, or its error's code."""

    scripts: Callable[[Say], Sequence[Script]]
    ends: str = "ab"
    begin: Begin = _nothing
    max_retries: int = 0
    max_connections: int = 10


SCENES = {
    "name, connect, head, body": Scene(lambda say: [whole(say)]),
    "backoff, retry": Scene(lambda say: [[say(answer(503, b"busy", "Retry-After: 100"))], whole(say)], max_retries=1),
    "shared pause": Scene(lambda say: [whole(say)], begin=_pause),
    "probe": Scene(lambda say: [whole(say)], begin=_open_circuit),
    "full pool": Scene(
        lambda say: [[CHUNKED, say(chunk(event("held"))), say(LAST)], whole(say)], begin=_fill_pool, max_connections=1
    ),
    "failure in band": Scene(
        lambda say: [[say(CHUNKED), say(chunk(event("a"))), say(chunk(b'{"event": 1}\n\n')), HUNG_UP]], "bad_event"
    ),
    "cut": Scene(lambda say: [[say(CHUNKED), say(chunk(event("a"))), say(b""), FIN]], "stream_truncated"),
    "body of an error": Scene(
        lambda say: [[say(head("500 Oh", "Content-Length: 4")), say(b"o"), say(b"h"), say(b"no")]], "server_error"
    ),
}


# --- how ------------------------------------------------------------------------------------------------------------


async def settled() -> None:
    """Until the other tasks of this loop have ended: nothing stops a look-up of a name."""
    async with asyncio.timeout(BOUND_S):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


def descriptors() -> set[str]:
    """The open ones."""
    return set(os.listdir("/proc/self/fd"))


class Trial:
    """Calls that are each left at another await."""

    loop = "asyncio"

    def scripts(self, say: Say) -> Sequence[Script]:
        """What the service does, piece by piece."""
        raise NotImplementedError

    async def leave(self, url: str, stepper: Stepper) -> None:
        """Make the call with the stepper, and judge its end."""
        raise NotImplementedError

    async def go_on(self, url: str) -> None:
        """Make a call that must work, and look for what the first may have kept."""
        raise NotImplementedError

    def act(self, task: asyncio.Task[Any]) -> None:
        """Leave."""
        task.cancel()

    def run(self, at: int, when: When = "before") -> bool:
        """Leave one at its await number `at`, and look at what is left. Whether there was such an await."""
        before, faults = descriptors(), list[dict[str, Any]]()
        stepper = Stepper(at, self.act, when)
        with Upstream(*self.scripts(stepper.say)) as upstream:
            url = upstream.url.replace("127.0.0.1", "localhost")
            try:
                with asyncio.Runner(loop_factory=LOOPS[self.loop]) as runner:
                    runner.get_loop().set_exception_handler(lambda _loop, facts: faults.append(facts))
                    runner.run(self._leave(url, upstream, stepper))
            except (KeyboardInterrupt, SystemExit):
                upstream.scripts = ([reply("good")],)
                with asyncio.Runner(loop_factory=LOOPS[self.loop]) as runner:
                    runner.run(self.go_on(url))
            upstream.wait_for(lambda: upstream.open == 0, "all connections closed")
        assert descriptors() == before
        assert faults == []
        return stepper.count >= at

    async def _leave(self, url: str, upstream: Upstream, stepper: Stepper) -> None:
        await self.leave(url, stepper)
        await settled()
        upstream.scripts = ([reply("good")],)
        await self.go_on(url)
        pool = await current_pool(1)
        assert repr(pool).startswith("<Pool 0 busy, limit=")
        connector = pool.session(None).connector
        assert connector is not None
        idle = sum(map(len, connector._conns.values()))
        await upstream.until(lambda: upstream.open == idle, "all but the idle connections to be closed")

    def at_every_await(self, when: When = "before") -> None:
        """From the first one to the last."""
        assert not self.run(10_000)
        last = next(at for at in itertools.count(1) if not self.run(at, when))
        assert last > 5


@dataclass
class LibraryTrial(Trial):
    """`fatal`: raised in a callback of the loop, instead of cancelling."""

    scene: Scene
    form: Form
    clock: Clock
    loop: str = "asyncio"
    fatal: type[BaseException] | None = None

    def scripts(self, say: Say) -> Sequence[Script]:
        return self.scene.scripts(say)

    def act(self, task: asyncio.Task[Any]) -> None:
        if self.fatal is None:
            task.cancel()
        else:
            task.get_loop().call_soon(_raise, self.fatal)

    async def leave(self, url: str, stepper: Stepper) -> None:
        held = await self.scene.begin(url, self._options, self.clock)
        task = await stepper.run(self.form(url, **self._options))
        if held is not None:
            held.close()
        if stepper.acted:
            assert task.cancelled()
        else:
            assert _end(task) == self.scene.ends

    async def go_on(self, url: str) -> None:
        assert await FlowGpt.create_async("", ASK, base_url=url, **self._options) == "good"
        assert _endpoint(url).health().working

    @property
    def _options(self) -> dict[str, Any]:
        scene = self.scene
        return {"timeout": limits(), "max_retries": scene.max_retries, "max_connections": scene.max_connections}


def _raise(fatal: type[BaseException]) -> None:
    raise fatal


def _end(task: asyncio.Task[str]) -> str:
    try:
        return task.result()
    except FlowGPTError as error:
        return error.code


@dataclass
class GatewayTrial(Trial):
    """`asked`: what is asked for, over `ASK`. `leaves`: the client does, and else the server cancels the request."""

    asked: dict[str, Any]
    leaves: bool
    loop: str = "asyncio"
    scene: Scene = field(default_factory=lambda: SCENES["name, connect, head, body"])
    settings: Settings = field(default_factory=Settings)

    def scripts(self, say: Say) -> Sequence[Script]:
        return self.scene.scripts(say)

    def act(self, task: asyncio.Task[Any]) -> None:
        if self.leaves:
            self._left.set()
        else:
            task.cancel()

    async def leave(self, url: str, stepper: Stepper) -> None:
        self._gateway = create_app(base_url=url, settings=self.settings, timeout=limits())
        self._left = asyncio.Event()
        sent: list[Any] = []
        task = await stepper.run(self._request(self.asked, sent))
        if stepper.acted:
            assert task.cancelled() is not self.leaves
        else:
            assert (task.exception(), sent[0]["status"]) == (None, 200)
            assert not sent[-1].get("more_body")

    async def go_on(self, url: str) -> None:
        assert not self._gateway.service.under_way
        self._left.clear()
        sent: list[Any] = []
        await self._request({}, sent)
        assert b'"good"' in sent[1]["body"]
        assert _endpoint(url).health().working

    async def _request(self, asked: dict[str, Any], sent: list[Any]) -> None:
        """One request, as an ASGI server makes it."""
        body = [json.dumps({"model": "gpt-3.5-turbo", "messages": ASK} | asked).encode()]

        async def receive() -> Any:
            if body:
                await asyncio.sleep(0)
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await self._left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        path = "/v1/chat/completions"
        facts = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": ""}
        await self._gateway(facts | {"query_string": b"", "headers": headers}, receive, send)


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """The first loop of a kind opens descriptors for ever; and what is older is not the collector's business here."""
    for new_loop in LOOPS.values():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(load("exchange"))
            runner.run(runner.get_loop().getaddrinfo("localhost", 80))
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_for_the_collector() -> Iterator[None]:
    """What a test leaves in a cycle warns here, in its own name."""
    yield
    gc.collect()


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "loop"), [("before", "asyncio"), ("after", "asyncio"), ("again", "asyncio"), ("after", "uvloop")]
)
@pytest.mark.parametrize("scene", SCENES)
def test_h1_h2_h19_cancelled_at_any_await_nothing_is_left_and_the_next_call_works(
    scene: str, when: When, loop: str, clock: Clock
) -> None:
    """In `again`, the cleaning up is cancelled as well."""
    LibraryTrial(SCENES[scene], _generator, clock, loop).at_every_await(when)


@pytest.mark.parametrize("when", ["after", "again"])
@pytest.mark.parametrize("form", FORMS)
def test_h1_h2_every_form_may_be_cancelled_at_any_await(form: str, when: When, clock: Clock) -> None:
    LibraryTrial(SCENES["backoff, retry"], FORMS[form], clock).at_every_await(when)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_h2_a_callback_that_ends_the_loop_at_any_await_leaves_nothing(
    fatal: type[BaseException], loop: str, clock: Clock
) -> None:
    """The loop stops where it stands; its runner cancels the rest, and the next loop begins afresh."""
    LibraryTrial(SCENES["backoff, retry"], _generator, clock, loop, fatal).at_every_await()


GATEWAY: dict[str, dict[str, Any]] = {
    "whole": {"asked": {}},
    "stream": {"asked": {"stream": True}},
    "two at once": {"asked": {"stream": True, "n": 2}},
    "failure in band": {"asked": {"stream": True}, "scene": SCENES["failure in band"]},
    "heartbeats": {"asked": {"stream": True}, "settings": Settings(hold_s=0.001, heartbeat_s=0.001)},
}


@pytest.mark.parametrize(
    ("leaves", "when", "loop"),
    [
        (True, "before", "asyncio"),
        (True, "after", "asyncio"),
        (True, "after", "uvloop"),
        (False, "after", "asyncio"),
        (False, "again", "asyncio"),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", GATEWAY)
def test_h1_i6_a_request_of_the_gateway_may_be_left_at_any_await(
    case: str, when: When, loop: str, *, leaves: bool
) -> None:
    """By its client, or by the server."""
    GatewayTrial(leaves=leaves, loop=loop, **GATEWAY[case]).at_every_await(when)


def test_i15_nothing_follows_the_last_piece_of_a_stream() -> None:
    """A heartbeat that waits while the last piece is written is dropped."""

    async def main() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        async def receive() -> Any:
            await asyncio.Event().wait()

        visit = Visit(request_id="req_1", method="POST", started_s=0.0)
        exchange = Exchange({"method": "POST"}, receive, send, Settings(), visit, fields={}, fixed=())
        await asyncio.gather(exchange.write(b"last", more=False), exchange.write(HEARTBEAT))
        return [message.get("body") for message in sent]

    assert asyncio.run(main()) == [None, b"last"]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_is_ended_raises_the_first_reason_unless_somebody_cancels_it_too(*, is_cancelled: bool) -> None:
    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        visit = Visit(request_id="req_1", method="POST", started_s=0.0)
        exchange = Exchange({"method": "POST"}, never, never, Settings(), visit, fields={}, fixed=())
        loop = asyncio.get_running_loop()
        loop.call_soon(exchange.break_off, LookupError("first"))
        loop.call_soon(exchange.break_off, LookupError("second"))
        if is_cancelled:
            loop.call_soon(task.cancel)
        with exchange:
            await never()
        return task.cancelling()

    with pytest.raises(asyncio.CancelledError if is_cancelled else LookupError) as raised:
        asyncio.run(main())
    assert str(raised.value) == ("" if is_cancelled else "first")


# --- real clients of a real gateway ---------------------------------------------------------------------------------


STREAM = {"model": "gpt-3.5-turbo", "messages": ASK, "stream": True}


def _caught_up(gateway: Served) -> None:
    """Every earlier connection has been accepted."""
    assert gateway.request("GET", "/healthz").status == 200


def _idle(gateway: Served, server: Server) -> None:
    """Nothing is being answered, on either side."""
    _caught_up(gateway)
    asyncio.run_coroutine_threadsafe(gateway.app.service.wait_until_idle(), gateway.loop).result(BOUND_S)
    server.wait_until_idle()


def test_h1_i6_a_client_may_leave_after_any_byte_of_its_request() -> None:
    request = post(STREAM)
    with Server() as server, Served(lambda: create_app(base_url=server.base_url, settings=Settings())) as gateway:
        for length in range(len(request) + 1):
            gateway.connect(request[:length]).close()

        _idle(gateway, server)
        assert gateway.chat().status == 200
        assert 1 <= len(server.requests) <= 2


@pytest.mark.slow
def test_i13_a_thousand_cancelled_and_asked_again_at_once_leave_no_upstream_open() -> None:
    """Ten clients are there at each time, and ten answers are being made as soon as the gateway has seen all that."""
    clients = deque[socket.socket]()
    with (
        Server(fault="stall:1") as server,
        Served(lambda: create_app(base_url=server.base_url, settings=Settings())) as gateway,
    ):
        for number in range(1000):
            if len(clients) == 10:
                clients.popleft().close()
            clients.append(gateway.connect(post(STREAM)))
            if number % 100 == 99:
                _caught_up(gateway)
                server.wait_until_open(10)
        while clients:
            clients.popleft().close()

        _idle(gateway, server)
        assert not gateway.app.service.under_way
