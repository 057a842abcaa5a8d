"""The output file as a batch's state: what a stop leaves is gone on with, and what is another's stays as it is."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flowgpt.batch.results import Results
from flowgpt.errors import FlowGPTError, InternalServerError, InvalidRequestError
from flowgpt.formats.openai.batch import answer_line, failure_line, read_result, read_row
from flowgpt.formats.openai.chat import ChatAnswer
from flowgpt.formats.pieces import End

INPUT = b"".join(b'{"prompt": "%d"}\n' % number for number in range(1, 7))
PASSING = InternalServerError("down")
FINAL = InvalidRequestError("wrong")


def line_of(number: int, failure: FlowGPTError | None = None, text: bytes = INPUT) -> bytes:
    row = read_row(text.splitlines()[number - 1], number)
    if failure is not None:
        return failure_line(row, failure, retriable=failure is PASSING)
    answer = ChatAnswer(id="chatcmpl-1", created=1, model="m", prompt_characters=4)
    return answer_line(row, answer.completion([f"answer {number}", End()]))


class Place:
    """An input and an output. `standing` opens the output, and gives the numbers of the lines that stand in it."""

    def __init__(self, folder: Path) -> None:
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self.input.write_bytes(INPUT)

    def standing(self, then: Callable[[Results], object] = lambda results: None) -> list[int]:
        with self.input.open("rb") as source, Results(self.output, source) as results:
            numbers = [number for number in range(1, 20) if results.stands(number)]
            assert (results.rows, results.answered + results.failed) == (
                sum(map(bool, self.input.read_bytes().split())) // 2,
                len(numbers),
            )
            assert source.tell() == 0
            then(results)
        return numbers

    def refused(self, words: str) -> None:
        before = self.output.read_bytes()
        with pytest.raises(InvalidRequestError, match=words):
            self.standing()
        assert self.output.read_bytes() == before


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_an_output_nothing_stands(place: Place) -> None:
    assert place.standing() == []
    assert place.output.read_bytes() == b""


def test_every_line_of_the_output_stands_wherever_the_file_was_cut(place: Place) -> None:
    lines = [line_of(number, FINAL if number == 2 else None) for number in (3, 2, 6)]
    whole = b"".join(lines)

    for offset in range(len(whole) + 1):
        place.output.write_bytes(whole[:offset])
        count = whole[:offset].count(b"\n")

        assert place.standing() == sorted((3, 2, 6)[:count])
        assert place.output.read_bytes() == b"".join(lines[:count])


def test_zeros_that_a_power_cut_left_are_cut_off(place: Place) -> None:
    place.output.write_bytes(line_of(1) + b"\0" * 500)

    assert place.standing() == [1]
    assert place.output.read_bytes() == line_of(1)


def test_what_is_written_stands_at_the_end(place: Place) -> None:
    place.output.write_bytes(line_of(1) + line_of(2)[:30])

    place.standing(lambda results: results.write(line_of(4)))

    assert place.output.read_bytes() == line_of(1) + line_of(4)
    assert place.standing() == [1, 4]


def test_a_failure_that_may_pass_is_taken_out_and_one_that_stays_is_not(place: Place) -> None:
    place.output.write_bytes(line_of(1) + line_of(2, PASSING) + line_of(3, FINAL) + line_of(4, PASSING)[:-9])
    place.output.chmod(0o640)

    assert place.standing(lambda results: results.write(line_of(2))) == [1, 3]
    assert place.output.read_bytes() == line_of(1) + line_of(3, FINAL) + line_of(2)
    assert stat.S_IMODE(place.output.stat().st_mode) == 0o640
    assert sorted(os.listdir(place.output.parent)) == ["in.jsonl", "out.jsonl"]


def test_what_a_kill_left_of_the_new_file_is_no_hindrance(place: Place) -> None:
    place.output.write_bytes(line_of(1, PASSING) + line_of(2))
    (place.output.parent / ".out.jsonl.part").write_bytes(line_of(5) * 3)

    assert place.standing() == [2]
    assert place.output.read_bytes() == line_of(2)


def test_through_a_link_the_file_itself_is_written(place: Place) -> None:
    real = place.output.with_name("real.jsonl")
    real.write_bytes(line_of(1, PASSING) + line_of(2))
    place.output.symlink_to(real)

    assert place.standing() == [2]
    assert place.output.is_symlink()
    assert real.read_bytes() == line_of(2)


def test_the_input_may_grow_and_have_other_line_ends(place: Place) -> None:
    place.output.write_bytes(line_of(1) + line_of(6))
    place.input.write_bytes(INPUT.replace(b"\n", b"\r\n") + b'{"prompt": "more"}\r\n')

    assert place.standing() == [1, 6]


def test_a_failed_line_may_be_mended(place: Place) -> None:
    place.output.write_bytes(line_of(1) + line_of(2, FINAL))
    place.input.write_bytes(INPUT.replace(b'"2"', b'"two"'))

    assert place.standing() == [1]


@pytest.mark.parametrize(
    "other",
    [
        INPUT.replace(b'"2"', b'"two"'),
        INPUT[16:],
        b'{"prompt": "new"}\n' + INPUT,
        INPUT[:16],
        b"",
        INPUT.replace(b'{"prompt": "2"}', b""),
    ],
    ids=["changed", "shorter at its beginning", "longer at its beginning", "shorter", "empty", "a blank line"],
)
def test_another_input_is_refused(place: Place, other: bytes) -> None:
    place.output.write_bytes(line_of(1) + line_of(2))
    place.input.write_bytes(other)

    place.refused("out.jsonl is the output of another input: line")


@pytest.mark.parametrize("number", [len(INPUT) + 1, 10**12, 10**30])
def test_a_line_s_number_that_no_such_input_has_takes_no_memory(place: Place, number: int) -> None:
    place.output.write_bytes(line_of(1).replace(b'"line":1,', b'"line":%d,' % number))

    place.refused(f"another input: line {number} was another")


@pytest.mark.parametrize(
    "text",
    [b"notes", b"notes\n", line_of(1) + b"notes\n" + line_of(2), line_of(1) + b"notes", b"\n", INPUT],
    ids=["a word", "a line", "between", "behind", "a newline", "an input"],
)
def test_what_is_another_s_stays_as_it_is(place: Place, text: bytes) -> None:
    place.output.write_bytes(text)

    place.refused("something else than a batch's output")


def test_the_input_is_no_output(place: Place) -> None:
    place.output.hardlink_to(place.input)

    place.refused("the output is the input")


def test_two_lines_for_a_row_are_refused(place: Place) -> None:
    place.output.write_bytes(line_of(1) + line_of(2) + line_of(1))

    place.refused("two lines for line 1 of the input")


def test_a_second_batch_on_the_same_output_is_refused(place: Place) -> None:
    for text in (b"", line_of(1, PASSING)):  # the second one is put in the first one's place
        place.output.write_bytes(text)
        place.standing(lambda _: place.refused("another batch is writing out.jsonl"))


def test_what_cannot_be_read_again_goes_on_with_nothing(place: Place) -> None:
    read, write = os.pipe()
    os.close(write)
    place.output.write_bytes(line_of(1))

    with os.fdopen(read, "rb") as source:
        with pytest.raises(InvalidRequestError, match="only when its input is a file"), Results(place.output, source):
            pytest.fail("it was opened")
        place.output.write_bytes(b"")
        with Results(place.output, source) as results:
            assert results.rows is None


def test_a_full_disk_leaves_whole_lines_only(place: Place) -> None:
    place.output.write_bytes(line_of(1))
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(results: Results) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(line_of(1)) + 50, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                results.write(line_of(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    try:
        place.standing(fill)
    finally:
        signal.signal(signal.SIGXFSZ, handler)

    assert place.output.read_bytes() == line_of(1)


def test_a_device_is_written_as_it_is(place: Place) -> None:
    place.output = Path("/dev/full")
    with place.input.open("rb") as source, Results(place.output, source) as results:
        with pytest.raises(OSError, match="No space left"):
            results.write(line_of(1))
        assert not results.stands(1)
    assert read_result(line_of(1)).line == 1
