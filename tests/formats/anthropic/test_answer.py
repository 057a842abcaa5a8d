"""Anthropic's answers, as literal bytes: the events in their order, the message as their sum, errors and counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.formats import sse
from flowgpt.formats.anthropic.answer import (
    ContentBlockDelta,
    MessagesEncoder,
    TextDelta,
    count_tokens,
    error_object,
)
from flowgpt.formats.pieces import Encoder, End, Facts, Piece, Problem, Reason, ToolCall

CALL = ToolCall("call_1", "add", '{"a": 1}')


def encoder(prompt_characters: int = 9) -> Encoder:
    facts = Facts(
        new_id=lambda prefix: f"{prefix}1",
        created=0,
        model="m",
        prompt_characters=prompt_characters,
    )
    return MessagesEncoder(facts, None)


def events(data: bytes) -> list[dict[str, Any]]:
    """The data of each event, whose name must be its type."""
    found = sse.Decoder().feed(data)
    decoded: list[dict[str, Any]] = [json.loads(event.data) for event in found]
    assert [event.event for event in found] == [event["type"] for event in decoded]
    return decoded


def streamed(batches: Sequence[Sequence[Piece]]) -> bytes:
    made = encoder()
    return made.start() + b"".join(map(made.pieces, batches)) + made.end()


def folded(data: bytes) -> dict[str, Any]:
    """The message that a client makes of the events; fails when their order is illegal."""
    start, *rest, last = events(data)
    message: dict[str, Any] = start["message"]
    inputs: list[str] = []
    opened = False
    for event in rest:
        match event["type"]:
            case "content_block_start":
                assert (opened, event["index"]) == (False, len(message["content"]))
                opened = True
                message["content"].append(event["content_block"])
                inputs.append("")
            case "content_block_delta":
                assert (opened, event["index"]) == (True, len(message["content"]) - 1)
                block = message["content"][-1]
                if event["delta"]["type"] == "text_delta":
                    block["text"] += event["delta"]["text"]
                else:
                    inputs[-1] += event["delta"]["partial_json"]
            case "content_block_stop":
                assert (opened, event["index"]) == (True, len(message["content"]) - 1)
                opened = False
                if message["content"][-1]["type"] == "tool_use":
                    message["content"][-1]["input"] = json.loads(inputs[-1])
            case "message_delta":
                assert not opened
                message |= event["delta"] | {"usage": event["usage"]}
    assert (start["type"], last) == ("message_start", {"type": "message_stop"})
    return message


# The stream


def test_a_stream_of_texts_is_these_bytes() -> None:
    """Provenance: the event stream in Anthropic's documentation of streaming; ours: `estimated`."""
    made = encoder()

    usage = b'"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"estimated":true}'
    assert made.start() == (
        b'event: message_start\ndata: {"type":"message_start","message":{"type":"message","id":"msg_1","model":"m",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":0,'
        + usage
        + b',"role":"assistant"}}\n\n'
    )
    assert made.pieces(["Hel", 'l"o\n']) == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"Hel"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"l\\"o\\n"}}\n\n'
    )
    assert made.pieces([End()]) == (
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"input_tokens":3,"output_tokens":2,' + usage + b"}\n\n"
    )
    assert made.end() == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_calls_are_blocks_of_their_own_and_a_text_after_them_opens_a_new_one() -> None:
    got = events(streamed([["I add"], ["."], [CALL, ToolCall("call_2", "now", "{}")], ["Done", End("tool_calls")]]))

    assert [(event["type"], event.get("index")) for event in got] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("content_block_start", 3),
        ("content_block_delta", 3),
        ("content_block_stop", 3),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert got[5]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "add", "input": {}}
    assert got[6]["delta"] == {"type": "input_json_delta", "partial_json": '{"a": 1}'}
    assert got[-2]["delta"]["stop_reason"] == "tool_use"


@given(st.lists(st.text()), st.booleans())
def test_the_quick_way_for_texts_writes_what_the_structs_are(texts: list[str], after_call: bool) -> None:
    made = encoder()
    before: list[Piece] = ["x", CALL] if after_call else []
    made.pieces([*before, "begun"])

    index = 2 if after_call else 0
    deltas = [ContentBlockDelta(index=index, delta=TextDelta(text=text)) for text in texts if text]
    assert made.pieces(texts) == b"".join(
        sse.encode(delta.model_dump_json(), "content_block_delta") for delta in deltas
    )


def test_an_answer_without_words_has_no_block() -> None:
    assert [event["type"] for event in events(streamed([[""], [End()]]))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        (End("stop"), "end_turn", None),
        (End("stop_sequence", "\n\n"), "stop_sequence", "\n\n"),
        (End("length"), "max_tokens", None),
        (End("tool_calls"), "tool_use", None),
        (End(None), None, None),
    ],
)
def test_the_reason_is_a_legal_one_and_never_invented(end: End, reason: str | None, sequence: str | None) -> None:
    whole = json.loads(encoder().whole([["x", end]]))

    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert events(streamed([["x", end]]))[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


def test_i14_a_failure_is_one_error_event_with_the_stable_code() -> None:
    made = encoder()
    made.pieces(["Hel"])

    problem = Problem(status=502, code="stream_interrupted", message="cut", partial_text="Hel", request_id="req_1")

    assert made.failure(problem) == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"cut","code":"stream_interrupted",'
        b'"details":{"error_code":"stream_interrupted"},"partial_text":"Hel"},"request_id":"req_1"}\n\n'
    )


# The message


def test_a_whole_answer_is_a_message() -> None:
    """Provenance: the example of a Message in Anthropic's documentation; ours: `estimated`."""
    whole = encoder().whole([["I ", "add.", CALL, End("tool_calls")]])

    assert json.loads(whole) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "output_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "estimated": True,
        },
    }


REASONS: list[Reason | None] = ["stop", "stop_sequence", "length", "tool_calls", None]
CALLS = st.dictionaries(st.text(), st.text() | st.integers() | st.booleans(), max_size=3).map(
    lambda arguments: ToolCall("call_x", "f", json.dumps(arguments))
)
BATCHES = st.lists(st.lists(st.text() | CALLS, max_size=5), max_size=5)


@given(BATCHES, st.sampled_from(REASONS))
def test_the_whole_answer_is_the_stream_folded(batches: list[list[Piece]], reason: Reason | None) -> None:
    end = End(reason)
    pieces = [piece for batch in batches for piece in batch]

    assert folded(streamed([*batches, [end]])) == json.loads(encoder().whole([[*pieces, end]]))


# Errors and counts


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (501, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_an_error_has_anthropics_type_for_its_status(status: int, kind: str) -> None:
    assert error_object(Problem(status=status, code="some_code", message="words")) == {
        "type": "error",
        "error": {
            "type": kind,
            "message": "words",
            "code": "some_code",
            "details": {"error_code": "some_code"},
        },
    }


def test_an_error_names_the_parameter_the_request_and_what_had_come() -> None:
    problem = Problem(status=400, code="c", message="w", param="tools[0]", request_id="req_7", partial_text="Hel")

    made = error_object(problem)

    assert made["request_id"] == "req_7"
    assert (made["error"]["param"], made["error"]["partial_text"]) == ("tools[0]", "Hel")


@given(st.integers(0, 10**7))
def test_a_count_is_the_estimate_that_the_answer_will_have(characters: int) -> None:
    counted = json.loads(count_tokens(characters))

    assert counted == {
        "input_tokens": json.loads(encoder(characters).whole([[End()]]))["usage"]["input_tokens"],
        "estimated": True,
    }
    assert counted["input_tokens"] == -(-characters // 4)
