"""FlowGPT's event stream: literal bytes in, whole values out. Rows (D5, E3 ...) are those of the list of faults."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowgpt.errors import FlowGPTError, ProtocolError, QuotaExceededError, StreamInterruptedError
from flowgpt.messages import Batch, Event
from flowgpt.protocol.events import BOM, LIMIT_HELD_EVENTS, LIMIT_LINE_BYTES, QUOTA_TEXT, Decoder, encode, shown

ANCHORS = Path(__file__).parent.parent / "anchors"
EXAMPLES = settings(max_examples=80)


class Outcome(NamedTuple):
    """All that a decoder tells about a body, whatever the batches were."""

    events: list[Event]
    failure: type[FlowGPTError] | None
    code: str | None
    message: str | None
    tail: bytes
    counted: int
    nameless: int
    unknown: dict[str, int]
    replaced: int

    @property
    def text(self) -> str:
        return "".join(event.data for event in self.events if event.name == "text")

    @property
    def fault(self) -> tuple[type[FlowGPTError] | None, str | None]:
        return self.failure, self.code


def outcome(*pieces: bytes, cut: bool = False) -> Outcome:
    decoder = Decoder()
    batches = [decoder.feed(piece) for piece in pieces]
    batches.append(decoder.cut() if cut else decoder.close())
    events = [event for batch in batches for event in batch.events()]
    failures = [batch.failure for batch in batches if batch.failure is not None]
    assert len(failures) <= 1
    failure = failures[0] if failures else None
    tail = failure.tail if isinstance(failure, StreamInterruptedError) else b"" if failure else decoder.tail
    return Outcome(
        events,
        type(failure) if failure else None,
        failure.code if failure else None,
        failure.message if failure else None,
        tail,
        decoder.events,
        decoder.nameless,
        decoder.unknown_events,
        decoder.replaced_surrogates,
    )


def split(data: bytes, offsets: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(offset % (len(data) + 1) for offset in offsets), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def every_split(data: bytes) -> Iterator[list[bytes]]:
    """Each way to cut the bytes in two, and one byte at a time."""
    yield from ([data[:place], data[place:]] for place in range(len(data) + 1))
    yield [data[place : place + 1] for place in range(len(data))]


def assert_no_split_matters(data: bytes) -> Outcome:
    whole = outcome(data)
    for pieces in every_split(data):
        assert outcome(*pieces) == whole
    return whole


def texts(*data: str) -> list[Event]:
    return [Event("text", text) for text in data]


def line(text: str) -> bytes:
    return b'{"event":"text","data":' + json.dumps(text, ensure_ascii=False).encode() + b"}\n"


GOOD = b'{"event":"text","data":"Seg"}\n'
HALF = b'{"event":"text","data":"\xc3'

# What each anchor holds: the events, the failure's class and code, the unknown events, the objects that are no event.
EXPECTED: dict[str, tuple[list[Event], type[FlowGPTError] | None, str | None, dict[str, int], int]] = {
    "captured": (texts("Seg", "ún"), None, None, {}, 0),
    "crlf": (texts("Seg", "ún"), None, None, {}, 0),
    "no_blank_lines": (texts("Seg", "ún"), None, None, {}, 0),
    "bom_no_last_newline": (texts("Seg", "ún"), None, None, {}, 0),
    "unknown_events": (
        [
            Event("title", "Greetings"),
            Event("text", "Hi"),
            Event("error", {"code": 7}),
            Event("text", "!"),
            Event("end", None),
        ],
        None,
        None,
        {"'title'": 1, "'error'": 1, "'end'": 1},
        1,
    ),
    "credit": ([], QuotaExceededError, "quota_exceeded", {}, 0),
    "credit_in_pieces": ([Event("title", None)], QuotaExceededError, "quota_exceeded", {"'title'": 1}, 0),
    "credit_in_a_longer_answer": (texts("Insufficient", " credit", " is what a bank says"), None, None, {}, 0),
    "no_text": ([Event("title", "x"), Event("title", "y")], ProtocolError, "empty_reply", {"'title'": 2}, 0),
    "surrogates": (texts("a\U0001f600", "b\ufffd", "\ufffdc"), None, None, {}, 0),
    "separators": (texts("a\u2028b\u2029c\u0085d", "e\x0b\x0c\r\n\x00f"), None, None, {}, 0),
    "cut_mid_character": (texts("Seg"), StreamInterruptedError, "stream_truncated", {}, 0),
    "bad_after_good": (texts("Seg", "ún"), ProtocolError, "bad_event", {}, 0),
    "invalid_utf8": (texts("Seg"), ProtocolError, "decode_error", {}, 0),
    "html_page": ([], ProtocolError, "not_a_stream", {}, 0),
    "sse_framed": ([], ProtocolError, "not_a_stream", {}, 0),
    "json_error": ([], ProtocolError, "not_a_stream", {}, 1),
}


# The anchors


def test_each_anchor_has_its_expected_values_and_a_line_on_its_provenance() -> None:
    files = {path.stem: len(path.read_bytes()) for path in ANCHORS.glob("*.ndjson")}
    rows = [row.split("|") for row in (ANCHORS / "README.md").read_text(encoding="utf-8").splitlines()]
    listed = {
        row[1].strip().removesuffix(".ndjson"): int(row[2]) for row in rows if len(row) == 6 and "ndjson" in row[1]
    }

    assert files.keys() == EXPECTED.keys()
    assert listed == files


def test_the_captured_anchor_is_the_published_example() -> None:
    """Provenance: docs/protocol.md#response, a capture; the one thing here that the service itself sent."""
    captured = b'{"event":"text","data":"Seg"}\n\n{"event":"text","data":"\xc3\xban"}\n\n'

    assert (ANCHORS / "captured.ndjson").read_bytes() == captured
    assert outcome(captured).text == "Según"
    assert encode(Event("text", "Seg")) + encode(Event("text", "ún")) == captured


@pytest.mark.parametrize("name", EXPECTED)
def test_d2_d3_d5_c11_an_anchor_gives_its_events_for_every_split(name: str) -> None:
    """At every offset in two, and byte by byte; the same events, failure and counters."""
    data = (ANCHORS / f"{name}.ndjson").read_bytes()
    whole, broken = assert_no_split_matters(data), outcome(data, cut=True)

    assert {outcome(*pieces, cut=True) == broken for pieces in every_split(data)} == {True}
    assert (whole.events, whole.failure, whole.code, whole.unknown, whole.nameless) == EXPECTED[name]


def test_the_captured_anchor_survives_every_cut_in_three() -> None:
    data = (ANCHORS / "captured.ndjson").read_bytes()
    whole = outcome(data)

    for first in range(len(data)):
        for second in range(first, len(data)):
            assert outcome(data[:first], data[first:second], data[second:]) == whole


# Batches


def test_the_lines_of_one_read_come_as_one_batch() -> None:
    assert Decoder().feed(line("a") + b"\n" + line("b") + line("c")) == Batch(["a", "b", "c"])


def test_half_a_line_gives_no_event_until_its_end_comes() -> None:
    decoder = Decoder()

    assert decoder.feed(b'{"event":"text",') == Batch()
    assert decoder.feed(b"") == Batch()
    assert decoder.feed(b'"data":"Hello"}') == Batch()
    assert decoder.tail == b'{"event":"text","data":"Hello"}'
    assert decoder.feed(b"\n") == Batch(["Hello"])
    assert decoder.tail == b""


def test_an_unknown_event_has_its_place_among_the_texts() -> None:
    batch = Decoder().feed(line("a") + b'{"event":"title","data":1}\n' + line("b"))

    assert batch == Batch(["a", "b"], [(1, Event("title", 1))])


def test_a_batch_with_a_failure_keeps_what_was_good_and_is_the_last() -> None:
    decoder = Decoder()
    batch = decoder.feed(line("a") + b"[]\n" + line("b"))

    assert batch.texts == ["a"]
    assert batch.failure is not None
    assert decoder.feed(line("c")) == Batch()
    assert decoder.close() == Batch()
    assert decoder.cut() == Batch()
    assert decoder.events == 1


def test_the_end_of_a_body_is_told_once() -> None:
    decoder = Decoder()
    decoder.feed(line("a"))

    assert decoder.close() == Batch()
    assert decoder.close() == Batch()


# The whole-answer quota text


def test_the_beginning_of_the_quota_text_is_held_until_it_is_something_else() -> None:
    decoder = Decoder()

    assert decoder.feed(line("I")) == Batch()
    assert decoder.feed(line("nsuff")) == Batch()
    assert decoder.feed(b'{"event":"title","data":null}\n') == Batch()
    assert decoder.feed(line("icking")) == Batch(["I", "nsuff", "icking"], [(2, Event("title"))])
    assert decoder.feed(line("I")) == Batch(["I"])


def test_a_text_that_is_no_such_beginning_is_handed_on_at_once() -> None:
    assert Decoder().feed(line("Hello")) == Batch(["Hello"])


def test_an_event_before_the_first_text_is_handed_on_at_once() -> None:
    decoder = Decoder()

    assert decoder.feed(b'{"event":"title","data":"x"}\n') == Batch([], [(0, Event("title", "x"))])
    assert decoder.feed(line(QUOTA_TEXT)) == Batch()
    assert isinstance(decoder.close().failure, QuotaExceededError)


@pytest.mark.parametrize("offset", range(1, len(QUOTA_TEXT)))
def test_the_quota_text_in_two_events_is_the_quota_error_and_no_text(offset: int) -> None:
    whole = outcome(line(QUOTA_TEXT[:offset]), line(QUOTA_TEXT[offset:]))

    assert (whole.fault, whole.events) == ((QuotaExceededError, "quota_exceeded"), [])


def test_the_quota_error_says_what_came_and_is_not_retriable() -> None:
    decoder = Decoder()
    decoder.feed(line(QUOTA_TEXT))
    failure = decoder.close().failure

    assert isinstance(failure, QuotaExceededError)
    assert (failure.message, failure.status_code, failure.retriable) == (
        "FlowGPT answered 'Insufficient credit': no credit is left",
        200,
        False,
    )


@pytest.mark.parametrize("answer", ["Insufficient credit.", "Insufficient credit ", "insufficient credit", "I"])
def test_an_answer_that_only_resembles_the_quota_text_is_an_answer(answer: str) -> None:
    assert (outcome(line(answer)).text, outcome(line(answer)).failure) == (answer, None)


def test_a_last_line_without_newline_can_complete_the_quota_text_or_end_it() -> None:
    assert outcome(line("Insufficient"), line(" credit")[:-1]).failure is QuotaExceededError
    assert outcome(line("Insufficient"), line(" cre")[:-1]).text == "Insufficient cre"
    assert outcome(line("Insufficient"), line(" credit.")[:-1]).text == "Insufficient credit."


def test_a_cut_reply_gives_what_was_held() -> None:
    """A broken connection proves nothing about the whole answer, so its text is delivered."""
    assert outcome(line("Insufficient"), line(" credit"), cut=True).events == texts("Insufficient", " credit")


def test_a_failure_gives_what_was_held() -> None:
    whole = outcome(line("Ins"), b"[]\n")

    assert (whole.events, whole.fault) == (texts("Ins"), (ProtocolError, "bad_event"))


def test_only_so_many_events_wait_for_the_question_however_they_are_cut() -> None:
    unknown = b'{"event":"x"}\n'
    at_the_limit = line("Insufficient") + unknown * (LIMIT_HELD_EVENTS - 2) + line(" credit")
    over = line("Insufficient") + unknown * (LIMIT_HELD_EVENTS - 1) + line(" credit")

    assert assert_few_splits_matter_not(at_the_limit).failure is QuotaExceededError
    assert assert_few_splits_matter_not(over).text == QUOTA_TEXT


def test_events_before_the_first_text_do_not_count_as_waiting() -> None:
    """They are handed on at once when they come alone, so they must not count when they come in the same read."""
    body = b'{"event":"x"}\n' * LIMIT_HELD_EVENTS + line(QUOTA_TEXT) + b'{"event":"y"}\n'

    assert assert_few_splits_matter_not(body).failure is QuotaExceededError


def assert_few_splits_matter_not(data: bytes) -> Outcome:
    whole = outcome(data)
    assert outcome(*(data[place : place + 1] for place in range(len(data)))) == whole
    assert outcome(*data.splitlines(keepends=True)) == whole
    return whole


# D. Bytes → lines → JSON


def assert_refused(bad: bytes, code: str = "bad_event") -> None:
    """The line fails after a good one, which is kept; as the first line it means that this is no stream at all."""
    later = assert_no_split_matters(GOOD + bad + b"\n" + GOOD)
    first = assert_no_split_matters(bad + b"\n" + GOOD)

    assert (later.events, later.fault) == (texts("Seg"), (ProtocolError, code))
    assert (first.events, first.fault) == ([], (ProtocolError, "not_a_stream" if code == "bad_event" else code))


@pytest.mark.parametrize(
    "bad",
    [
        b'"data":"\xff"',
        b'"data":"\xc0\xaf"',
        b'"data":"\xed\xa0\x80"',
        b'"data":"\xe2\x82"',
        b'"data":"\xf4\x90\x80\x80"',
        b'"data":"a","more":"\xff"',
        b'"data":"a","\xff":1',
        b'"data":"a"\xff',
    ],
)
def test_d1_bytes_that_are_not_utf8_are_refused_wherever_they_stand(bad: bytes) -> None:
    assert_refused(b'{"event":"text",' + bad + b"}", "decode_error")


def test_d2_a_character_of_any_length_may_be_cut_anywhere() -> None:
    assert assert_no_split_matters(line("é€😀") + line("\U0010ffff")).events == texts("é€😀", "\U0010ffff")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\n\n", b"\n\r\n", b"\r\r\n"])
def test_d3_the_line_ends_are_lf_and_crlf_with_and_without_blank_lines(end: bytes) -> None:
    body = GOOD[:-1] + end + line("b")[:-1]

    assert assert_no_split_matters(body).events == texts("Seg", "b")
    assert assert_no_split_matters(body + end).events == texts("Seg", "b")


def test_d3_a_lone_cr_is_white_space_and_no_line_end() -> None:
    assert assert_no_split_matters(b'\r{\r"event":\r"text","data":"a"}\r\n').events == texts("a")
    assert_refused(GOOD[:-1] + b"\r" + GOOD[:-1])


def test_d4_any_number_of_blank_lines_gives_nothing() -> None:
    whole = outcome(b"\n" * 100_000 + b" \t \r\n" * 1_000 + GOOD, b"\n" * 100_000)

    assert (whole.events, whole.counted) == (texts("Seg"), 1)


def test_d5_a_bom_at_the_start_is_dropped_and_nothing_else_is() -> None:
    assert assert_no_split_matters(BOM + GOOD).events == texts("Seg")
    assert assert_no_split_matters(BOM + GOOD[:-1]).events == texts("Seg")
    assert assert_no_split_matters(BOM + HALF).code == "stream_truncated"
    assert assert_no_split_matters(BOM).code == "empty_reply"
    assert assert_no_split_matters(BOM + BOM + GOOD[:-1]).code == "not_a_stream"
    assert assert_no_split_matters(b"\n" + BOM + GOOD).code == "not_a_stream"
    assert_refused(BOM * 2 + GOOD[:-1])


def test_d6_separators_inside_a_string_are_data() -> None:
    """U+2028, U+2029, U+0085, U+001C, FF and VT are line ends for `str.splitlines`, and none for this stream."""
    text = "a\u2028b\u2029c\u0085d\x1ce\x0cf\x0bg"

    assert assert_no_split_matters(encode(Event("text", text))).events == texts(text)
    assert assert_no_split_matters(line("a\u2028b\u0085c")).events == texts("a\u2028b\u0085c")


def test_d7_a_line_without_end_is_refused_at_the_limit_and_held_no_further() -> None:
    decoder = Decoder()
    piece = b"x" * 65_536
    failures = [batch.failure for batch in (decoder.feed(piece) for _ in range(1_600)) if batch.failure]

    assert [failure.code for failure in failures] == ["line_too_long"]
    assert len(decoder.tail) <= LIMIT_LINE_BYTES + len(piece)


class CountedPiece(bytes):
    """Bytes that count how many of them are searched or copied."""

    work = 0

    def rfind(self, *args: Any) -> int:
        CountedPiece.work += len(self)
        return super().rfind(*args)

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        CountedPiece.work += len(value) if isinstance(key, slice) else 1
        return value


class CountedTail(bytearray):
    """A buffer that counts the bytes that are appended to it, searched in it, or copied out of it."""

    work = 0

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]  # counts, and adds as its base does
        CountedTail.work += len(other)
        return super().__iadd__(other)

    def __bytes__(self) -> bytes:
        CountedTail.work += len(self)
        return bytes(memoryview(self))

    def __getitem__(self, key: Any) -> Any:
        CountedTail.work += len(self)
        return super().__getitem__(key)

    def __contains__(self, key: Any) -> bool:
        CountedTail.work += len(self)
        return super().__contains__(key)

    def find(self, *args: Any) -> int:
        CountedTail.work += len(self)
        return super().find(*args)

    def rfind(self, *args: Any) -> int:
        CountedTail.work += len(self)
        return super().rfind(*args)

    def split(self, *args: Any, **options: Any) -> Any:
        CountedTail.work += len(self)
        return super().split(*args, **options)


def work_for(line_bytes: int, piece_bytes: int) -> int:
    """How many bytes are searched or copied for one line that comes in small pieces: counted, not timed."""
    decoder = Decoder()
    decoder._tail = CountedTail()  # the one buffer between reads
    CountedPiece.work = CountedTail.work = 0
    body = line("x" * line_bytes)
    for place in range(0, len(body), piece_bytes):
        batch = decoder.feed(CountedPiece(body[place : place + piece_bytes]))
    assert batch.texts == ["x" * line_bytes]
    return CountedPiece.work + CountedTail.work


def test_d7_the_work_is_linear_in_the_bytes_however_small_the_pieces() -> None:
    small, large = work_for(20_000, 10), work_for(200_000, 10)

    assert large < 11 * small
    assert large < 4 * 200_000


def text_line_of(length: int) -> bytes:
    """One text event, `length` bytes long without its line end."""
    return b'{"event":"text","data":"' + b"x" * (length - 26) + b'"}'


@pytest.mark.parametrize("start", [b"", BOM, GOOD], ids=["first", "after a BOM", "later"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""], ids=["LF", "CRLF", "no newline"])
@pytest.mark.parametrize(("over", "code"), [(-1, None), (0, None), (1, "line_too_long")])
def test_d8_a_line_may_have_the_limit_and_not_one_byte_more(start: bytes, end: bytes, over: int, code: str) -> None:
    """However it is cut: in one read, in reads of 64 KiB, and around the last bytes."""
    content = text_line_of(LIMIT_LINE_BYTES + over)
    assert len(content) == LIMIT_LINE_BYTES + over
    body = start + content + end
    whole = outcome(body)

    assert whole.code == code
    assert whole.text.count("x") == (0 if code else len(content) - 26)
    for offset in (len(body) - 2, len(body) - 1):
        assert outcome(body[:offset], body[offset:]) == whole
    assert outcome(*(body[place : place + 65_536] for place in range(0, len(body), 65_536))) == whole


def test_d8_the_limit_is_the_same_for_an_event_of_another_name() -> None:
    for over, code in ((0, None), (1, "line_too_long")):
        content = b'{"event":"x","data":"' + b"x" * (LIMIT_LINE_BYTES - 23 + over) + b'"}\n'
        assert len(content) == LIMIT_LINE_BYTES + over + 1
        assert outcome(GOOD + content).code == code


def test_d8_short_lines_beside_each_other_may_be_longer_than_the_limit() -> None:
    count = LIMIT_LINE_BYTES // len(GOOD) + 2

    assert Decoder().feed(GOOD * count).texts == ["Seg"] * count


def test_d8_a_long_line_takes_nothing_from_the_good_ones_before_it() -> None:
    long = text_line_of(LIMIT_LINE_BYTES + 1) + b"\n"

    assert outcome(GOOD + long + GOOD).events == texts("Seg")
    assert outcome(GOOD + long + GOOD).fault == (ProtocolError, "line_too_long")
    assert outcome(GOOD, long, GOOD) == outcome(GOOD + long + GOOD)


@pytest.mark.parametrize("control", [b"\x00", b"\x01", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\t"])
def test_d9_a_raw_control_character_in_a_string_is_refused(control: bytes) -> None:
    assert_refused(b'{"event":"text","data":"a' + control + b'"}')


@pytest.mark.parametrize(
    "bad", [b"<html>", b")]}'", b"Bad gateway", b"{", b'{"event":"text",', b"{'event':'text'}", b"]"]
)
def test_d10_what_is_not_json_is_refused(bad: bytes) -> None:
    assert_refused(bad)


def test_d10_the_message_shows_a_short_escaped_piece_of_what_came() -> None:
    message = outcome(b"<p>\x1b[31m\xc3\xa9" + b"x" * 100 + b"\n").message

    assert message is not None
    assert message == "the answer is not FlowGPT's event stream: '<p>\\x1b[31m\\xe9" + "x" * 55 + "'…"
    assert (outcome(GOOD + b"oops\n").message) == "a line of the reply is no JSON object: 'oops'"


def test_d10_server_sent_events_have_their_own_message() -> None:
    decoder = Decoder()
    failure = decoder.feed(b"data: {}\n").failure

    assert isinstance(failure, ProtocolError)
    assert failure.message == "the answer is framed as server-sent events; FlowGPT's stream is bare JSON lines"
    assert failure.hint == "is base_url an OpenAI-compatible server?"
    assert_refused(b"data: {}")


@pytest.mark.parametrize("value", [b"[]", b'["event"]', b'"text"', b"5", b"null", b"true", b"-1.5"])
def test_d11_json_that_is_no_object_is_refused(value: bytes) -> None:
    assert_refused(value)


@pytest.mark.parametrize("depth", [10, 450, 700, 950, 1_100])
@pytest.mark.parametrize(
    "frame", [b'{"event":"x","data":%s}', b'{"event":"text","data":"a","more":%s}', b'{"more":%s}', b"%s"]
)
@pytest.mark.parametrize(("opened", "closed"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_d12_depth_never_ends_in_a_recursion_error(depth: int, frame: bytes, opened: bytes, closed: bytes) -> None:
    for value in (opened * depth + b"1" + closed * depth, opened * depth):
        body = GOOD + frame % value + b"\n"
        whole = outcome(body)

        assert whole.events[:1] == texts("Seg")
        assert whole.fault in ((None, None), (ProtocolError, "bad_event"))
        assert outcome(body[:40], body[40:]) == whole
    assert whole.code == "bad_event"  # never closed


def test_d12_an_object_a_hundred_thousand_levels_deep_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000

    for bad in (deep, b'{"event":"x","data":' + deep + b"}", b'{"event":"text","data":"a","more":' + deep + b"}"):
        assert outcome(GOOD + bad + b"\n").fault == (ProtocolError, "bad_event")


def test_d12_a_last_line_too_deep_to_read_is_a_cut_one() -> None:
    assert outcome(GOOD + b"[" * 100_000).code == "stream_truncated"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400"])
def test_d13_numbers_that_are_not_finite_are_refused(number: bytes) -> None:
    assert_refused(b'{"event":"x","data":[%s]}' % number)


def test_d14_a_number_of_five_thousand_digits_is_refused() -> None:
    whole = outcome(GOOD + b'{"event":"x","data":' + b"9" * 5_000 + b"}\n")

    assert (whole.events, whole.fault) == (texts("Seg"), (ProtocolError, "bad_event"))


@pytest.mark.parametrize(
    ("doubled", "event"),
    [
        (b'{"event":"text","data":"a","data":"b"}', Event("text", "b")),
        (b'{"event":"x","event":"text","data":"a"}', Event("text", "a")),
        (b'{"event":"text","data":"a","event":"x"}', Event("x", "a")),
        (b'{"event":"text","data":1,"data":"b"}', Event("text", "b")),
    ],
)
def test_d15_of_equal_keys_the_last_one_wins(doubled: bytes, event: Event) -> None:
    assert assert_no_split_matters(GOOD + doubled + b"\n").events == [*texts("Seg"), event]


def test_d16_a_lone_surrogate_becomes_a_replacement_character_and_is_counted() -> None:
    body = rb'{"event":"text","data":"\ud83d and \uDC00"}' + b"\n" + rb'{"event":"text","data":"\ud83d\ude00"}' + b"\n"
    whole = assert_no_split_matters(body)

    assert (whole.events, whole.replaced) == (texts("\ufffd and \ufffd", "\U0001f600"), 2)


def test_d16_surrogates_are_replaced_at_any_depth_and_in_names_and_keys() -> None:
    body = rb'{"event":"x\ud800","data":{"k\udfff":["\ud800",{"a":"\udbff"}]}}' + b"\n" + GOOD
    whole = assert_no_split_matters(body)

    assert whole.events[0] == Event("x\ufffd", {"k\ufffd": ["\ufffd", {"a": "\ufffd"}]})
    assert whole.replaced == 4
    assert whole.unknown == {"'x\\ufffd'": 1}


def test_d16_an_escaped_backslash_before_the_digits_is_no_surrogate() -> None:
    whole = outcome(rb'{"event":"text","data":"\\ud83d"}' + b"\n")

    assert (whole.text, whole.replaced) == (r"\ud83d", 0)


def test_d17_many_keys_and_a_long_key_are_read() -> None:
    keys = {f"k{number}": number for number in range(50_000)}
    long = "k" * (LIMIT_LINE_BYTES - 100)
    body = GOOD + encode(Event("x", keys)) + encode(Event("y", {long: 1}))

    assert outcome(body).events == [*texts("Seg"), Event("x", keys), Event("y", {long: 1})]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("body", ['{"event":"text","data":"hi"}\n\n', '{"event":"text","data":"hi"}', '\n{"event"'])
def test_d18_utf16_and_utf32_are_not_guessed(encoding: str, body: str) -> None:
    assert assert_no_split_matters(body.encode(encoding)).fault == (ProtocolError, "decode_error")


@pytest.mark.parametrize(
    "bad",
    [GOOD[:-1] + GOOD[:-1], GOOD[:-1] + b" " + GOOD[:-1], GOOD[:-1] + b",", b'{"event":"text",\n"data":"a"}', b"{\n}"],
)
def test_d19_a_line_is_one_object_and_an_object_is_one_line(bad: bytes) -> None:
    assert_refused(bad)


# E. Event semantics


def test_e1_events_of_unknown_names_are_counted_by_a_short_escaped_name() -> None:
    body = b'{"event":"\x1b"}\n'.replace(b"\x1b", b"\\u001b[1m") + encode(Event("n" * 50)) * 2 + GOOD
    whole = assert_no_split_matters(body)

    assert whole.unknown == {"'\\x1b[1m'": 1, "'" + "n" * 40 + "'…": 2}
    assert whole.text == "Seg"


def test_e1_no_more_than_sixteen_names_are_remembered() -> None:
    whole = outcome(*(encode(Event(f"name {number}", number)) for number in range(40)), encode(Event("name 3")), GOOD)

    assert len(whole.unknown) == 16
    assert whole.unknown["'name 3'"] == 2
    assert len(whole.events) == 42


def test_e2_an_object_without_an_event_is_skipped_and_counted() -> None:
    whole = assert_no_split_matters(b'{"id":1}\n{}\n' + GOOD + b'{"data":"a"}\n')

    assert (whole.events, whole.nameless, whole.counted, whole.failure) == (texts("Seg"), 3, 1, None)


def test_e2_a_reply_of_nothing_but_such_objects_is_no_stream() -> None:
    whole = assert_no_split_matters(b'{"id":1}\n{}\n')

    assert whole.fault == (ProtocolError, "not_a_stream")
    assert whole.message == "the answer is JSON, but none of it is an event"


@pytest.mark.parametrize("bad", [b'{"event":"text"}', b'{"event":"text","data":null}', b'{"event":"text","text":"a"}'])
def test_e3_a_text_event_without_text_is_refused(bad: bytes) -> None:
    assert_bad_event(bad)


@pytest.mark.parametrize("data", [b"1", b"1.5", b"true", b"[]", b'["a"]', b"{}", b'{"text":"a"}'])
def test_e4_data_that_is_no_string_is_never_made_one(data: bytes) -> None:
    assert_bad_event(b'{"event":"text","data":' + data + b"}")


def assert_bad_event(bad: bytes) -> None:
    """Refused wherever it stands: the line is an object with an event, so it is the event that is wrong."""
    later = assert_no_split_matters(GOOD + bad + b"\n" + GOOD)

    assert (later.events, later.fault) == (texts("Seg"), (ProtocolError, "bad_event"))
    assert assert_no_split_matters(bad + b"\n").fault == (ProtocolError, "bad_event")


def test_e5_an_empty_text_is_a_sign_of_life_and_no_text() -> None:
    decoder = Decoder()

    assert decoder.feed(line("")) == Batch()
    assert decoder.events == 1
    assert decoder.feed(line("a") + line("") + line("b")) == Batch(["a", "b"])
    assert decoder.events == 4


@pytest.mark.parametrize("name", [b"1", b"null", b"[]", b"{}", b"true"])
def test_e6_a_name_that_is_no_string_is_refused(name: bytes) -> None:
    assert_bad_event(b'{"event":' + name + b',"data":"a"}')


@pytest.mark.parametrize("name", ["error", "end", "title", "done", "", "Text", "text "])
def test_e7_an_event_of_another_name_never_fails_by_itself(name: str) -> None:
    whole = assert_no_split_matters(encode(Event(name, {"message": "no"})) + GOOD)

    assert (whole.events, whole.failure) == ([Event(name, {"message": "no"}), *texts("Seg")], None)


def test_e7_the_error_for_a_reply_without_text_names_the_skipped_events() -> None:
    whole = outcome(encode(Event("error", "x")) + encode(Event("end")) + encode(Event("error", "y")))

    assert whole.fault == (ProtocolError, "empty_reply")
    assert whole.message == "the reply has no text; skipped events: 'error' ×2, 'end' ×1"


@pytest.mark.parametrize("body", [b"", b"\n\n", b" ", BOM + b"\r\n", line(""), line("") * 3])
def test_e11_a_proper_end_without_any_text_is_an_error(body: bytes) -> None:
    whole = assert_no_split_matters(body)

    assert (whole.fault, whole.message) == ((ProtocolError, "empty_reply"), "the reply has no text")


def test_e11_a_broken_connection_is_judged_by_the_caller() -> None:
    assert outcome(b"", cut=True).failure is None
    assert outcome(GOOD + HALF, cut=True)[:5] == (texts("Seg"), None, None, None, HALF)


@pytest.mark.parametrize(
    "text", ["data: [DONE]", '{"event":"error","data":"x"}', '{"event":"text","data":"x"}\n\n', "\n"]
)
def test_e13_a_text_that_looks_like_the_protocol_is_text(text: str) -> None:
    assert assert_no_split_matters(encode(Event("text", text)) + GOOD).events == texts(text, "Seg")


# The end of the body


@pytest.mark.parametrize("offset", range(1, len(line("ún")) - 1))
def test_c4_a_half_line_at_the_end_is_a_cut_reply_and_never_delivered(offset: int) -> None:
    half = line("ún")[:offset]
    whole = assert_no_split_matters(GOOD + half)

    assert (whole.events, whole.fault) == (texts("Seg"), (StreamInterruptedError, "stream_truncated"))
    assert whole.tail == half
    assert whole.message == "the reply ended in the middle of a line"


def test_c10_a_last_line_without_newline_counts_when_it_is_whole() -> None:
    assert assert_no_split_matters(GOOD + line("ún")[:-1]).events == texts("Seg", "ún")
    assert assert_no_split_matters(GOOD + b'{"event":"text","data":5}').fault == (ProtocolError, "bad_event")
    assert assert_no_split_matters(HALF).fault == (StreamInterruptedError, "stream_truncated")
    assert assert_no_split_matters(b"<html>").fault == (ProtocolError, "not_a_stream")


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [("a", 3, "'a'"), ("abcd", 3, "'abc'…"), ("a\nb", 9, "'a\\nb'"), ("é\u202e", 9, "'\\xe9\\u202e'")],
)
def test_foreign_text_is_shown_short_and_on_one_line(text: str, length: int, expected: str) -> None:
    assert shown(text, length) == expected


# Properties

WORDS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
TEXT_EVENTS = st.builds(Event, st.just("text"), WORDS)
OTHER_EVENTS = st.builds(Event, WORDS.filter(lambda name: name != "text"), JSON)
OFFSETS = st.lists(st.integers(0, 10_000), max_size=12)


@EXAMPLES
@given(st.lists(TEXT_EVENTS | OTHER_EVENTS, max_size=8), OFFSETS)
def test_what_is_encoded_is_decoded_for_any_split(events: list[Event], offsets: list[int]) -> None:
    whole = outcome(*split(b"".join(map(encode, events)), offsets))

    assert whole.events == [event for event in events if event != Event("text", "")]
    assert whole.fault == ((None, None) if whole.text else (ProtocolError, "empty_reply"))


@EXAMPLES
@given(WORDS, st.lists(st.integers(0, 200), max_size=4), st.lists(OTHER_EVENTS, max_size=2), OFFSETS)
def test_the_quota_text_is_an_error_only_when_it_is_the_whole_answer(
    rest: str, cuts: list[int], others: list[Event], offsets: list[int]
) -> None:
    answer = QUOTA_TEXT + rest
    places = [0, *sorted(cut % (len(answer) + 1) for cut in cuts), len(answer)]
    events = [Event("text", answer[start:end]) for start, end in pairwise(places)]
    body = b"".join(map(encode, [*others, *events[:1], *others, *events[1:]]))
    whole = outcome(*split(body, offsets))

    assert whole.text == (answer if rest else "")
    assert whole.failure is (None if rest else QuotaExceededError)


FRAGMENTS = st.sampled_from(
    [
        GOOD,
        HALF,
        BOM,
        b"\n",
        b"\r\n",
        b"\r",
        b"\x00",
        b" ",
        b"{",
        b"}",
        b'"',
        b"\\",
        b"\xff",
        b"\xc3",
        b"[" * 2_000,
        b"{}\n",
        b'{"event":"x","data":1}\n',
        b'{"event":"text","data":"\\ud83d"}\n',
        b"data: x\n",
        b"<html>\n",
        b"NaN",
        line("Insuff"),
    ]
)


@EXAMPLES
@given(st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12).map(b"".join), OFFSETS, st.booleans())
def test_any_bytes_give_the_same_for_any_split_and_never_raise(data: bytes, offsets: list[int], cut: bool) -> None:
    whole = outcome(data, cut=cut)

    assert outcome(*split(data, offsets), cut=cut) == whole
    assert whole.failure in (None, ProtocolError, StreamInterruptedError, QuotaExceededError)


@EXAMPLES
@given(
    st.lists(
        st.tuples(
            JSON
            | st.dictionaries(
                st.sampled_from(["event", "data"]), JSON | st.text(st.characters(categories=["Cs", "Ll"]))
            ),
            st.booleans(),
        )
    ),
    OFFSETS,
)
def test_any_json_lines_give_the_same_for_any_split(values: list[tuple[Any, bool]], offsets: list[int]) -> None:
    """Lone surrogates are among them, as escapes and as bytes that are not UTF-8."""
    lines = [json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass") for value, escaped in values]
    data = b"\n".join(lines)

    assert outcome(*split(data, offsets)) == outcome(data)


LINES: dict[bytes, Event | None] = {
    line("a"): Event("text", "a"),
    line("Insufficient"): Event("text", "Insufficient"),
    line(" credit"): Event("text", " credit"),
    b'{"event":"text","data":"\\u00e9"}\r\n': Event("text", "é"),
    b'{"event":"x","data":[1]}\n': Event("x", [1]),
    b'{"event":"text","data":""}\n': None,
    b'{"id":1}\n': None,
    b" \t\n": None,
}
BAD = b"[1]\n"


class Reading(RuleBasedStateMachine):
    """A decoder that is fed pieces, ended or cut at any moment, against what is known of each line."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        self.decoder = Decoder()
        self.sent, self.coming = list[bytes](), b""
        self.fed = 0
        self.told: list[Event] = []
        self.failure: FlowGPTError | None = None
        self.ended = False

    def take(self, batch: Batch) -> None:
        assert self.failure is None or batch == Batch()
        self.told += batch.events()
        self.failure = self.failure or batch.failure

    def known(self) -> tuple[list[Event], bool]:
        """The events of the lines that have come whole; and whether one of them is bad, after which nothing counts."""
        body = b"".join(self.sent)[: self.fed]
        lines = self.sent[: body.count(b"\n")]
        good = lines[: lines.index(BAD)] if BAD in lines else lines
        return [event for event in map(LINES.get, good) if event is not None], BAD in lines

    @precondition(lambda self: not self.ended)
    @rule(lines=st.lists(st.sampled_from([*LINES, *LINES, BAD]), min_size=1, max_size=3))
    def send(self, lines: list[bytes]) -> None:
        self.sent += lines
        self.coming += b"".join(lines)

    @precondition(lambda self: not self.ended)
    @rule(size=st.integers(0, 60))
    def read(self, size: int) -> None:
        piece, self.coming = self.coming[:size], self.coming[size:]
        self.fed += len(piece)
        self.take(self.decoder.feed(piece))

    @precondition(lambda self: not self.ended)
    @rule()
    def cut(self) -> None:
        self.take(self.decoder.cut())
        self.ended = True
        assert self.told == self.known()[0]

    @precondition(lambda self: not self.ended)
    @rule()
    def close(self) -> None:
        self.read(len(self.coming))
        self.take(self.decoder.close())
        self.ended = True
        events, bad = self.known()
        text = "".join(event.data for event in events if event.name == "text")
        quota = text == QUOTA_TEXT and not bad
        assert self.told == [event for event in events if event.name != "text" or not quota]
        expected = ProtocolError if bad or not text else QuotaExceededError if quota else None
        assert (type(self.failure) if self.failure else None) is expected

    @precondition(lambda self: self.ended)
    @rule()
    def next_reply(self) -> None:
        self.begin()

    @invariant()
    def only_what_may_be_the_quota_text_is_held_back(self) -> None:
        events, bad = self.known()
        text = "".join(event.data for event in events if event.name == "text")
        if not self.ended and (bad or not QUOTA_TEXT.startswith(text)):
            assert self.told == events
        assert self.told == events[: len(self.told)] or self.ended


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=60, stateful_step_count=15)
