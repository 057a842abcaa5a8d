"""OpenAI's chat shapes, as literal JSON: the keys, the words, and what may truly be said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.formats.chat import Answer, ChatCompletionChunk, ChoiceDelta, characters, finish_reason, usage
from flowgpt.messages import Verdict


def answer(**changes: Any) -> Answer:
    return Answer(id="chatcmpl-1", created=1700000000, model="m", prompt_characters=9, **changes)


def test_a_whole_reply_is_a_chat_completion() -> None:
    """Provenance: OpenAI's OpenAPI, CreateChatCompletionResponse: all that it requires; ours: `estimated`."""
    completion = answer().completion("Hello", "complete")

    expected = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "estimated": True},
    }
    assert completion.model_dump() == expected
    assert json.loads(completion.model_dump_json()) == expected
    assert json.loads(completion.model_dump_json(indent=2)) == expected
    assert '\n  "id": "chatcmpl-1"' in completion.model_dump_json(indent=2)
    assert completion.choices[0].message.content == "Hello"


def chunk(**choice: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m", "usage": None}
    return head | {"choices": [{"index": 0, "finish_reason": None, "logprobs": None} | choice]}


def dumped(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    return [chunk.model_dump() for chunk in chunks]


def test_a_stream_is_one_chunk_for_each_text_the_role_once_and_the_finish_reason_last() -> None:
    """Provenance: OpenAI's OpenAPI, CreateChatCompletionStreamResponse."""
    made = answer()

    assert dumped(made.chunks(["", "Hel"])) == [
        chunk(delta={"role": "assistant", "content": ""}),
        chunk(delta={"content": "Hel"}),
    ]
    assert made.chunks([]) == []
    assert dumped(made.chunks(["lo"])) == [chunk(delta={"content": "lo"})]
    assert dumped(made.end("complete")) == [chunk(delta={}, finish_reason="stop")]


def test_usage_that_was_asked_for_is_one_more_chunk_without_choices() -> None:
    made = answer(include_usage=True)
    made.chunks(["Hel", "lo"])

    last = made.end("complete")[1]

    assert last.choices == []
    assert last.usage == usage(9, 5)


@pytest.mark.parametrize(
    ("verdict", "reason"), [("complete", "stop"), ("unverified", None), ("truncated", None), (None, None)]
)
def test_stop_is_said_only_of_a_reply_that_surely_came_whole(verdict: Verdict | None, reason: str | None) -> None:
    assert finish_reason(verdict) == reason
    assert answer().completion("a", verdict).choices[0].finish_reason == reason
    assert answer().end(verdict)[0].choices[0].finish_reason == reason


def test_a_delta_says_only_what_it_adds() -> None:
    assert ChoiceDelta(content="a").model_dump_json() == '{"content":"a"}'
    assert ChoiceDelta().role is None


@pytest.mark.parametrize(("count", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_tokens_are_estimated_from_characters(count: int, tokens: int) -> None:
    estimate = usage(count, count)

    assert (estimate.prompt_tokens, estimate.completion_tokens, estimate.total_tokens) == (tokens, tokens, 2 * tokens)
    assert estimate.estimated is True


@pytest.mark.parametrize(
    ("messages", "count"),
    [
        ([], 0),
        ([{"role": "user", "content": "abc"}, {"role": "system", "content": "é"}], 4),
        ([{"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "image_url"}, "?"]}], 2),
        ([{"role": "user"}, {"content": None}, "no message", 5], 0),
    ],
)
def test_the_characters_of_messages_are_those_of_their_texts(messages: list[Any], count: int) -> None:
    assert characters(messages) == count


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])))))
def test_the_chunks_joined_are_the_completion(batches: list[list[str]]) -> None:
    streamed, whole = answer(include_usage=True), answer()

    chunks = [made for texts in batches for made in streamed.chunks(texts)]

    text = "".join(made.choices[0].delta.content or "" for made in chunks)
    completion = whole.completion("".join(map("".join, batches)), "complete")
    assert text == completion.choices[0].message.content
    assert [made.choices[0].delta.role for made in chunks] == ["assistant", *[None] * (len(chunks) - 1)][: len(chunks)]
    assert streamed.end("complete")[1].usage == completion.usage
