"""OpenAI's chat shapes, as literal JSON: the keys, the words, and what may truly be said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.formats.openai.chat import (
    ChatAnswer,
    ChatCompletionChunk,
    ChoiceDelta,
    ending,
    error_object,
    finish_reason,
    usage,
)
from flowgpt.formats.pieces import End, Piece, Problem, Reason, ToolCall
from flowgpt.messages import Verdict
from tests.openai_description import faults

CALLS = [ToolCall("call_1", "weather", '{"city":"Bonn"}'), ToolCall("call_2", "time", "{}")]


def answer(**changes: Any) -> ChatAnswer:
    return ChatAnswer(id="chatcmpl-1", created=1700000000, model="m", prompt_characters=9, **changes)


# --- whole ------------------------------------------------------------------------------------------------------------


def test_a_whole_reply_is_a_chat_completion() -> None:
    """Provenance: OpenAI's OpenAPI, CreateChatCompletionResponse: all that it requires; ours: `estimated`."""
    completion = answer().completion(["Hel", "lo", End()])

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
    assert faults(expected, "CreateChatCompletionResponse") == []


def test_a_reply_that_only_calls_tools_has_no_content() -> None:
    completion = answer().completion([*CALLS, End("tool_calls")]).model_dump()

    assert completion["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Bonn"}'},
                    },
                    {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ]
    assert completion["usage"]["completion_tokens"] == 5  # 17 characters of arguments
    assert faults(completion, "CreateChatCompletionResponse") == []


def test_text_beside_calls_stays_and_no_text_at_all_is_an_empty_one() -> None:
    made = answer().completion(["I look.", CALLS[0], End("tool_calls")], [End("length")])

    assert [choice.message.content for choice in made.choices] == ["I look.", ""]
    assert made.choices[1].message.tool_calls is None


def test_several_answers_are_several_choices_and_one_usage() -> None:
    made = answer().completion(["abcd", End()], ["abcdefgh", End("length")])

    assert [(choice.index, choice.finish_reason) for choice in made.choices] == [(0, "stop"), (1, "length")]
    assert made.usage == usage(9, 12)
    assert faults(made.model_dump(), "CreateChatCompletionResponse") == []


# --- streamed ---------------------------------------------------------------------------------------------------------


def chunk(**choice: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m", "usage": None}
    return head | {"choices": [{"index": 0, "finish_reason": None, "logprobs": None} | choice]}


def dumped(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    made = [chunk.model_dump() for chunk in chunks]
    assert [faults(chunk, "CreateChatCompletionStreamResponse") for chunk in made] == [[]] * len(made)
    return made


def test_a_stream_is_one_chunk_for_each_text_the_role_once_and_the_finish_reason_last() -> None:
    """Provenance: OpenAI's OpenAPI, CreateChatCompletionStreamResponse."""
    made = answer()

    assert dumped(made.chunks(["", "Hel"])) == [
        chunk(delta={"role": "assistant", "content": ""}),
        chunk(delta={"content": "Hel"}),
    ]
    assert made.chunks([]) == []
    assert dumped(made.chunks(["lo", End()])) == [
        chunk(delta={"content": "lo"}),
        chunk(delta={}, finish_reason="stop"),
    ]
    assert made.end() == []


def test_a_call_is_begun_with_its_name_and_its_arguments_follow() -> None:
    """Provenance: OpenAI's OpenAPI, ChatCompletionMessageToolCallChunk, and how its SDKs put calls together."""
    begun = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    second = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "time", "arguments": ""}}

    assert dumped(answer().chunks([*CALLS, End("tool_calls")])) == [
        chunk(delta={"role": "assistant", "tool_calls": [begun]}),
        chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"city":"Bonn"}'}}]}),
        chunk(delta={"tool_calls": [second]}),
        chunk(delta={"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
        chunk(delta={}, finish_reason="tool_calls"),
    ]


def test_each_of_several_answers_has_its_role_and_counts_its_own_calls() -> None:
    made = answer()
    chunks = dumped(made.chunks(["a"], 1) + made.chunks([CALLS[0]], 1) + made.chunks([CALLS[1], End()], 0))

    choices = [made["choices"][0] for made in chunks]
    assert [choice["index"] for choice in choices] == [1, 1, 1, 0, 0, 0]
    assert [choice["delta"].get("role") for choice in choices] == ["assistant", None, None, "assistant", None, None]
    assert [calls[0]["index"] for choice in choices if (calls := choice["delta"].get("tool_calls"))] == [0, 0, 0, 0]


def test_an_answer_that_ends_at_once_has_a_role_all_the_same() -> None:
    assert dumped(answer().chunks([End("stop_sequence", "x")])) == [
        chunk(delta={"role": "assistant"}, finish_reason="stop")
    ]


def test_usage_that_was_asked_for_is_one_more_chunk_without_choices() -> None:
    made = answer(include_usage=True)
    made.chunks(["Hel", "lo", CALLS[1], End()])

    (last,) = made.end()

    assert last.choices == []
    assert last.usage == usage(9, 7)
    assert faults(last.model_dump(), "CreateChatCompletionStreamResponse") == []


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "reason"), [("complete", "stop"), ("unverified", None), ("truncated", None), (None, None)]
)
def test_stop_is_said_only_of_a_reply_that_surely_came_whole(verdict: Verdict | None, reason: str | None) -> None:
    assert finish_reason(verdict) == reason


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stop", "stop"),
        ("stop_sequence", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        (None, None),
    ],
)
def test_an_end_is_said_in_openais_words_or_not_at_all(reason: Reason | None, said: str | None) -> None:
    assert ending(["a", End(reason)]) == said
    assert answer().completion(["a", End(reason)]).choices[0].finish_reason == said
    assert answer().chunks([End(reason)])[0].choices[0].finish_reason == said


def test_a_delta_says_only_what_it_adds() -> None:
    assert ChoiceDelta(content="a").model_dump_json() == '{"content":"a"}'
    assert ChoiceDelta().role is None


@pytest.mark.parametrize(("count", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_tokens_are_estimated_from_characters(count: int, tokens: int) -> None:
    estimate = usage(count, count)

    assert (estimate.prompt_tokens, estimate.completion_tokens, estimate.total_tokens) == (tokens, tokens, 2 * tokens)
    assert estimate.estimated is True


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", "invalid_request_error"),
        (401, "invalid_api_key", "authentication_error"),
        (403, "origin_refused", "permission_error"),
        (404, "model_not_found", "invalid_request_error"),
        (413, "payload_too_large", "invalid_request_error"),
        (429, "rate_limited", "rate_limit_error"),
        (429, "quota_exceeded", "insufficient_quota"),
        (500, "internal_error", "server_error"),
        (501, "not_supported", "server_error"),
        (502, "stream_interrupted", "server_error"),
        (503, "overloaded", "server_error"),
        (504, "idle_timeout", "server_error"),
    ],
)
def test_a_failure_is_openais_error_object_with_a_stable_code(status: int, code: str, kind: str) -> None:
    made = error_object(Problem(status=status, code=code, message="words", param="n", retry_after_s=3.0))

    assert made == {"error": {"message": "words", "type": kind, "param": "n", "code": code}}
    assert faults(made, "ErrorResponse") == []


def test_the_text_that_had_come_is_in_the_error() -> None:
    made = error_object(Problem(status=502, code="stream_interrupted", message="cut", partial_text="Hel"))

    assert made["error"]["partial_text"] == "Hel"
    assert faults(made, "ErrorResponse") == []


PIECES = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(CALLS))


@settings(max_examples=100)
@given(st.lists(st.lists(PIECES)))
def test_the_chunks_joined_are_the_completion(batches: list[list[Piece]]) -> None:
    streamed = answer(include_usage=True)
    batches.append([End()])
    whole = answer().completion([piece for batch in batches for piece in batch])

    deltas = [made.choices[0].delta for batch in batches for made in streamed.chunks(batch)]

    message = whole.choices[0].message
    arguments: dict[int, str] = {}
    for call in [call for delta in deltas for call in delta.tool_calls or ()]:
        arguments[call.index] = arguments.get(call.index, "") + call.function.arguments
    assert "".join(delta.content or "" for delta in deltas) == (message.content or "")
    assert [*arguments.values()] == [call.function.arguments for call in message.tool_calls or ()]
    assert [delta.role for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert streamed.end()[0].usage == whole.usage
