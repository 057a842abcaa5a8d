"""Answers of OpenAI's Responses API: the events in order and without a gap, the whole object, and what is kept."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.formats.openai.responses_encoder import ResponsesEncoder, conversation
from flowgpt.formats.openai.responses_events import OutputTextDelta
from flowgpt.formats.openai.responses_request import ResponsesRequest
from flowgpt.formats.parameters import read
from flowgpt.formats.pieces import Encoder, End, Facts, Piece, Problem, Reason, ToolCall, Turn
from flowgpt.formats.sse import Decoder, encode
from tests.openai_description import faults

CALL = ToolCall("call_1", "add", '{"a":1}')
FUNCTION = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}


def request(**parameters: Any) -> ResponsesRequest:
    return read(json.dumps({"model": "asked", "input": "Hello"} | parameters).encode(), ResponsesRequest).values


def encoder(**parameters: Any) -> ResponsesEncoder:
    numbers = itertools.count(1)
    facts = Facts(
        new_id=lambda prefix: f"{prefix}{next(numbers)}", created=1700000000, model="answering", prompt_characters=9
    )
    return ResponsesEncoder(facts, request(**parameters))


def events(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each under the name of its type and valid by OpenAI's description."""
    decoder = Decoder()
    read = [(event.event, json.loads(event.data)) for event in decoder.feed(data)]
    assert decoder.close()
    assert [name for name, _ in read] == [event["type"] for _, event in read]
    assert [fault for _, event in read for fault in faults(event, "ResponseStreamEvent")] == []
    return [event for _, event in read]


def streamed(*batches: list[Piece], **parameters: Any) -> list[dict[str, Any]]:
    made = encoder(**parameters)
    return events(b"".join([made.start(), *map(made.pieces, batches), made.end()]))


def test_it_is_an_encoder() -> None:
    made: Encoder = encoder()

    assert made.pieces([]) == b""


def test_a_streamed_text_is_the_full_sequence_numbered_without_a_gap() -> None:
    """Provenance: OpenAI's OpenAPI, ResponseStreamEvent, and the order that its guide to streaming gives."""
    got = streamed(["Hel", "lo"], [End()])

    assert [event["type"] for event in got] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in got] == [*range(10)]
    assert [event["delta"] for event in got[4:6]] == ["Hel", "lo"]
    assert got[6]["text"] == got[7]["part"]["text"] == got[8]["item"]["content"][0]["text"] == "Hello"
    assert {event["item_id"] for event in got[3:8]} == {got[2]["item"]["id"], got[8]["item"]["id"]} == {"msg_2"}
    assert {event["output_index"] for event in got[2:9]} == {0}
    assert [event["response"]["status"] for event in (got[0], got[1], got[9])] == [
        "in_progress",
        "in_progress",
        "completed",
    ]
    assert got[9]["response"]["output"] == [got[8]["item"]]
    assert {event["response"]["id"] for event in (got[0], got[1], got[9])} == {"resp_1"}


def test_a_text_goes_out_as_literal_bytes() -> None:
    made = encoder()
    made.pieces(["first"])

    assert made.pieces(['"é\n']) == (
        b"event: response.output_text.delta\n"
        b'data: {"type":"response.output_text.delta","item_id":"msg_2","output_index":0,"content_index":0,'
        b'"logprobs":[],"delta":"\\"\xc3\xa9\\n","sequence_number":3}\n\n'
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_the_quick_way_of_texts_gives_what_the_events_encode_to(texts: list[str]) -> None:
    made = encoder()
    made.start()
    made.pieces(["first"])

    frames = [
        OutputTextDelta(item_id="msg_2", output_index=0, delta=text, sequence_number=number)
        for number, text in enumerate(texts, 5)
    ]
    assert made.pieces(texts) == b"".join(
        encode(msgspec.json.encode(frame), "response.output_text.delta") for frame in frames
    )


def test_calls_are_items_of_their_own_and_a_text_after_them_is_a_new_message() -> None:
    other = ToolCall("call_2", "add", "{}")
    got = streamed(["I add."], [CALL, other], ["Done."], [End("tool_calls")], tools=[FUNCTION])

    added = [event for event in got if event["type"] == "response.output_item.added"]
    assert [event["item"]["type"] for event in added] == ["message", "function_call", "function_call", "message"]
    assert [event["output_index"] for event in added] == [0, 1, 2, 3]
    assert [item["id"] for item in got[-1]["response"]["output"]] == ["msg_2", "fc_3", "fc_4", "msg_5"]


def test_the_events_of_a_call() -> None:
    got = streamed([CALL, End("tool_calls")], tools=[FUNCTION])
    call = {"type": "function_call", "id": "fc_2", "call_id": "call_1", "name": "add"}

    assert [event["type"].removeprefix("response.") for event in got[2:]] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert got[2]["item"] == call | {"arguments": "", "status": "in_progress"}
    assert (got[3]["delta"], got[4]["arguments"], got[4]["name"]) == ('{"a":1}', '{"a":1}', "add")
    assert got[5]["item"] == call | {"arguments": '{"a":1}', "status": "completed"}
    assert got[6]["response"]["output"] == [got[5]["item"]]
    assert {event["item_id"] for event in got[3:5]} == {"fc_2"}


@pytest.mark.parametrize(
    ("reason", "status", "details", "last"),
    [
        ("stop", "completed", None, "response.completed"),
        ("stop_sequence", "completed", None, "response.completed"),
        ("tool_calls", "completed", None, "response.completed"),
        ("length", "incomplete", {"reason": "max_output_tokens"}, "response.incomplete"),
        (None, "incomplete", None, "response.incomplete"),
    ],
)
def test_nothing_is_said_of_the_end_but_what_is_known(
    reason: Reason | None, status: str, details: dict[str, str] | None, last: str
) -> None:
    got = streamed(["Hel"], [End(reason)])[-1]

    assert (got["type"], got["response"]["status"], got["response"]["incomplete_details"]) == (last, status, details)
    assert got["response"]["output"][0]["status"] == status


def test_i14_a_failure_is_one_error_event_in_sequence_and_nothing_after_it() -> None:
    """The member `error` is for OpenAI's SDKs: without it they hand the event out, and raise nothing."""
    made = encoder()
    begun = events(made.start() + made.pieces(["Hel"]))

    [error] = events(made.failure(Problem(status=502, code="stream_interrupted", message="it was cut")))

    assert error == {
        "type": "error",
        "code": "stream_interrupted",
        "message": "it was cut",
        "param": None,
        "error": {"message": "it was cut", "type": "server_error", "param": None, "code": "stream_interrupted"},
        "sequence_number": len(begun),
    }
    assert made.response.status == "in_progress"


def test_the_object_says_what_it_was_made_by() -> None:
    response = json.loads(
        encoder(
            instructions="Be brief.",
            temperature=0.5,
            max_output_tokens=20,
            metadata={"a": "b"},
            previous_response_id="resp_0",
            tools=[FUNCTION],
            tool_choice={"type": "function", "name": "add"},
            parallel_tool_calls=False,
            text={"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
            top_p=0.5,
            user="u",
        ).whole([["Hel", "lo, you", End()]])
    )

    assert faults(response, "Response") == []
    assert response == {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "model": "answering",
        "status": "completed",
        "incomplete_details": None,
        "error": None,
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": None,
        "max_output_tokens": 20,
        "metadata": {"a": "b"},
        "previous_response_id": "resp_0",
        "parallel_tool_calls": False,
        "tools": [FUNCTION | {"description": None}],
        "tool_choice": {"type": "function", "name": "add"},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
        "output": [
            {
                "type": "message",
                "id": "msg_2",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Hello, you", "annotations": [], "logprobs": []}],
            }
        ],
        "usage": {
            "input_tokens": 3,
            "output_tokens": 3,
            "total_tokens": 6,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
            "estimated": True,
        },
    }


def test_usage_counts_texts_and_arguments() -> None:
    made = encoder(tools=[FUNCTION])
    made.whole([["12345678", CALL, "1", End("tool_calls")]])

    assert made.response.model_dump()["usage"]["output_tokens"] == 4  # 8 + 7 + 1 characters


def test_an_answer_without_text_still_has_its_message() -> None:
    assert [event["type"] for event in streamed([End("stop_sequence")])][2] == "response.output_item.added"
    assert json.loads(encoder().whole([[End()]]))["output"][0]["content"][0]["text"] == ""


PIECES = st.lists(st.sampled_from(["a", "", "b ", CALL]), max_size=8)


@given(PIECES, st.data())
def test_the_whole_answer_is_the_stream_folded_however_it_is_cut(pieces: list[Piece], data: st.DataObject) -> None:
    pieces = [*pieces, End()]
    cut = data.draw(st.integers(0, len(pieces)))
    one, other = encoder(), encoder()

    got = events(one.start() + one.pieces(pieces[:cut]) + one.pieces(pieces[cut:]) + one.end())

    assert got[-1]["response"] == json.loads(other.whole([pieces])) == one.response.model_dump()
    assert [event["sequence_number"] for event in got] == [*range(len(got))]
    assert [event["item"] for event in got if event["type"] == "response.output_item.done"] == got[-1]["response"][
        "output"
    ]


def test_a_conversation_goes_on_from_all_that_was_said_but_the_instructions() -> None:
    earlier = [Turn(role="user", text="1"), Turn(role="assistant", text="2")]
    made = encoder(instructions="Be brief.", input="3")
    made.whole([["4", CALL, End("tool_calls")]])

    assert conversation(request(instructions="Be brief.", input="3"), made.response, earlier) == [
        *earlier,
        Turn(role="user", text="3"),
        Turn(role="assistant", text="4", calls=(CALL,)),
    ]
