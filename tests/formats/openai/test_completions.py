"""OpenAI's legacy completions: every parameter has a row, and the shapes are literally theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.errors import InvalidRequestError
from flowgpt.formats import sse
from flowgpt.formats.openai.completions import CompletionAnswer, CompletionEncoder, CompletionRequest, ask
from flowgpt.formats.parameters import read, rows
from flowgpt.formats.pieces import Ask, Encoder, End, Facts, Piece, Problem, Turn
from tests.openai_description import faults, properties


def given_request(**members: Any) -> CompletionRequest:
    return read(json.dumps({"model": "m", "prompt": "Once"} | members).encode(), CompletionRequest).values


def encoder(**members: Any) -> CompletionEncoder:
    facts = Facts(new_id=lambda prefix: f"{prefix}1", created=1700000000, model="m", prompt_characters=9)
    return CompletionEncoder(facts, given_request(**members))


def refusal(**members: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequestError) as caught:
        ask(given_request(**members))
    return caught.value.code, caught.value.param


def test_i5_every_parameter_that_openai_describes_has_its_row() -> None:
    """Provenance: OpenAI's OpenAPI, CreateCompletionRequest."""
    assert rows(CompletionRequest).keys() == properties("CreateCompletionRequest")


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_prompt_is_one_message_of_the_user(prompt: Any) -> None:
    got = ask(given_request(prompt=prompt, temperature=0, stop=["a"], max_tokens=3, n=2))

    assert got == Ask(
        model="m", turns=[Turn(role="user", text="Once")], temperature=0, stop=("a",), max_tokens=3, n=2
    )  # fmt: skip


@pytest.mark.parametrize("prompt", [[], ["a", "b"], [1, 2], [[1], [2]], [None]])
def test_i5_several_prompts_and_tokens_are_refused(prompt: Any) -> None:
    assert refusal(prompt=prompt) == ("unsupported_content", "prompt")


@pytest.mark.parametrize("prompt", [None, 5, {}])
def test_i5_what_is_no_prompt_is_refused_by_name(prompt: Any) -> None:
    assert refusal(prompt=prompt) == ("invalid_request", "prompt")


@pytest.mark.parametrize(("name", "value"), [("best_of", 2), ("echo", True), ("logprobs", 0), ("suffix", "end")])
def test_i5_what_would_make_another_answer_is_refused(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == ("unsupported_parameter", name)


def test_i5_values_that_ask_for_nothing_are_taken() -> None:
    assert ask(given_request(best_of=1, echo=False, logprobs=None, suffix="", n=None)).n == 1


def test_a_whole_completion_is_these_bytes() -> None:
    """Provenance: OpenAI's OpenAPI, CreateCompletionResponse: all that it requires; ours: `estimated`."""
    body = encoder(n=2).whole([["Hel", "lo", End()], ["a", End("length")]])

    assert body == (
        b'{"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m","choices":['
        b'{"index":0,"text":"Hello","logprobs":null,"finish_reason":"stop"},'
        b'{"index":1,"text":"a","logprobs":null,"finish_reason":"length"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"estimated":true}}'
    )
    assert faults(json.loads(body), "CreateCompletionResponse") == []


def test_a_streamed_completion_is_these_bytes() -> None:
    made = encoder()

    assert made.start() + made.pieces(["Hel", "lo"]) + made.pieces(["!", End("stop_sequence", "x")]) + made.end() == (
        b'data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"text":"Hel","logprobs":null,"finish_reason":null}]}\n\n'
        b'data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"text":"lo","logprobs":null,"finish_reason":null}]}\n\n'
        b'data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"text":"!","logprobs":null,"finish_reason":null}]}\n\n'
        b'data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )


def test_usage_that_was_asked_for_is_one_more_chunk() -> None:
    made = encoder(stream_options={"include_usage": True})
    data = made.pieces(["Hel", "lo"]) + made.pieces([End()]) + made.end()

    *others, last = [json.loads(event.data) for event in sse.Decoder().feed(data)[:-1]]

    assert [chunk["usage"] for chunk in others] == [None] * 3
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "estimated": True}


def test_an_end_that_nothing_proves_has_no_reason() -> None:
    assert json.loads(encoder().whole([["a", End(None)]]))["choices"][0]["finish_reason"] is None


def test_i14_a_failure_is_openais_error_frame() -> None:
    made: Encoder = encoder()

    assert made.failure(Problem(status=504, code="idle_timeout", message="slow")) == (
        b'data: {"error":{"message":"slow","type":"server_error","param":null,"code":"idle_timeout"}}\n\n'
    )


TEXTS: st.SearchStrategy[Piece] = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=100)
@given(st.lists(st.lists(TEXTS, max_size=4), max_size=4))
def test_the_fast_way_gives_the_objects_whose_texts_are_the_whole(batches: list[list[Piece]]) -> None:
    made = encoder(stream_options={"include_usage": True})
    objects = CompletionAnswer(id="cmpl-1", created=1700000000, model="m", prompt_characters=9, include_usage=True)
    batches.append([End()])

    data = b"".join(made.pieces(batch) for batch in batches) + made.end()

    chunks = [json.loads(event.data) for event in sse.Decoder().feed(data)[:-1]]
    slowly = [chunk for batch in batches for chunk in objects.chunks(batch)] + objects.end()
    assert chunks == [chunk.model_dump() for chunk in slowly]
    whole = objects.completion([piece for batch in batches for piece in batch])
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1]["usage"] == whole.model_dump()["usage"]
