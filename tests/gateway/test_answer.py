"""One answer as pieces: stages in their order, a second question when a stage wants one, and all kinds of ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from flowgpt.errors import FlowGPTError, StreamInterruptedError
from flowgpt.formats.pieces import Again, Ask, End, Failure, JsonOutput, Piece, Stage, Tool, ToolCall, Turn
from flowgpt.formats.stages.schema import rules
from flowgpt.gateway import answer
from flowgpt.messages import Message
from flowgpt.reply import Reply, TextSource

WEATHER = Tool(name="weather", description="The weather of a place", parameters={"type": "object"})


def ask(**facts: Any) -> Ask:
    return Ask(**{"model": "m", "turns": [Turn(role="user", text="Hello")]} | facts)


def chain(wanted: Ask, *, hold: bool = False) -> list[Stage]:
    return answer.stages(wanted, str, rules(wanted), hold=hold)


class Model:
    """Answers with one script after the other: texts, and at last maybe an error. `asked`: all that it was asked."""

    def __init__(self, *scripts: Sequence[str | FlowGPTError]) -> None:
        self.asked: list[Sequence[Message]] = []
        self.closed = 0
        self._scripts = iter(scripts)

    def __call__(self, messages: Sequence[Message]) -> Reply:
        self.asked.append(messages)
        return Reply(TextSource(self._texts(next(self._scripts))), model="m")

    async def _texts(self, script: Sequence[str | FlowGPTError]) -> AsyncGenerator[str]:
        try:
            for text in script:
                if isinstance(text, FlowGPTError):
                    raise text
                yield text
        finally:
            self.closed += 1


def collected(model: Model, chain: Sequence[Any] = ()) -> list[Piece]:
    async def read() -> list[Piece]:
        asked: list[Message] = [{"role": "user", "content": "Hello"}]
        found: list[Piece] = []
        async for _, batch in answer.pieces(model(asked), asked, model, chain):
            found += batch
        return found

    return asyncio.run(read())


def test_texts_go_on_as_they_are_and_an_end_follows() -> None:
    assert collected(Model(["Hel", "lo"])) == ["Hel", "lo", End("stop")]


def test_a_failure_comes_after_what_came_before_it() -> None:
    cut = StreamInterruptedError("cut")

    assert collected(Model(["Hel", cut])) == ["Hel", Failure(cut)]


def test_stages_are_passed_in_their_order() -> None:
    def louder(pieces: Sequence[Piece]) -> list[Piece]:
        return [piece + "!" if isinstance(piece, str) else piece for piece in pieces]

    def twice(pieces: Sequence[Piece]) -> list[Piece]:
        return [piece * 2 if isinstance(piece, str) else piece for piece in pieces]

    assert collected(Model(["a"]), [louder, twice]) == ["a!a!", End("stop")]


def test_a_stage_that_ends_the_answer_early_ends_the_upstream() -> None:
    model = Model(["a", "b", "c"])

    def first(pieces: Sequence[Piece]) -> list[Piece]:
        return [*pieces[:1], End("length")]

    assert collected(model, [first]) == ["a", End("length")]
    assert model.closed == 1


def test_a_stage_may_hold_everything_until_the_end() -> None:
    held: list[Piece] = []

    def hold(pieces: Sequence[Piece]) -> list[Piece]:
        held.extend(pieces)
        return held if isinstance(held[-1], End) else []

    assert collected(Model(["a", "b"]), [hold]) == ["a", "b", End("stop")]


def test_a_stage_may_have_the_question_asked_again_with_more_messages() -> None:
    model = Model(["bad"], ["good"])
    more: Message = {"role": "user", "content": "Once more"}

    def judge(pieces: Sequence[Piece]) -> list[Piece]:
        if "bad" in pieces:
            return []
        return [Again((more,))] if len(model.asked) == 1 else list(pieces)

    assert collected(model, [judge]) == ["good", End("stop")]
    assert model.asked[1] == [{"role": "user", "content": "Hello"}, more]
    assert model.closed == 2


def test_leaving_early_closes_the_upstream() -> None:
    model = Model(["a", "b"])

    async def leave() -> None:
        async with contextlib.aclosing(answer.pieces(model([]), [], model, [])) as pieces:
            async for _ in pieces:
                break

    asyncio.run(leave())

    assert model.closed == 1


def test_the_instructions_stand_after_the_first_system_turns() -> None:
    turns = [
        Turn(role="system", text="Be brief."),
        Turn(role="user", text="Weather?"),
        Turn(role="system", text="Now."),
    ]

    asked = answer.messages(ask(turns=turns, tools=(WEATHER,), output=JsonOutput()))

    assert [message["role"] for message in asked] == ["system", "system", "system", "user", "system"]
    assert asked[0]["content"] == "Be brief."
    assert "weather" in asked[1]["content"]
    assert "JSON" in asked[2]["content"]
    assert [message["content"] for message in asked[3:]] == ["Weather?", "Now."]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"stop": ("lo",)}, ["Hel", End("stop_sequence", "lo")]),
        ({"max_tokens": 1}, ["Hell", End("length")]),
        ({"stop": ("o",), "max_tokens": 1}, ["Hell", End("stop_sequence", "o")]),
        ({}, ["Hello", End("stop")]),
    ],
)
def test_what_a_question_wants_makes_its_stages(facts: dict[str, Any], expected: list[Piece]) -> None:
    found = collected(Model(["Hel", "lo"]), chain(ask(**facts)))

    assert ["".join(piece for piece in found if isinstance(piece, str)), found[-1]] == expected


def test_a_repaired_answer_passes_the_later_stages() -> None:
    model = Model(["no JSON"], ['{"a": 1}'])

    found = collected(model, chain(ask(output=JsonOutput(), stop=("}",))))

    assert found == ['{"a": 1', End("stop_sequence", "}")]


@pytest.mark.parametrize(
    ("hold", "output", "asked"),
    [(True, None, 2), (False, JsonOutput(), 2), (True, JsonOutput(), 2), (False, None, 1)],
)
def test_a_wrong_call_after_a_text_is_repaired_while_nothing_has_left(
    hold: bool, output: JsonOutput | None, asked: int
) -> None:
    model = Model(["ok ", "<tool_call>", "nope</tool_call>"], ['<tool_call>{"name": "weather"}</tool_call>'])
    found = collected(model, chain(ask(tools=(WEATHER,), output=output), hold=hold))

    assert len(model.asked) == asked
    if asked == 2:
        assert found == [ToolCall("call_", "weather", "{}"), End("tool_calls")]
    else:
        assert [type(piece) for piece in found] == [str, Failure]


def side_by_side(*scripts: Sequence[str | FlowGPTError]) -> tuple[list[tuple[int, Piece]], int]:
    model = Model(*scripts)

    async def read() -> list[tuple[int, Piece]]:
        answers = [answer.pieces(model([]), [], model, [], index=index) for index in range(len(scripts))]
        async with contextlib.aclosing(answer.side_by_side(answers)) as merged:
            return [(index, piece) async for index, batch in merged for piece in batch]

    return asyncio.run(read()), model.closed


@pytest.mark.parametrize("count", [1, 2, 5])
def test_several_answers_come_side_by_side_each_whole(count: int) -> None:
    found, closed = side_by_side(*[[f"a{index}", f"b{index}"] for index in range(count)])

    for index in range(count):
        assert [piece for place, piece in found if place == index] == [f"a{index}", f"b{index}", End("stop")]
    assert closed == count


def test_who_leaves_several_answers_closes_all() -> None:
    model = Model(["a", "b"], ["c", "d"], ["e", "f"])

    async def leave() -> None:
        answers = [answer.pieces(model([]), [], model, [], index=index) for index in range(3)]
        async with contextlib.aclosing(answer.side_by_side(answers)) as merged:
            seen = set()
            async for index, _ in merged:
                seen.add(index)
                if len(seen) == 3:
                    break

    asyncio.run(leave())

    assert model.closed == 3


def test_a_fault_in_one_of_several_answers_reaches_the_reader_and_closes_the_others() -> None:
    model = Model(["a", "b"], ["c", "d"])

    def broken(pieces: Sequence[Piece]) -> list[Piece]:
        raise KeyError("a fault of ours")

    async def read() -> None:
        answers = [answer.pieces(model([]), [], model, chain) for chain in ([], [broken])]
        async with contextlib.aclosing(answer.side_by_side(answers)) as merged:
            async for _ in merged:
                pass

    with pytest.raises(KeyError, match="a fault of ours"):
        asyncio.run(read())
    assert model.closed == 2
