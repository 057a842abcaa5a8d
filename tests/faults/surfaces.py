"""One question over each surface, and what it must show of a case: text, failure, and nothing that was not there.

No faults in here: table.py. Each surface takes its options from the configuration, as people give them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from flowgpt import Client, FlowGpt
from flowgpt.cli.program import program
from flowgpt.errors import FlowGPTError
from flowgpt.messages import Message
from tests.faults.table import LEVELS, Case, Fault
from tests.gateway.conftest import Answer, Served

QUESTION: list[Message] = [{"role": "user", "content": "?"}]

Surface = Callable[[Case, Served], None]


def library(case: Case, _gateway: Served) -> None:
    texts: list[str] = []

    async def read() -> None:
        async with asyncio.timeout(20):
            reply = FlowGpt.stream(messages=QUESTION)
            async for text in reply:
                texts.append(text)  # noqa: PERF401  # what came before a failure counts
        assert reply.verdict == case.verdict

    _expect(case, lambda: asyncio.run(read()))
    assert "".join(texts) == case.text


def sync(case: Case, _gateway: Served) -> None:
    texts: list[str] = []

    def read() -> None:
        with client.chat.completions.create(messages=QUESTION, stream=True) as stream:
            for chunk in stream:
                texts.append(chunk.choices[0].delta.content or "")
        assert (stream.reply.verdict, chunk.choices[0].finish_reason) == (case.verdict, _reason(case))

    with Client() as client:
        _expect(case, read)
    assert "".join(texts) == case.text


def _reason(case: Case) -> str | None:
    """Only what surely came whole has been stopped."""
    return "stop" if case.verdict == "complete" else None


def _expect(case: Case, read: Callable[[], None]) -> None:
    """Read to the end, or to the failure that the case has."""
    if case.error is None:
        read()
        return
    with pytest.raises(FlowGPTError) as caught:
        read()
    error = caught.value
    assert (type(error), error.code, error.retry_class) == case.error
    assert (error.phase, error.partial_text, error.attempts) == (case.phase, case.text, 1 if case.phase else 0)
    assert error.retry_after_s == case.wait_s
    assert case.words in error.message
    assert error.message.isprintable()


def terminal(case: Case, _gateway: Served) -> None:
    result = CliRunner().invoke(program, ["ask", "?"])

    text = case.text if case.shown is None else case.shown
    assert result.stdout == (text if text.endswith("\n") or not text else f"{text}\n")
    lines = result.stderr.splitlines()
    if case.error is None:
        proof = (
            [] if case.verdict == "complete" else ["flowgpt: this connection cannot prove that the answer is complete"]
        )
        assert (result.exit_code, lines) == (0, proof)
        return
    assert result.exit_code == LEVELS[case.error.kind][0]
    assert not case.text or lines.pop(0) == "[the answer is cut here]"
    told, *hints = lines
    assert told.startswith("flowgpt: ")
    assert case.words in told
    assert [hint[:6] for hint in hints] == ["hint: "] * len(hints[:1])
    assert case.wait_s is None or f"(in {case.wait_s:g} s)" in hints[0]


def gateway_whole(case: Case, gateway: Served) -> None:
    answer = gateway.chat("?")

    if case.error is not None:
        _refused(case, case.error, answer)
        return
    [choice] = answer.json["choices"]
    assert (answer.status, choice["message"]["content"]) == (200, case.text)
    assert choice["finish_reason"] == _reason(case)


def _refused(case: Case, error: Fault, answer: Answer) -> None:
    """A real status, the code, and the word that asking again is of no use."""
    assert (answer.status, answer.json["error"]["code"]) == (LEVELS[error.kind][1], error.code)
    again = error.retry_class != "never" and not case.text
    assert answer.headers.get("x-should-retry") == (None if again else "false")
    assert answer.headers.get("retry-after") == (None if case.wait_s is None else str(case.wait_s))


def gateway_stream(case: Case, gateway: Served) -> None:
    answer = gateway.chat("?", stream=True)

    if case.error is not None and not case.text:
        _refused(case, case.error, answer)
        return
    frames = answer.body.decode().removesuffix("\n\n").split("\n\n")
    last = frames.pop()
    chunks = [json.loads(frame.removeprefix("data: "))["choices"][0] for frame in frames]
    assert answer.status == 200
    assert "".join(chunk["delta"].get("content") or "" for chunk in chunks) == case.text
    if case.error is None:
        assert last == "data: [DONE]"
        assert chunks[-1]["finish_reason"] == _reason(case)
    else:
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == case.error.code
        assert [chunk["finish_reason"] for chunk in chunks] == [None] * len(chunks)


SURFACES: dict[str, Surface] = {
    "library": library,
    "sync": sync,
    "terminal": terminal,
    "gateway-stream": gateway_stream,
    "gateway-whole": gateway_whole,
}
