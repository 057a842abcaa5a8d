"""formats/stages/json_mode.py: the JSON of an answer, at every cut; what is said when it has none; calls instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowgpt.errors import ProtocolError, StreamInterruptedError
from flowgpt.formats.pieces import Again, End, Failure, JsonOutput, Piece, Stage, ToolCall
from flowgpt.formats.stages import json_mode
from flowgpt.formats.stages.json_mode import instruction
from flowgpt.formats.stages.schema import Complaints, complaints

ANY_OBJECT = JsonOutput()
POINT = JsonOutput(schema={"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})
NUMBERS = JsonOutput(schema={"type": "array", "items": {"type": "integer"}})
FAILURE = Failure(StreamInterruptedError("cut"))
CALL = ToolCall("call_1", "add", "{}")


def checks(output: JsonOutput) -> Complaints | None:
    return None if output.schema is None else complaints(output.schema)


def answer(stage: Stage, text: str, end: Piece) -> list[Piece]:
    """What comes of one whole answer."""
    given = stage([text])
    return given or stage([end])


@pytest.mark.parametrize(
    ("output", "said", "expected"),
    [
        (ANY_OBJECT, '{"a": 1}', '{"a": 1}'),
        (ANY_OBJECT, ' \n{ "a":1.0e2 , "b":"\\u00e9" }\n', '{ "a":1.0e2 , "b":"\\u00e9" }'),  # as it was written
        (ANY_OBJECT, 'Sure:\n```json\n{"a": "{"}\n```\nAnything else?', '{"a": "{"}'),
        (ANY_OBJECT, 'Sure:\n```\n{"a": 1}\n```', '{"a": 1}'),
        (ANY_OBJECT, '```JSON\n{"a": 1}\n```', '{"a": 1}'),
        (ANY_OBJECT, '```py\nx = {}\n```\n```json\n{"a": 1}\n```', '{"a": 1}'),
        (ANY_OBJECT, 'Here it is [1]: {"a": {"b": 1}}. Bye', '{"a": {"b": 1}}'),
        (POINT, 'The point [0] is {"x": 1}', '{"x": 1}'),
        (POINT, '{"x": 1}\n', '{"x": 1}'),
        (NUMBERS, "The numbers {of course}: [1, 2]", "[1, 2]"),
        (JsonOutput(schema={"type": "integer"}), " 3 ", "3"),
    ],
)
@pytest.mark.parametrize("end", [End(), End(None)])
def test_the_json_is_given_as_one_text_just_as_it_was_written(
    output: JsonOutput, said: str, expected: str, end: End
) -> None:
    for place in range(len(said) + 1):
        stage = json_mode.stage(checks(output))
        assert [stage([said[:place]]), stage([said[place:]]), stage([end])] == [[], [], [expected, end]]
    stage = json_mode.stage(checks(output))
    assert stage([*said, end]) == [expected, end]


@pytest.mark.parametrize(
    ("output", "said", "fault"),
    [
        (ANY_OBJECT, "I cannot do that.", "it is not JSON: Expecting value: line 1 column 1 (char 0)."),
        (ANY_OBJECT, "[1, 2]", "it is JSON, but no object."),
        (ANY_OBJECT, '{"a": NaN}', "it is not JSON: NaN is no JSON number."),
        (ANY_OBJECT, '{"a": 1', "it is not JSON: Expecting ',' delimiter: line 1 column 8 (char 7)."),
        (POINT, "{}", '"x" is a required property.'),
        (POINT, 'Here: {"x": "1"}', 'at /x: "1" is not of type "integer".'),
        (NUMBERS, '["a", 1, null]', 'at /0: "a" is not of type "integer"; at /2: null is not of type "integer".'),
    ],
)
def test_the_model_is_asked_once_more_and_then_it_is_a_failure(output: JsonOutput, said: str, fault: str) -> None:
    stage = json_mode.stage(checks(output))
    (again,) = answer(stage, said, End())
    (failure,) = answer(stage, said, End())

    assert isinstance(again, Again)
    assert again.messages[0] == {"role": "assistant", "content": said}
    assert str(again.messages[1]["content"]).startswith(f"That answer cannot be used: {fault} Write the JSON alone")
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, ProtocolError)
    assert (failure.error.code, failure.error.partial_text) == ("invalid_output", said)
    assert fault in failure.error.message


def test_the_second_answer_stands_alone() -> None:
    stage = json_mode.stage(checks(POINT))
    answer(stage, '{"x": ', End())

    assert answer(stage, '{"x": 2}', End()) == ['{"x": 2}', End()]


def test_a_call_ends_the_wish_for_json() -> None:
    assert json_mode.stage(checks(POINT))(["I add. ", CALL, "Done", End("tool_calls")]) == [
        "I add. ",
        CALL,
        "Done",
        End("tool_calls"),
    ]


def test_of_an_answer_that_breaks_off_only_the_failure_is_left() -> None:
    """Half of a JSON is nothing to be read; the failure's error has it."""
    assert json_mode.stage(checks(POINT))(['{"x"', ": ", FAILURE]) == [FAILURE]


def test_who_is_asked_again_by_an_earlier_stage_is_held_to_json_again() -> None:
    stage = json_mode.stage(checks(POINT))

    assert stage([Again(())]) == [Again(())]
    assert stage(['{"x": 1}', End()]) == ['{"x": 1}', End()]


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_mode, "LIMIT_CHARACTERS", 10)
    stage = json_mode.stage(None)

    assert stage(["1234567890"]) == []
    (failure,) = stage(["1", "2"])
    assert isinstance(failure, Failure)
    assert failure.error.partial_text == "12345678901"


@pytest.mark.parametrize(
    "said", ["```" * 100_000, "```json\n" * 50_000, "{" * 100_000, "[]" * 100_000, "```\n" + "\n" * 100_000]
)
def test_i4_hostile_answers_are_only_invalid(said: str) -> None:
    (again,) = answer(json_mode.stage(None), said, End())

    assert isinstance(again, Again)
    assert len(str(again.messages)) < 50_000


@pytest.mark.parametrize("schema", [None, {"type": "object", "properties": {"größe": {"type": "integer"}}}])
def test_the_instruction_has_the_schema_on_a_line_of_its_own(schema: dict[str, Any] | None) -> None:
    lines = instruction(JsonOutput(schema=schema)).splitlines()

    assert "nothing else" in lines[0]
    assert [json.loads(line) for line in lines[1:]] == ([schema] if schema else [])
    assert "größe" in lines[1] if schema else "one JSON object" in lines[0]
