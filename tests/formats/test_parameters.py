"""The table of parameters: what a body may be, what becomes of each name in it, and whose fault a bad one is."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.errors import InvalidRequestError
from flowgpt.formats import parameters
from flowgpt.formats.parameters import emulated, honoured, ignored, offered, read, refused, rows
from flowgpt.formats.pieces import Tool


class Part(msgspec.Struct):
    text: str


class Asked(msgspec.Struct):
    """A dialect of four rows."""

    model: Annotated[str, honoured("who answers")]
    temperature: Annotated[Annotated[float, msgspec.Meta(ge=0, le=2)] | None, honoured("randomness")] = None
    parts: Annotated[list[Part] | None, honoured("what is asked")] = None
    n: Annotated[int | None, emulated("by parallel calls", harmless=(1,))] = None
    seed: Annotated[Any, ignored()] = None
    logprobs: Annotated[Any, refused("FlowGPT has none", harmless=(False,))] = None


def test_each_row_says_what_becomes_of_a_parameter_and_why() -> None:
    table = rows(Asked)

    assert [(row.name, row.handling) for row in table.values()] == [
        ("model", "honoured"),
        ("temperature", "honoured"),
        ("parts", "honoured"),
        ("n", "emulated"),
        ("seed", "ignored"),
        ("logprobs", "refused"),
    ]
    assert table["n"].words == "by parallel calls"
    assert table["seed"].words == "FlowGPT has no word for it"


def test_a_parameter_without_a_row_cannot_be_written() -> None:
    class Forgotten(msgspec.Struct):
        model: str

    with pytest.raises(AssertionError, match=r"Forgotten\.model says not what becomes of it"):
        rows(Forgotten)


def test_i5_what_is_emulated_and_what_is_ignored_is_listed() -> None:
    got = read(b'{"model": "m", "n": 2, "seed": 7, "top_k": 3}', Asked)

    assert (got.values.model, got.values.n) == ("m", 2)
    assert got.emulated == ("n",)
    assert got.ignored == ("seed", "top_k")


def test_what_asks_for_nothing_is_not_listed_nor_refused() -> None:
    got = read(b'{"model": "m", "n": 1, "seed": null, "logprobs": false, "temperature": null}', Asked)

    assert (got.emulated, got.ignored, got.values.temperature) == ((), (), None)


def test_two_rows_of_the_same_words_are_two_though_false_equals_zero() -> None:
    class Asked(msgspec.Struct):
        asked: Annotated[Any, refused("no", harmless=[False])] = None
        how_many: Annotated[Any, refused("no", harmless=[0])] = None

    assert read(b'{"asked": false, "how_many": 0}', Asked).ignored == ()


@pytest.mark.parametrize("value", ["true", "0", '"no"', "[]"])
def test_a_refused_parameter_is_named_with_its_reason(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="logprobs: FlowGPT has none") as caught:
        read(f'{{"model": "m", "logprobs": {value}}}'.encode(), Asked)

    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logprobs")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "model"),
        (b'{"model": null}', "model"),
        (b'{"model": 1}', "model"),
        (b'{"model": "m", "temperature": "hot"}', "temperature"),
        (b'{"model": "m", "temperature": 2.5}', "temperature"),
        (b'{"model": "m", "temperature": true}', "temperature"),
        (b'{"model": "m", "parts": {}}', "parts"),
        (b'{"model": "m", "parts": [{"text": "a"}, {"text": 1}]}', "parts[1].text"),
        (b'{"model": "m", "parts": [{}]}', "parts[0].text"),
        (b'{"model": "m", "n": 1.5}', "n"),
    ],
)
def test_i5_a_wrong_type_names_the_parameter(body: bytes, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(body, Asked)

    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"m"', "not a JSON object"),
        (b'{"model": "m"', "not JSON"),
        (b'{"model": "m"} x', "not JSON"),
        (b'\xef\xbb\xbf{"model": "m"}', "not JSON"),
        ('{"model": "m"}'.encode("utf-16"), "not UTF-8, at byte 0"),
        (b'{"model": "\xff"}', "not UTF-8, at byte 11"),
        (b'{"model": "\\ud83d"}', "a string with a lone surrogate"),
        (b'{"model": "m", "other": [{"\\uDE00": 1}]}', "a string with a lone surrogate"),
        (b'{"model": "m", "model": "n"}', "names a member twice"),
        (b'{"model": "m", "parts": [{"text": "a", "text": "b"}]}', "names a member twice"),
        (b'{"model": "m", "temperature": NaN}', "NaN is no JSON number"),
        (b'{"model": "m", "temperature": -Infinity}', "-Infinity is no JSON number"),
        (b'{"model": "m", "temperature": 1e400}', "too large"),
        (b'{"model": "m", "n": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"model": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"model": ' + b'{"a":' * 40_000, "nested too deeply"),
        (b"{" + b",".join(b'"%d":1' % number for number in range(60_000)) + b"}", "more than 50,000 members"),
        (b"{" + b",".join(b'"%d" :1' % number for number in range(60_000)) + b"}", "more than 50,000 members"),
    ],
)
def test_i4_a_hostile_body_is_refused_with_words(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read(body, Asked)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert read(b'{"model": "\\ud83d\\ude00"}', Asked).values.model == "\U0001f600"


def test_i4_reading_stops_at_the_first_object_with_which_there_are_too_many_members() -> None:
    body = b'{"model": "m", "other": [' + b'{"a": 1},' * 50_001 + b"and no JSON"

    with pytest.raises(InvalidRequestError, match="more than 50,000 members"):
        read(body, Asked)


def test_i4_a_text_that_looks_like_members_has_none() -> None:
    pasted = json.dumps({str(number): number for number in range(60_000)})

    assert read(json.dumps({"model": pasted}).encode(), Asked).values.model == pasted


def test_k4_only_names_that_a_header_may_hold_are_listed() -> None:
    body = json.dumps({"model": "m", "a\r\nset-cookie: x": 1, "ä": 1, "x" * 65: 1, "fine.name-1": 1})

    assert read(body.encode(), Asked).ignored == ("?", "?", "?", "fine.name-1")


def test_the_list_of_unknown_names_is_short_however_many_there_are() -> None:
    body = json.dumps({"model": "m"} | {f"x{number}": 1 for number in range(1000)})

    assert len(read(body.encode(), Asked).ignored) == parameters.LIMIT_NAMES


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_our_error(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(read(body, Asked).values.model, str)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["model", "temperature", "parts", "n", "seed", "logprobs", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ),
    )
)
def test_any_json_is_read_or_refused_with_our_error(body: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(read(json.dumps(body).encode(errors="surrogatepass"), Asked).values.model, str)


# --- tools ------------------------------------------------------------------------------------------------------------

ADD, SUB = Tool(name="add"), Tool(name="sub")


@pytest.mark.parametrize(
    ("mode", "chosen", "left"),
    [
        ("auto", None, ((ADD, SUB), "auto")),
        ("required", None, ((ADD, SUB), "required")),
        ("none", None, ((), "auto")),
        ("required", ["sub"], ((SUB,), "required")),
        ("auto", [], ((), "auto")),
    ],
)
def test_a_choice_leaves_the_tools_that_may_be_called(mode: Any, chosen: Any, left: Any) -> None:
    assert offered([ADD, SUB], mode, chosen) == left


@pytest.mark.parametrize(
    ("tools", "mode", "chosen", "param", "words"),
    [
        ([ADD, ADD], "none", None, "tools", "two have the same name"),
        ([], "required", None, "here", "there is no tool that could be called"),
        ([ADD], "required", [], "here", "there is no tool that could be called"),
        ([ADD], "auto", ["add", "mul"], "here", "there is no tool 'mul' in `tools`"),
        ([ADD], "auto", ["\ud800" * 99], "here", "there is no tool '" + "\\ud800" * 64),
    ],
)
def test_i5_a_choice_that_cannot_be_made_names_its_parameter(
    tools: Any, mode: Any, chosen: Any, param: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        offered(tools, mode, chosen, "here")

    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: {words}")


def test_i4_what_costs_most_to_read_is_counted_before_it_is_read() -> None:
    """Whoever reads these says first that they are no JSON."""
    for costly in (b"[" + b"[]," * 250_000, b"{" + b'"a":' * 60_000):
        with pytest.raises(InvalidRequestError, match="the body has more than"):
            read(costly, Asked)
