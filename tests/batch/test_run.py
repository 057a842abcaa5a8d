"""The engine: each row is asked and has one line, whatever fails, waits or stops; and never too much at once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowgpt import batch
from flowgpt.batch import TRIES, Counts, Pace, Settings, run
from flowgpt.batch.lines import Line, Read
from flowgpt.batch.results import Results
from flowgpt.embedded import Server
from flowgpt.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
)
from flowgpt.providers.base import AsyncGeneratorProvider, Provider
from flowgpt.providers.flowgpt import FlowGpt


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(batch, "LIMIT_WAIT_S", 0.002)


Answer = Callable[[str], "str | FlowGPTError"]


def answering(answer: Answer, asked: Counter[str] | None = None) -> type[AsyncGeneratorProvider]:
    """A provider that answers a question with a text, or fails."""

    class Answering(AsyncGeneratorProvider):
        @classmethod
        async def create_async_generator(
            cls, model: str = "", messages: Any = (), *_: Any, **__: Any
        ) -> AsyncGenerator[str, None]:
            question = messages[-1]["content"]
            if asked is not None:
                asked[question] += 1
            await asyncio.sleep(0)
            got = answer(question)
            if isinstance(got, FlowGPTError):
                raise got
            yield got

    return Answering


def prompts(count: int) -> bytes:
    return b"".join(b'{"prompt": "%d"}\n' % number for number in range(1, count + 1))


class Done:
    """A run: what was written, told and counted, and what ended it."""

    def __init__(
        self, text: bytes, provider: Provider | type[AsyncGeneratorProvider], counts: Counts | None = None, **how: Any
    ) -> None:
        self.counts = counts or Counts()
        self.told: list[str] = []
        self.failure: Exception | None = None
        written: list[bytes] = []
        try:
            asyncio.run(
                run(
                    Read(io.BytesIO(text)),
                    written.append,
                    provider,
                    Settings(**how),
                    self.counts,
                    tell=self.told.append,
                )
            )
        except FlowGPTError as failure:
            self.failure = failure
        self.lines = [json.loads(line) for line in written]

    @property
    def texts(self) -> dict[int, str]:
        """What was answered, by line."""
        return {
            line["line"]: line["response"]["body"]["choices"][0]["message"]["content"]
            for line in self.lines
            if line["response"]
        }

    @property
    def errors(self) -> dict[int, str]:
        """What failed, by line: its code."""
        return {line["line"]: line["error"]["code"] for line in self.lines if line["error"]}


# --- what is asked, and written ---------------------------------------------------------------------------------------


@given(count=st.integers(0, 30), concurrency=st.integers(1, 9), ordered=st.booleans())
def test_every_row_has_one_line_and_the_account_is_exact(count: int, concurrency: int, *, ordered: bool) -> None:
    def answer(question: str) -> str | FlowGPTError:
        return BadRequestError("no") if int(question) % 5 == 0 else f"to {question}"

    done = Done(prompts(count), answering(answer), concurrency=concurrency, ordered=ordered)

    numbers = [line["line"] for line in done.lines]
    assert sorted(numbers) == [*range(1, count + 1)]
    assert done.texts == {number: f"to {number}" for number in range(1, count + 1) if number % 5}
    assert numbers == sorted(numbers) or not ordered
    answered = count - count // 5
    assert done.counts == Counts(rows=count, asked=count, answered=answered, failed=count // 5)
    assert done.counts.left == 0


def test_a_question_goes_with_the_system_prompt_model_and_temperature_of_its_row() -> None:
    rows = [{"prompt": "a"}, {"prompt": "b", "system": "own", "model": "gpt-4-turbo", "temperature": 1.5}]
    with Server() as server:
        options = {"base_url": server.base_url, "temperature": 0.5}
        text = "\n".join(map(json.dumps, rows)).encode()
        done = Done(text, FlowGpt, model="gemini", system="ours", options=options, concurrency=1)

        chats = [received.chat for received in server.requests]

    assert [(chat.model, chat.prompt.system, chat.temperature) for chat in chats if chat] == [
        ("google-gemini", "ours", 0.5),
        ("gpt-4-turbo", "own", 1.5),
    ]
    assert done.counts.answered == 2


def test_stop_and_max_tokens_are_kept_to() -> None:
    body = {"messages": [{"role": "user", "content": "?"}]}
    rows = [{"url": "/v1/chat/completions", "body": body | more} for more in ({"stop": "l"}, {"max_tokens": 1}, {})]

    done = Done("\n".join(map(json.dumps, rows)).encode(), answering(lambda _: "Hello"))

    assert done.texts == {1: "He", 2: "Hell", 3: "Hello"}
    assert {line["line"]: line["response"]["body"]["choices"][0]["finish_reason"] for line in done.lines} == {
        1: "stop",
        2: "length",
        3: "stop",
    }


def test_an_end_that_nothing_proves_is_not_called_one() -> None:
    with Server(fault="close_delimited") as server:
        done = Done(prompts(1), FlowGpt, options={"base_url": server.base_url})

    assert done.lines[0]["response"]["body"]["choices"][0]["finish_reason"] is None


def test_a_wrong_row_fails_and_the_others_go_on() -> None:
    text = b'nonsense\n{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}\n\n{"prompt": "c", "model": "nope"}'
    with Server() as server:
        done = Done(text, FlowGpt, options={"base_url": server.base_url})

    assert done.errors == {1: "invalid_request", 3: "invalid_request", 5: "model_not_found"}
    assert done.counts == Counts(rows=4, asked=1, answered=1, failed=3, invalid=3)


def test_of_two_rows_with_a_name_the_first_is_asked() -> None:
    text = b'{"prompt": "a", "custom_id": "x"}\n{"prompt": "b", "custom_id": "x"}'

    done = Done(text, answering(lambda question: question), concurrency=1)

    assert done.texts == {1: "a"}
    assert done.lines[1]["error"]["message"] == "custom_id: an earlier line has the same"


# --- how much at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_no_more_rows_are_taken_than_there_is_room_for(*, ordered: bool) -> None:
    """The first row is answered when no other can be taken any more."""
    room = batch.WINDOW * 3 if ordered else 3
    full = asyncio.Event()
    taken, written, ahead = 0, list[bytes](), list[int]()

    class Source(AsyncIterator[Line]):
        async def __anext__(self) -> Line:
            nonlocal taken
            if taken == 200:
                raise StopAsyncIteration
            taken += 1
            ahead.append(taken - len(written))
            if ordered and taken == room:
                full.set()
            return taken, b'{"prompt": "%d"}' % taken

    class Waiting(AsyncGeneratorProvider):
        under_way = most = 0

        @classmethod
        async def create_async_generator(cls, *given: Any, **_: Any) -> AsyncGenerator[str, None]:
            cls.under_way += 1
            cls.most = max(cls.most, cls.under_way)
            if not ordered and cls.under_way == 3:
                full.set()
            if given[1][-1]["content"] == "1" or not ordered:
                await full.wait()
            await asyncio.sleep(0)
            cls.under_way -= 1
            yield "ok"

    asyncio.run(run(Source(), written.append, Waiting, Settings(concurrency=3, ordered=ordered), Counts()))

    assert (max(ahead), Waiting.most, len(written)) == (room, 3, 200)


def test_the_pace_is_even_and_what_was_not_used_is_gone() -> None:
    pace = Pace(30)

    assert [pace.turn(now_s) for now_s in (100, 100, 101, 106, 500, 500)] == [0, 2, 3, 0, 0, 2]
    assert [Pace(None).turn(now_s) for now_s in (1, 1)] == [0, 0]


def test_with_a_pace_what_is_sent_again_takes_a_turn_too() -> None:
    """Else the service would get several times as many as were allowed."""
    with Server(fault="status:500") as server:
        done = Done(prompts(1), FlowGpt, per_minute=60_000, options={"base_url": server.base_url})

        assert (len(server.requests), list(done.errors)) == (TRIES, [1])


def test_a_character_that_the_service_does_not_have_was_asked_and_is_counted_so() -> None:
    with Server() as server:
        rows = b"".join(b'{"prompt": "a", "model": "character:%s"}\n' % id_ for id_ in (b"nobody", b"no/id"))
        done = Done(rows, FlowGpt, options={"base_url": server.base_url})

    assert (done.counts.asked, done.counts.answered, done.counts.failed, done.counts.invalid) == (1, 0, 2, 1)


def test_with_a_pace_all_rows_are_asked() -> None:
    assert Done(prompts(5), answering(lambda _: "ok"), per_minute=60_000).counts.answered == 5


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "code"), [("status:401", "authentication_failed"), ("credit", "quota_exceeded")])
def test_what_no_row_is_answered_with_ends_the_batch_and_no_row_has_failed(fault: str, code: str) -> None:
    with Server(fault=fault) as server:
        done = Done(prompts(50), FlowGpt, options={"base_url": server.base_url}, concurrency=3)

        assert len(server.requests) <= 3

    assert isinstance(done.failure, FlowGPTError)
    assert (done.failure.code, done.lines, done.counts.failed) == (code, [], 0)


def test_while_the_service_is_out_rows_wait() -> None:
    with Server() as server:
        server.fault("status:503", 12)
        server.fault("html_page", 3)
        done = Done(prompts(9), FlowGpt, options={"base_url": server.base_url, "max_retries": 0}, concurrency=2)

        assert len(server.requests) == 9 + 12 + 3

    assert done.counts == Counts(rows=9, asked=9, answered=9)
    assert len(done.told) == 2
    assert done.told[0].startswith("waiting for the service: ")
    assert done.told[1] == "the service answers again"


def test_a_service_that_answers_others_meanwhile_is_not_called_out() -> None:
    """Of a million rows, a tenth that has to be asked again would be a hundred thousand lines."""
    asked: Counter[str] = Counter()
    failure = ServiceUnavailableError("x")

    done = Done(prompts(50), answering(lambda row: failure if asked[row] < 2 else "ok", asked), concurrency=2)

    assert (done.counts.answered, done.told) == (50, [])


def test_an_open_circuit_is_waited_for() -> None:
    failures = [ServiceUnavailableError("x", code="circuit_open", retry_after_s=0.001) for _ in range(20)]

    done = Done(prompts(3), answering(lambda _: failures.pop() if failures else "ok"))

    assert (done.counts.answered, done.counts.failed) == (3, 0)


def test_a_service_that_stays_out_ends_the_batch_and_no_row_has_failed() -> None:
    asked: Counter[str] = Counter()

    done = Done(
        prompts(100), answering(lambda _: APIConnectionError("down"), asked), concurrency=4, give_up_after_s=0.01
    )

    assert isinstance(done.failure, APIConnectionError)
    assert (done.lines, len(asked)) == ([], 4)


def test_who_asks_to_wait_longer_than_the_batch_will_ends_it_at_once() -> None:
    asked: Counter[str] = Counter()
    limited = RateLimitError("x", retry_after_s=7200.0)

    done = Done(prompts(9), answering(lambda _: limited, asked), concurrency=1)

    assert (type(done.failure), asked.total()) == (RateLimitError, 1)


def test_a_row_that_fails_alone_fails_after_three_tries() -> None:
    asked: Counter[str] = Counter()

    def answer(question: str) -> str | FlowGPTError:
        return InternalServerError("poison") if int(question) % 4 == 0 else "ok"

    done = Done(prompts(40), answering(answer, asked), concurrency=1)

    assert done.errors == dict.fromkeys(range(4, 41, 4), "server_error")
    assert {asked[str(number)] for number in range(4, 41, 4)} == {batch.TRIES}
    assert done.counts == Counts(rows=40, asked=40, answered=30, failed=10)


def test_of_rows_that_all_fail_only_a_few_do() -> None:
    done = Done(prompts(100), answering(lambda _: InternalServerError("x")), concurrency=2, give_up_after_s=0.5)

    assert isinstance(done.failure, InternalServerError)
    assert done.counts.failed == len(done.lines) == batch.LIMIT_DOUBTS


def test_an_answer_that_is_cut_is_no_answer_and_what_came_is_kept() -> None:
    with Server() as server:
        server.fault("cut_at_line:2", batch.TRIES)
        done = Done(prompts(2), FlowGpt, options={"base_url": server.base_url, "max_retries": 0}, concurrency=1)

    assert done.errors == {1: "stream_truncated"}
    assert done.lines[0]["error"]["partial_text"]
    assert [*done.texts] == [2]


@pytest.mark.parametrize(
    ("failure", "retriable"),
    [
        (InternalServerError("x"), True),
        (APITimeoutError("x"), True),
        (ProtocolError("x", code="empty_reply"), True),
        (ProtocolError("x", code="response_too_large"), False),
        (BadRequestError("x"), False),
        (InvalidRequestError("x"), False),
    ],
    ids=lambda value: str(getattr(value, "code", value)),
)
def test_a_failure_that_may_pass_says_so(failure: FlowGPTError, *, retriable: bool) -> None:
    done = Done(prompts(1), answering(lambda _: failure))

    assert [line["error"].get("retriable", False) for line in done.lines] == [retriable]


def test_a_stranger_s_fault_ends_the_run() -> None:
    class Broken(AsyncGeneratorProvider):
        @classmethod
        def stream(cls, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Done(prompts(2), Broken)


# --- stops ------------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400)), max_size=4), ordered=st.booleans())
def test_after_any_stop_a_resume_leaves_one_line_for_each_row(
    tmp_path: Path, stops: list[tuple[int, int]], *, ordered: bool
) -> None:
    """A stop: so many lines are written, and of the next one so many bytes, as by a kill."""
    source_path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source_path.write_bytes(prompts(12) + b"nonsense\n")
    output.unlink(missing_ok=True)
    standing: set[int] = set()

    def go(lines: int | None, torn: int) -> None:
        asked: Counter[str] = Counter()

        def answer(question: str) -> str | FlowGPTError:
            return ProtocolError("x", code="empty_reply") if question == "5" and lines is not None else "ok"

        with source_path.open("rb") as source, Results(output, source) as results:
            left = lines

            def write(line: bytes) -> None:
                nonlocal left
                if left == 0:
                    results.write(line[: min(torn, len(line) - 1)])
                    raise OSError("stopped")
                results.write(line)
                left = None if left is None else left - 1

            how = Settings(concurrency=3, ordered=ordered)
            with contextlib.suppress(OSError):
                asyncio.run(run(Read(source), write, answering(answer, asked), how, Counts(), stands=results.stands))
        assert not {str(number) for number in standing} & asked.keys()
        for line in output.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and json.loads(line)["response"]:
                standing.add(json.loads(line)["line"])

    for lines, torn in stops:
        go(lines, torn)
    go(None, 0)

    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert sorted(row["line"] for row in rows) == [*range(1, 14)]
    assert {row["line"] for row in rows if row["error"]} == {13}


def test_cancelled_it_writes_nothing_of_what_is_under_way() -> None:
    async def main() -> tuple[list[bytes], Counts, int]:
        written, counts = list[bytes](), Counts()
        with Server(pace_s=3600) as server:
            how = Settings(concurrency=3, options={"base_url": server.base_url})
            work = asyncio.create_task(run(Read(io.BytesIO(prompts(9))), written.append, FlowGpt, how, counts))
            await asyncio.to_thread(server.wait_until_open, 3)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            await asyncio.to_thread(server.wait_until_idle)
            return written, counts, len(server.requests)

    assert asyncio.run(main()) == ([], Counts(asked=3), 3)
