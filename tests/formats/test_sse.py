"""formats/sse.py: literal bytes from the WHATWG standard's own examples and grammar, and every way to cut them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flowgpt.errors import InvalidRequestError, ProtocolError
from flowgpt.formats.sse import LIMIT_BYTES, Decoder, SSEvent, encode
from fuzz.sse import model

#: bytes -> events, and whether the stream ended between two events. The first five: the standard's examples.
STREAMS: dict[str, tuple[bytes, list[tuple[str, str]], bool]] = {
    "three lines of data": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10")], True),
    "comment, id, no colon": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("message", "first event"), ("message", "second event"), ("message", " third event")],
        True,
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [("message", ""), ("message", "\n")], False),
    "one space after the colon goes": (b"data:test\n\ndata: test\n\n", [("message", "test")] * 2, True),
    "named events": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293"), ("remove", "2153"), ("add", "113411")],
        True,
    ),
    "CR": (b"data: a\rdata: b\r\rdata: c\r\r", [("message", "a\nb"), ("message", "c")], True),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", [("message", "a\nb"), ("message", "c")], True),
    "mixed ends": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r", [("message", x) for x in "abc"], True),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")], True),
    "BOM later is part of a field's name": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", "a")], True),
    "a BOM and no more": (b"\xef\xbb\xbf", [], True),
    "two BOMs": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [], True),
    "comments only": (b":\n\n: ping\n\n:ping\n", [], True),
    "a name without data is no event": (b"event: a\n\ndata: b\n\n", [("message", "b")], True),
    "an empty name is the usual one": (b"event:\ndata: b\n\n", [("message", "b")], True),
    "the last name counts": (b"event: a\nevent: b\ndata: c\n\n", [("b", "c")], True),
    "fields are case-sensitive": (b"Data: a\n data: b\ndata : c\n\n", [], True),
    "retry and unknown fields": (b"retry: 10\nfoo: bar\ndata: a\n\n", [("message", "a")], True),
    "colons in data": (b"data: a: b\n\ndata::\n\n", [("message", "a: b"), ("message", ":")], True),
    "other separators are data": (
        "data: a\u2028b\u0085c\x0bd\n\n".encode(), [("message", "a\u2028b\u0085c\x0bd")], True,
    ),
    "two bytes of a character": ("data: é€😀\n\n".encode(), [("message", "é€😀")], True),
    "not UTF-8": (b"data: a\xffb\n\n", [("message", "a\ufffdb")], True),
    "llama.cpp's field for failures": (b"error: {}\n\ndata: a\n\n", [("error", "{}"), ("message", "a")], True),
    "cut after data": (b"data: a\n\ndata: b\n", [("message", "a")], False),
    "cut in a line": (b"data: a\n\nda", [("message", "a")], False),
    "nothing": (b"", [], True),
}  # fmt: skip


def decoded(*pieces: bytes) -> tuple[list[SSEvent], bool | str]:
    """All events, and how it ended: what `close` says, or the code of the failure."""
    decoder, events = Decoder(), list[SSEvent]()
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        return events, decoder.close()
    except ProtocolError as failure:
        return events, failure.code


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_gives_these_events(name: str) -> None:
    data, events, whole = STREAMS[name]
    assert decoded(data) == ([SSEvent(*event) for event in events], whole)


@pytest.mark.parametrize("name", STREAMS)
def test_the_events_are_the_same_for_every_split(name: str) -> None:
    data = STREAMS[name][0]
    for place in range(len(data) + 1):
        assert decoded(data[:place], data[place:]) == decoded(data)
    assert decoded(*(data[place : place + 1] for place in range(len(data)))) == decoded(data)


FRAGMENTS = st.lists(
    st.sampled_from(
        [b"data", b"event", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"x", b"id"]
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=100)
@given(data=FRAGMENTS | st.binary(max_size=60), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_no_split_of_any_bytes_changes_the_events(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(places)]
    assert decoded(*pieces) == decoded(data)


@settings(max_examples=100)
@given(
    events=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30),
        ),
        max_size=6,
    )
)
def test_what_is_encoded_is_decoded_again(events: list[tuple[str, str]]) -> None:
    data = b"".join(encode(text, name) for name, text in events)
    assert decoded(data) == ([SSEvent(name or "message", text) for name, text in events], True)


@pytest.mark.parametrize(
    ("data", "event", "expected"),
    [
        ('{"a":1}', None, b'data: {"a":1}\n\n'),
        (b"bytes", None, b"data: bytes\n\n"),
        ("é", None, b"data: \xc3\xa9\n\n"),
        ("", None, b"data: \n\n"),
        (" a", None, b"data:  a\n\n"),
        ("a\nb\r\nc\rd\n", None, b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        ("x", "add", b"event: add\ndata: x\n\n"),
        ("[DONE]", None, b"data: [DONE]\n\n"),
    ],
)
def test_an_event_is_these_bytes(data: str | bytes, event: str | None, expected: bytes) -> None:
    assert encode(data, event) == expected


@pytest.mark.parametrize("event", ["a\nb", "a\rb", "a\r\n"])
def test_a_name_of_two_lines_is_refused(event: str) -> None:
    with pytest.raises(InvalidRequestError, match="more than one line"):
        encode("x", event)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize(("more", "outcome"), [(0, True), (1, "line_too_long")])
def test_d8_a_line_may_have_the_limit_and_no_byte_more(end: bytes, more: int, outcome: bool | str) -> None:
    line = b"data: " + b"x" * (LIMIT_BYTES - 6 + more)
    events, ended = decoded(line + end)
    assert (len(events), ended) == (1 if outcome is True else 0, outcome)
    assert decoded(line[:1000], line[1000:], end[:1], end[1:]) == (events, ended)


@pytest.mark.parametrize(
    ("lines", "outcome"), [(LIMIT_BYTES // 1024, True), (LIMIT_BYTES // 1024 + 1, "line_too_long")]
)
def test_an_event_of_many_lines_has_the_same_limit(lines: int, outcome: bool | str) -> None:
    data = (b"data: " + b"x" * 1023 + b"\n") * lines + b"\n"
    events, ended = decoded(data)
    assert (len(events), ended) == (1 if outcome is True else 0, outcome)
    assert decoded(data[:5000], data[5000:]) == (events, ended)


@pytest.mark.parametrize(("more", "outcome"), [(0, True), (1, "line_too_long")])
def test_the_limit_of_an_event_is_that_of_its_joined_data(more: int, outcome: bool | str) -> None:
    half = LIMIT_BYTES // 2
    events, ended = decoded(b"data: " + b"x" * half + b"\ndata: " + b"x" * (LIMIT_BYTES - half - 1 + more) + b"\n\n")
    assert ([len(event.data) for event in events], ended) == ([LIMIT_BYTES] if outcome is True else [], outcome)


def test_d8_a_bom_is_no_part_of_the_first_line() -> None:
    """Found by fuzzing: it was counted while the line's end was yet to come."""
    line = b"\xef\xbb\xbfdata: " + b"x" * (LIMIT_BYTES - 6)
    assert decoded(line, b"\n\n") == decoded(line + b"\n\n") == ([SSEvent("message", "x" * (LIMIT_BYTES - 6))], True)
    assert decoded(line + b"x") == ([], "line_too_long")


def test_d7_a_line_without_an_end_is_refused_when_it_passes_the_limit() -> None:
    """And what is held stays bounded."""
    decoder = Decoder()
    for _ in range(LIMIT_BYTES // 65536):
        assert decoder.feed(b"x" * 65536) == []
    with pytest.raises(ProtocolError, match=f"more than {LIMIT_BYTES} bytes"):
        decoder.feed(b"x")
    with pytest.raises(ProtocolError):
        decoder.feed(b"\n\n")
    with pytest.raises(ProtocolError):
        decoder.close()


def test_the_events_before_a_line_that_is_too_long_come_out_first() -> None:
    data = b"data: good\n\ndata: " + b"x" * LIMIT_BYTES + b"\n\ndata: never\n\n"
    assert decoded(data) == ([SSEvent("message", "good")], "line_too_long")
    assert decoded(data[:20], data[20:]) == decoded(data)


def test_the_tail_is_the_event_that_has_no_end_yet() -> None:
    decoder = Decoder()
    decoder.feed(b"data: a\n\ndata: b\nda")
    assert decoder.tail == b"data: b\nda"
    decoder.feed(b"ta: c\n\n")
    assert decoder.tail == b""


class Reading(RuleBasedStateMachine):
    """A decoder that is fed and asked for its end in any order, against the standard's algorithm, written plainly."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.body, self.events = Decoder(), b"", list[SSEvent]()

    @rule(data=st.sampled_from([b"data: x", b"\r", b"\n", b"\r", b"\n", b"\r\n", b"event: \xc3", b""]))
    def feed(self, data: bytes) -> None:
        self.body += data
        self.events += self.decoder.feed(data)

    @invariant()
    def it_has_told_what_the_whole_says(self) -> None:
        assert (self.events, self.decoder.close()) == model(self.body)


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=60, stateful_step_count=25)
