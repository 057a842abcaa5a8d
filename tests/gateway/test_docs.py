"""docs/gateway.md and docs/parameters.md: tables made from the source, and one session, which is played again."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from flowgpt import serving
from flowgpt.cli.serve import command as serve_command
from flowgpt.embedded import Server
from flowgpt.formats import estimate, parameters
from flowgpt.formats.anthropic import answer as messages_answer
from flowgpt.formats.openai import chat
from flowgpt.formats.parameters import Row, rows
from flowgpt.formats.pieces import Problem
from flowgpt.gateway import access, app, dialects, openapi
from flowgpt.gateway.metrics import Metrics
from flowgpt.gateway.settings import SETTINGS
from flowgpt.limits import pause
from tests.gateway.conftest import Served

DOCS = Path(__file__).parents[2] / "docs"
GATEWAY, PARAMETERS = (DOCS / name for name in ("gateway.md", "parameters.md"))


def table(head: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    """Rows of Markdown, the first one the head."""
    shown = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|\n" + "".join(shown)


def shown_tables(page: Path) -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", page.read_text("utf-8"), re.MULTILINE)


# --- docs/parameters.md -------------------------------------------------------------------------------------------

ORDER = ("honoured", "emulated", "ignored", "refused")
ENDPOINTS = {
    "/v1/chat/completions": dialects.CHAT.request,
    "/v1/responses": dialects.RESPONSES.request,
    "/v1/messages": dialects.MESSAGES.request,
    "/v1/completions": dialects.COMPLETIONS.request,
}


def parameter(row: Row) -> tuple[str, str, str, str]:
    harmless = ", ".join(f"`{json.dumps(value)}`" for value in row.harmless)
    return f"`{row.name}`", row.handling, row.words, harmless


@pytest.mark.parametrize("path", ENDPOINTS)
def test_the_parameters_of_the_page_are_those_of_the_source(path: str) -> None:
    """When it fails: what is expected here belongs into docs/parameters.md."""
    known = sorted(rows(ENDPOINTS[path]).values(), key=lambda row: ORDER.index(row.handling))
    expected = table(("parameter", "what becomes of it", "how, or why", "asks for nothing"), map(parameter, known))
    section = PARAMETERS.read_text("utf-8").partition(f"\n## POST {path}\n")[2].partition("\n## ")[0]

    assert re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE) == [expected]


def test_a_number_of_the_parameters_page_is_that_of_the_source() -> None:
    assert f"at most {parameters.LIMIT_NAMES} names" in PARAMETERS.read_text("utf-8")


# --- docs/gateway.md: tables --------------------------------------------------------------------------------------


def endpoints() -> Iterator[Sequence[str]]:
    for operation in openapi.OPERATIONS:
        if operation.path not in openapi.IMPOSSIBLE:
            yield f"`{operation.method.upper()} {operation.path}`", operation.words


def statuses() -> Iterator[Sequence[str]]:
    for status, words in openapi.STATUSES.items():
        problem = Problem(status=status, code="x", message="x")
        types = [error(problem)["error"]["type"] for error in (chat.error_object, messages_answer.error_object)]
        yield str(status), words, *(f"`{type_}`" for type_ in types)


def settings() -> Iterator[Sequence[str]]:
    options = {option.name or "": option.opts[0] for option in serve_command.params}
    for name, setting in SETTINGS.items():
        number = setting.default
        default = f"{number:g}" if isinstance(number, int | float) and number else ""
        yield f"`{options[name]}`", f"`{name}`", default, setting.metadata["help"]


def figures() -> Iterator[Sequence[str]]:
    for held in vars(Metrics()).values():
        metric = getattr(getattr(held, "__wrapped__", None), "__self__", held)  # a metric, or the finder of its labels
        if isinstance(metric, MetricWrapperBase):
            suffix = "_total" if metric._type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            yield f"`{metric._name}{suffix}`", str(metric._type), labels, metric._documentation


TABLES = {
    "endpoints": table(("request", "what it does"), endpoints()),
    "statuses": table(("status", "when", "OpenAI's `type`", "Anthropic's `type`"), statuses()),
    "settings": table(("option", "in the file", "default", "meaning"), settings()),
    "figures": table(("name", "kind", "labels", "meaning"), figures()),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_page_is_made_from_the_source(name: str) -> None:
    """When it fails: what is expected here belongs into docs/gateway.md."""
    head = TABLES[name].splitlines()[0]
    (shown,) = [shown for shown in shown_tables(GATEWAY) if shown.startswith(f"{head}\n")]

    assert shown == TABLES[name]


@pytest.mark.parametrize(
    "fact",
    [
        f"{serving.LIMIT_HEAD_BYTES // 1024} KiB",
        f"{serving.LIMIT_HEADERS} headers",
        f"{serving.HEAD_S:g} s for the head",
        f"{app.LIMIT_BODY_BYTES // 1024**2} MiB",
        f"{parameters.LIMIT_MEMBERS:,} members",
        f"{access.LIMIT_LINES_PER_S} lines a second",
        f"{pause.LIMIT_PAUSE_S / 3600:g} hour",
        f"{estimate.CHARACTERS_PER_TOKEN} characters",
    ],
)
def test_a_number_of_the_page_is_that_of_the_source(fact: str) -> None:
    assert fact in re.sub(r"\s+", " ", GATEWAY.read_text("utf-8"))


# --- docs/gateway.md: a session -----------------------------------------------------------------------------------

BASE = "http://127.0.0.1:8080"
KEY = "fg-the-key-that-was-shown"


class Session:
    """A person who types what the page says, in its order. `log`: what the server has written since its hints."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base = self.key = ""
        self.server: subprocess.Popen[str] | None = None

    def type(self, command: str) -> str:
        """The output, with what differs from run to run evened out."""
        if command.startswith("flowgpt serve") and "--help" not in command:
            return self.even(self.serve(command))
        sent = command.replace(BASE, self.base).replace(KEY, self.key or KEY)
        ran = subprocess.run(
            ["sh", "-c", sent], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
        )
        if found := re.search(r"^fg-[\w-]{43}$", ran.stdout, re.MULTILINE):
            self.key = found[0]
        return self.even(ran.stdout)

    def serve(self, command: str) -> str:
        self.end()
        self.server = subprocess.Popen(
            [*shlex.split(command), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.server.stdout is not None
        said = ""
        while "hint: OPENAI_API_KEY" not in said:
            line = self.server.stdout.readline()
            assert line, said
            said += line
        self.base = re.findall(r"http://127\.0\.0\.1:\d+(?=/v1$)", said, re.MULTILINE)[0]
        return said

    def end(self) -> str:
        """Ctrl-C: what the server has written by its end."""
        if self.server is None:
            return ""
        self.server.send_signal(signal.SIGINT)
        log, _ = self.server.communicate(timeout=30)
        assert self.server.returncode == 0
        self.server = None
        return self.even(log)

    def even(self, text: str) -> str:
        text = text.replace(str(self.home), "~").replace(self.base or BASE, BASE).replace(self.key or KEY, KEY)
        text = re.sub(r"\b(req|chatcmpl|msg)([-_])[0-9a-f]{24}", r"\1\g<2>0123456789abcdef01234567", text)
        text = re.sub(r'"created":[1-9]\d+', '"created":1790000000', text)
        text = re.sub(r"(\w+_ms\":)[\d.]+", r"\g<1>12.3", text)
        text = re.sub(r'"characters":\d+', '"characters":197', text)  # what had come when the answer was cut
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", r"2026-11-22T12:00:00\1", text)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """On a machine on which `flowgpt` is installed, with a home of its own."""
    script = tmp_path / "bin" / "flowgpt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m flowgpt "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / ".config" / "flowgpt"))
    monkeypatch.setenv("COLUMNS", "80")
    opened = Session(tmp_path)
    yield opened
    opened.end()


def test_the_page_shows_what_happens(session: Session) -> None:
    """Commands may go on behind a backslash. Of the log, the page shows the first line."""
    page = GATEWAY.read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    played = []
    for block in blocks:
        commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
        played.append("".join(f"$ {typed}\n{ensure_newline(session.type(typed))}" for typed in commands))
    log = session.end()
    (line,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    assert len(blocks) >= 5
    assert played == blocks
    assert log.splitlines(keepends=True)[0] == line


def ensure_newline(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def test_the_gateway_is_mounted_as_the_page_says(upstream: Server) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", GATEWAY.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block.replace("http://127.0.0.1:8000", upstream.base_url), names)
    with Served(lambda: names["app"]) as served:
        body = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello"}]}

        assert served.request("POST", "/ai/v1/chat/completions", body).status == 200
