"""Lines of batch files: whatever stands in one is a row, and a line of the output says what became of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.errors import InvalidRequestError, StreamInterruptedError
from flowgpt.formats.openai import batch
from flowgpt.formats.openai.batch import answer_line, failure_line, is_torn, read_result, read_row, row_id
from flowgpt.formats.openai.chat import ChatAnswer
from flowgpt.formats.pieces import Ask, End, Turn

BODY = {"model": "gemini", "messages": [{"role": "user", "content": "Hi"}]}


def row(number: int = 1, **members: Any) -> batch.Row:
    return read_row(json.dumps(members).encode(), number)


def in_form(**members: Any) -> batch.Row:
    """A row in OpenAI's form, with these members of its body."""
    return row(custom_id="a", method="POST", url="/v1/chat/completions", body=BODY | members)


def fault(of: batch.Row) -> tuple[str, str | None, str]:
    assert isinstance(of.ask, InvalidRequestError)
    return of.ask.code, of.ask.param, of.ask.message


def test_a_line_in_openais_form_is_a_question() -> None:
    got = in_form(temperature=0.5, stop="END", max_tokens=9)

    assert (got.custom_id, got.named, got.line, got.ignored) == ("a", True, 1, ())
    assert got.ask == Ask(
        model="gemini", turns=[Turn(role="user", text="Hi")], temperature=0.5, stop=("END",), max_tokens=9
    )


def test_a_plain_line_is_a_question() -> None:
    got = row(3, prompt="Hi", system="Be brief.", model="gemini", temperature=1, id=7)

    assert (got.custom_id, got.named) == ("7", True)
    turns = [Turn(role="system", text="Be brief."), Turn(role="user", text="Hi")]
    assert got.ask == Ask(model="gemini", turns=turns, temperature=1)


def test_a_line_without_a_name_is_named_by_its_number() -> None:
    assert [(got.custom_id, got.named) for got in (row(3, prompt="Hi"), row(4, prompt="Hi", id=True))] == [
        ("line-3", False),
        ("line-4", False),
    ]


def test_the_model_may_be_left_out() -> None:
    asked = [row(prompt="Hi").ask, row(url="/v1/chat/completions", body={"messages": BODY["messages"]}).ask]

    assert [ask.model for ask in asked if isinstance(ask, Ask)] == ["", ""]


def test_what_has_no_effect_is_listed() -> None:
    assert in_form(seed=3, user="x", stream=True).ignored == ("seed", "user", "stream")
    assert row(prompt="Hi", note="mine").ignored == ("note",)


@pytest.mark.parametrize(
    ("of", "code", "param", "words"),
    [
        (row(url="/v1/embeddings", body={}), "unsupported_parameter", "url", "/v1/chat/completions only"),
        (row(body=BODY), "invalid_request", "url", "missing"),
        (row(url="/v1/chat/completions", method="GET", body=BODY), "invalid_request", "method", "GET"),
        (row(url="/v1/chat/completions", body=3), "invalid_request", "body", "object"),
        (in_form(messages=[]), "invalid_request", "messages", "length"),
        (in_form(temperature=3), "invalid_request", "temperature", "2"),
        (in_form(n=2), "unsupported_parameter", "n", "not in a batch"),
        (
            in_form(response_format={"type": "json_object"}),
            "unsupported_parameter",
            "response_format",
            "not in a batch",
        ),
        (
            in_form(tools=[{"type": "function", "function": {"name": "f"}}]),
            *("unsupported_parameter", "tools", "not in a batch"),
        ),
        (in_form(logprobs=True), "unsupported_parameter", "logprobs", "no probabilities"),
        (row(question="Hi"), "invalid_request", None, "neither a `body` nor a `prompt`"),
        (row(prompt=3), "invalid_request", "prompt", "str"),
    ],
)
def test_a_wrong_line_is_a_row_that_says_what_is_wrong(of: batch.Row, code: str, param: str | None, words: str) -> None:
    assert fault(of)[:2] == (code, param)
    assert words in fault(of)[2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"Hi", "the line is not JSON: "),
        (b"[]", "the line is not a JSON object"),
        (b"\xff", "the line is not UTF-8, at byte 0"),
        (b'{"prompt": "\\ud800"}', "the line has a string with a lone surrogate"),
        (b'{"prompt": "a", "prompt": "b"}', "names a member twice"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[" * 250_001, "opening brackets"),
        (b"x" * (batch.LIMIT_LINE_BYTES + 1), "more than 8,388,608 bytes"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_a_line_that_is_no_object_is_a_row_too(line: bytes, words: str) -> None:
    assert words in fault(read_row(line, 1))[2]


def test_a_wrong_line_keeps_its_name() -> None:
    assert row(custom_id="mine").custom_id == "mine"


@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0d8prompt1', max_size=40).map(str.encode), st.integers(1, 9)
)
def test_whatever_stands_in_a_line_is_a_row(line: bytes, number: int) -> None:
    got = read_row(line, number)

    assert (got.line, got.id) == (number, row_id(line, number))
    assert isinstance(got.ask, Ask | InvalidRequestError)


def test_an_id_is_of_the_line_and_its_number() -> None:
    ids = {row_id(line, number) for line in (b"a", b"b", b"a ") for number in (1, 2)}

    assert len(ids) == 6
    assert row_id(b"a", 1) == "batch_req_" + row_id(b"a", 1)[10:]
    assert len(row_id(b"a", 1)) == 34


def completion() -> Any:
    return ChatAnswer(id="chatcmpl-1", created=1, model="m", prompt_characters=4).completion(["Hello", End()])


def test_an_answer_is_a_line_as_openais() -> None:
    line = answer_line(in_form(seed=1), completion())

    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    got = json.loads(line)
    assert got["response"].pop("body")["choices"][0]["message"]["content"] == "Hello"
    assert got == {
        "id": got["id"],
        "custom_id": "a",
        "line": 1,
        "response": {"status_code": 200, "request_id": "chatcmpl-1", "ignored": ["seed"]},
        "error": None,
    }


def test_a_failure_is_a_line_with_what_had_come() -> None:
    failure = StreamInterruptedError("cut", code="stream_truncated")
    failure.partial_text = "Hel\nlo"

    got = json.loads(failure_line(in_form(), failure, retriable=True))

    assert (got["response"], got["error"]) == (
        None,
        {"code": "stream_truncated", "message": "cut", "retriable": True, "partial_text": "Hel\nlo"},
    )


def test_a_line_of_the_output_is_read_again() -> None:
    got = in_form()

    answered = read_result(answer_line(got, completion()))
    failed = read_result(failure_line(got, InvalidRequestError("no"), retriable=False))

    assert (answered.id, answered.line, answered.error) == (got.id, 1, None)
    assert failed.error is not None
    assert (failed.error.code, failed.error.retriable) == ("invalid_request", False)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{}", b"Hi\n", b"\xff\n", b"[" * 100_000, b'{"id":"x","line":1,"error":null}'),
        b'{"id":"batch_req_aa499d9b2068cabc68ee34e7","line":0,"error":null}',
        b'{"id":"batch_req_aa499d9b2068cabc68ee34e7","line":1}',
        b'{"id":"batch_req_aa499d9b2068cabc68ee34e7","line":1,"error":null}{}',
    ],
    ids=lambda line: str(line[:40]),
)
def test_another_line_is_no_result(line: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="no line of a batch's output"):
        read_result(line)


def test_every_beginning_of_a_line_is_torn_and_no_other_text_is() -> None:
    line = answer_line(in_form(), completion())

    assert all(is_torn(line[:length]) for length in range(len(line)))
    assert is_torn(b"\0\0\0")
    assert not any(map(is_torn, (b"notes", b'{"id":"other', b'{"prompt"', b" ", b"\0x")))


def test_the_forms_of_lines_are_listed_as_parameters_are() -> None:
    assert {field.name for field in msgspec.structs.fields(batch.RequestLine)} == {"custom_id", "method", "url", "body"}
