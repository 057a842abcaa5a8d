"""A stream of chat completions as bytes: literal frames, the fast way equal to the objects, and how it may end."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.formats import sse
from flowgpt.formats.openai.chat import ChatAnswer
from flowgpt.formats.openai.chat_request import ChatMessage, ChatRequest, StreamOptions
from flowgpt.formats.openai.chunks import DONE, ChatEncoder
from flowgpt.formats.pieces import Encoder, End, Facts, Piece, Problem, ToolCall
from tests.openai_description import faults

CALL = ToolCall("call_1", "f", '{"a":1}')


def encoder(model: str = "m", *, usage: bool = False) -> ChatEncoder:
    numbers = itertools.count(1)
    facts = Facts(
        new_id=lambda prefix: f"{prefix}{next(numbers)}", created=1700000000, model=model, prompt_characters=9
    )
    return ChatEncoder(facts, request(usage=usage))


def request(*, usage: bool) -> ChatRequest:
    options = StreamOptions(include_usage=True) if usage else None
    return ChatRequest(model="asked", messages=[ChatMessage(role="user", content="Hi")], stream_options=options)


def frames(data: bytes) -> list[dict[str, Any]]:
    """The objects of a stream without its [DONE]; each is as OpenAI describes it."""
    objects = [json.loads(event.data) for event in sse.Decoder().feed(data) if event.data != "[DONE]"]
    assert [faults(value, "CreateChatCompletionStreamResponse") for value in objects] == [[]] * len(objects)
    return objects


def test_a_stream_is_these_bytes() -> None:
    made = encoder()

    assert made.start() == b""
    assert made.pieces(["Hel", "lo\n"]) + made.pieces([End()]) + made.end() == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":['
        b'{"index":0,"delta":{"role":"assistant","content":"Hel"},"logprobs":null,"finish_reason":null}]}\n\n'
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":['
        b'{"index":0,"delta":{"content":"lo\\n"},"logprobs":null,"finish_reason":null}]}\n\n'
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":['
        b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )


def test_usage_that_was_asked_for_is_null_until_its_own_chunk() -> None:
    made = encoder(usage=True)

    *others, last = frames(made.pieces(["Hel", "lo"]) + made.pieces(["!", CALL, End("tool_calls")]) + made.end())

    assert [chunk["usage"] for chunk in others] == [None] * 6
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "estimated": True}


def test_usage_that_nobody_asked_for_has_no_key() -> None:
    made = encoder()

    chunks = frames(made.pieces(["a", CALL]) + made.pieces(["b", "c"]) + made.pieces([End()]) + made.end())

    assert ["usage" in chunk for chunk in chunks] == [False] * 6
    assert made.end() == DONE


def test_several_answers_go_side_by_side_each_with_its_role() -> None:
    made = encoder(usage=True)
    data = made.pieces(["a"], 1) + made.pieces(["b", "c"], 0) + made.pieces(["d"], 1) + made.pieces([End()], 1)

    *chunks, last = frames(data + made.pieces([End("length")], 0) + made.end())

    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(choice["index"], choice["delta"].get("content")) for choice in choices] == [
        (1, "a"), (0, "b"), (0, "c"), (1, "d"), (1, None), (0, None),
    ]  # fmt: skip
    assert [choice["delta"].get("role") for choice in choices] == ["assistant", "assistant", None, None, None, None]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, None, "stop", "length"]
    assert last["usage"]["completion_tokens"] == 1


def test_nothing_is_nothing_and_leaves_the_role_for_the_first_piece() -> None:
    made = encoder()

    assert made.pieces([]) == b""
    assert frames(made.pieces(["a"]))[0]["choices"][0]["delta"] == {"role": "assistant", "content": "a"}
    assert made.pieces([]) == b""


def test_i14_a_failure_is_one_frame_and_no_done() -> None:
    made = encoder()
    made.pieces(["Hel"])

    problem = Problem(status=502, code="stream_interrupted", message="cut\nhere", partial_text="Hel")

    assert made.failure(problem) == (
        b'data: {"error":{"message":"cut\\nhere","type":"server_error","param":null,"code":"stream_interrupted",'
        b'"partial_text":"Hel"}}\n\n'
    )


def test_the_whole_is_the_object_as_json() -> None:
    body = encoder().whole([["Hel", "lo", End()], [CALL, End("tool_calls")]])

    completion = json.loads(body)
    assert faults(completion, "CreateChatCompletionResponse") == []
    assert [choice["message"]["content"] for choice in completion["choices"]] == ["Hello", None]
    assert completion["id"] == "chatcmpl-1"
    assert completion["usage"]["completion_tokens"] == 3


def test_it_is_an_encoder() -> None:
    made: Encoder = encoder()

    assert made.start() == b""


# --- the fast way -----------------------------------------------------------------------------------------------------


def slowly(batches: list[list[Piece]], model: str, *, usage: bool) -> bytes:
    """The stream made of nothing but the objects."""
    answer = ChatAnswer(
        id="chatcmpl-1", created=1700000000, model=model, prompt_characters=9, include_usage=usage
    )  # fmt: skip
    chunks = [chunk for batch in batches for chunk in answer.chunks(batch)] + answer.end()
    objects = [chunk.model_dump() for chunk in chunks]
    if not usage:
        objects = [{name: value for name, value in made.items() if name != "usage"} for made in objects]
    return b"".join(b"data: " + msgspec.json.encode(made) + b"\n\n" for made in objects) + DONE


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PIECES: st.SearchStrategy[Piece] = st.one_of(TEXTS, TEXTS, st.just(CALL))


@settings(max_examples=100)
@given(st.lists(st.lists(PIECES, max_size=5), max_size=5), TEXTS, st.booleans())
def test_the_fast_way_gives_the_bytes_of_the_objects(batches: list[list[Piece]], model: str, usage: bool) -> None:
    made = encoder(model, usage=usage)

    batches.append([End()])

    data = b"".join(made.pieces(batch) for batch in batches) + made.end()

    assert data == slowly(batches, model, usage=usage)


@pytest.mark.parametrize(
    "text", ['"content":""', '","usage":null}', "\u2028\r\n\0", "data: [DONE]\n\n", "\U0001f600", ""]
)
def test_words_that_look_like_the_frame_are_only_words(text: str) -> None:
    made = encoder(model=text)

    data = made.pieces([text, text]) + made.pieces([text])

    assert [(chunk["model"], chunk["choices"][0]["delta"]["content"]) for chunk in frames(data)] == [(text, text)] * 3
