"""What holds for every test: its own home, no configuration from outside, no way off this machine, and no secret shown.

Secrets in tests are the CANARIES, fixed strings. After each test they are looked for in the logs, in the captured
output, in every FlowGPTError made during the test (its text, repr, pickle, and traceback with all locals), in every
file of the test's home that the package writes, and in what tests read of our servers: heads, bodies, metrics.
What was asked and answered is looked for in the logs alone, at any level: QUESTION and ANSWER.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from flowgpt import config
from flowgpt.errors import FlowGPTError
from flowgpt.providers import characters
from flowgpt.transport import health

API_KEY = "canary-key-7c1e55d0"
PROXY_USER = "canary-user-19b3"
PROXY_PASSWORD = "canary-password-e4a902bb"
CANARIES = (API_KEY, PROXY_USER, PROXY_PASSWORD)
QUESTION = "canary-question-50d3c8f1"
ANSWER = "canary-answer-e91b07aa"

SHARED = ("upstream", "proxies", "embedded.wire", "transport.calls", "serving.small", "faults.surfaces")
pytest.register_assert_rewrite(*(f"tests.{name}" for name in SHARED))  # they assert too, and under `python -O`
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("repeatable")

TESTS = str(Path(__file__).parent)
LOOPBACK = ("127.", "::1", "::ffff:127.", "localhost")

_resolved: dict[str, Callable[[int], Sequence[str]]] = {}


# --- no way off this machine ----------------------------------------------------------------------------------------


def _guard(event: str, facts: tuple[Any, ...]) -> None:
    """Fail the test that connects, sends or looks up anything but this machine; `.invalid` is always unknown."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = facts[1]
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            pytest.fail(f"{event} to {address}: tests stay on this machine")
    elif event == "socket.getaddrinfo":
        host = facts[0].decode() if isinstance(facts[0], bytes) else facts[0]
        if host and host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host and host != "localhost" and not _is_address(host):
            pytest.fail(f"lookup of {host}: tests stay on this machine; the fixture `resolver` knows names")


def _is_address(host: str) -> bool:
    return any(_parses(family, host.partition("%")[0]) for family in (socket.AF_INET, socket.AF_INET6))


def _parses(family: int, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except OSError:
        return False
    return True


sys.addaudithook(_guard)


Resolver = Callable[[Mapping[str, Sequence[str] | BaseException | Callable[[], Any]]], None]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Names for a test: `resolver({"dead.test": ["127.0.0.1"]})`; an exception is raised, a function called first."""
    names: dict[str, Any] = {}
    genuine = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        known = names.get(host.decode() if isinstance(host, bytes) else host)
        if callable(known):
            known = known()
        if isinstance(known, BaseException):
            raise known
        if known is None:
            return genuine(host, *rest, **named)
        return [found for address in known for found in genuine(address, *rest, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names.update


# --- a home of its own ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty home, and none of the variables that configure us or name a proxy."""
    for name in os.environ:
        if name.startswith(("FLOWGPT_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "flowgpt-home"))
    for cached in (config.file._file, config.device._device_id, config.options._warn_unknown):
        cached.cache_clear()
    health._endpoints.clear()  # ports come again, and what was known of one is another test's
    characters._known.clear()


# --- no secret shown ------------------------------------------------------------------------------------------------


class Watch:
    """Where a secret might show during one test."""

    def __init__(self) -> None:
        self.errors: list[FlowGPTError] = []
        self.shown: list[tuple[str, str]] = []

    def leaks(self) -> list[str]:
        """The places that show a canary; the errors are let go of."""
        errors, self.errors = self.errors, []
        for error in errors:
            self.shown += faces(error)
        return sorted({place for place, text in self.shown if _sings(place, text)})


def _sings(place: str, text: str) -> bool:
    said = (QUESTION, ANSWER) if place.startswith("log of") else ()
    return any(canary in text for canary in (*CANARIES, *said))


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """Every file below a folder, but the configuration: people write that themselves, and their key may be in it."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "config.toml":
            yield f"file {path.name}", path.read_bytes().decode("latin-1")


def faces(error: BaseException) -> Iterator[tuple[str, str]]:
    """All that an exception shows of itself: text, repr, attributes, and its traceback with the locals of each frame.

    The exceptions behind it too, suppressed or not. Frames of the tests are left out: they must know the secrets.
    """
    chain: list[BaseException] = [error]
    for link in chain:
        chain += [behind for behind in (link.__cause__, link.__context__) if behind and behind not in chain]
        name = type(link).__name__
        yield f"str of {name}", str(link)
        yield f"repr of {name}", repr(link)
        yield f"attributes of {name}", repr(vars(link))
        if isinstance(link, FlowGPTError) and "<locals>" not in type(link).__qualname__:  # pickle knows it by its name
            yield f"pickle of {name}", pickle.dumps(link).decode("latin-1")
        if link.__traceback__ is None:  # never raised, or taken off: no frames, and these are most of all errors
            continue
        for frame, _ in traceback.walk_tb(link.__traceback__):
            code = frame.f_code
            if not code.co_filename.startswith(TESTS):
                shown = " ".join(map(_repr, [*frame.f_locals.values()]))
                yield f"traceback of {name}: {code.co_name} in {code.co_filename}", shown


def _repr(value: object) -> str:
    try:
        return repr(value)
    except AttributeError as error:  # a transport that its own thread closes at this moment
        return repr(error)


_watch = Watch()


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _watch.shown.append((f"log of {record.name}", logging.Formatter().format(record)))


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[None]:
    """Fail the test that shows a canary."""
    global _watch
    watch = _watch = Watch()
    made = FlowGPTError.__init__

    def init(self: FlowGPTError, *args: Any, **facts: Any) -> None:
        made(self, *args, **facts)
        watch.errors.append(self)

    monkeypatch.setattr(FlowGPTError, "__init__", init)
    _keep_output(monkeypatch, watch, subprocess.Popen, "communicate", "output of a subprocess")
    _keep_output(monkeypatch, watch, pytest.CaptureFixture, "readouterr", "output")
    _keep_wire(monkeypatch, watch)
    _keep_warnings(monkeypatch, watch)
    handler, ours = _Log(), logging.getLogger("flowgpt")
    level = ours.level
    ours.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    ours.setLevel(level)
    watch.shown += files(tmp_path / "flowgpt-home")
    if places := watch.leaks():
        pytest.fail("a secret shows in: " + "; ".join(places))


def _keep_output(monkeypatch: pytest.MonkeyPatch, watch: Watch, owner: type, name: str, place: str) -> None:
    genuine = getattr(owner, name)

    def kept(self: Any, *args: Any, **named: Any) -> Any:
        output = genuine(self, *args, **named)
        watch.shown += [(place, str(text)) for text in output if text]
        return output

    monkeypatch.setattr(owner, name, kept)


def _keep_wire(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    """What uvicorn, below our servers, is told to send: each head and body, of every route, metrics included."""
    genuine = RequestResponseCycle.send

    async def send(self: Any, message: Any) -> None:
        headers = message.get("headers", ())
        watch.shown += [("head of an answer", f"{name} {value}") for name, value in headers]
        watch.shown.append(("body of an answer", bytes(message.get("body", b"")).decode("latin-1")))
        await genuine(self, message)

    monkeypatch.setattr(RequestResponseCycle, "send", send)


def _keep_warnings(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    """Those that a test expects; all others fail it anyway."""
    genuine = pytest.WarningsRecorder.__exit__

    def leave(self: pytest.WarningsRecorder, *raised: Any) -> None:
        watch.shown += [("a warning", str(warning.message)) for warning in self.list]
        genuine(self, *raised)

    monkeypatch.setattr(pytest.WarningsRecorder, "__exit__", leave)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The output that pytest captured, looked at when all of it is there."""
    report = yield
    captured = report.capstdout + report.capstderr
    if report.when == "teardown" and report.passed and any(canary in captured for canary in CANARIES):
        report.outcome, report.longrepr = "failed", "a secret shows in the captured output"
    return report
