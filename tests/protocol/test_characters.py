"""protocol/characters.py: what a character says, whatever of it is missing, and how a question is put to it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt import FlowGPTError, ModelNotFoundError, ProtocolError, StreamInterruptedError
from flowgpt.protocol.characters import (
    LIMIT_BYTES,
    LIMIT_TITLE,
    Character,
    Decoder,
    character_id,
    filled,
    in_character,
    named,
    parse,
)
from flowgpt.protocol.request import Prompt, Turn

WHOLE = b"""{"prompt": {
    "title": "Ada", "language": "en", "description": "A clerk", "coverURL": "https://c.invalid/a.png",
    "thumbnailURL": "https://c.invalid/t.png", "type": "CHARACTER", "nsfw": true,
    "exampleConversation": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "{{char}}."}],
    "promptTags": [["a", 0, "", "office"], ["b", 1, "", "calm"]], "welcomeMessage": "Hello {{user}}!",
    "systemMessage": "You are {{char}}.", "model": "FlowGPT-Ares", "temperature": 0.4, "uses": 12, "new": [{}]
}}"""
ADA = Character(
    id="x",
    title="Ada",
    description="A clerk",
    kind="CHARACTER",
    language="en",
    system="You are {{char}}.",
    greeting="Hello {{user}}!",
    model="FlowGPT-Ares",
    temperature=0.4,
    nsfw=True,
    tags=("office", "calm"),
    examples=(Turn("user", "Who?"), Turn("assistant", "{{char}}.")),
    cover_url="https://c.invalid/a.png",
    thumbnail_url="https://c.invalid/t.png",
)
KEYS = [
    *("title", "language", "description", "coverURL", "thumbnailURL", "type", "nsfw", "exampleConversation"),
    *("promptTags", "welcomeMessage", "systemMessage", "model", "temperature"),
]
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "role", "content"]), inner),
    max_leaves=8,
)


def test_every_field_that_clients_read_is_read_and_others_are_let_be() -> None:
    """Provenance: docs/protocol.md, "Characters"."""
    assert parse(WHOLE, id="x") == ADA


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON)))
def test_a_field_that_is_missing_or_of_a_wrong_type_is_as_if_it_were_not_there(prompt: dict[str, Any]) -> None:
    character = parse(json.dumps({"prompt": prompt}).encode())

    for field in fields(Character):
        value = getattr(character, field.name)
        if field.type == "str":
            assert isinstance(value, str)
    assert character.temperature is None or (type(character.temperature) is float and 0 <= character.temperature <= 2)
    assert all(isinstance(tag, str) and tag for tag in character.tags)
    assert all(turn.role in ("user", "assistant") and turn.content for turn in character.examples)
    json.dumps({"t": character.title, "s": character.system}).encode()
    if not any(type(prompt.get(key)) in (str, bool, float, int, list) for key in KEYS):
        assert character == Character()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 3),
        ("temperature", -0.1),
        ("temperature", True),
        ("temperature", "0.5"),
        ("temperature", float("nan")),
        ("model", "a\nb"),
        ("model", "x" * 101),
        ("promptTags", [5, [], ["a", 0, ""], ["a", 0, "", 7]]),
        ("exampleConversation", [5, {"role": "system", "content": "x"}, {"role": "user", "content": ""}, {}]),
        ("nsfw", 1),
    ],
)
def test_a_value_that_cannot_be_sent_is_left_out(field: str, value: Any) -> None:
    assert parse(json.dumps({"prompt": {field: value}}).encode()) == Character()


def test_a_mark_before_the_body_is_none_of_it() -> None:
    assert parse(b"\xef\xbb\xbf" + WHOLE, id="x") == ADA


def test_d16_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    assert parse(b'{"prompt": {"title": "A\\ud83d", "welcomeMessage": "\\ud83d\\ude00"}}') == Character(
        title="A\ufffd", greeting="😀"
    )


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", ProtocolError, "bad_character"),
        (b"<html>", ProtocolError, "bad_character"),
        (b"[]", ProtocolError, "bad_character"),
        (b"null", ProtocolError, "bad_character"),
        (b"{}", ProtocolError, "bad_character"),
        (b'{"prompt": null}', ProtocolError, "bad_character"),
        (b'{"prompt": ["title"]}', ProtocolError, "bad_character"),
        (b'{"prompt": {"title": }}', ProtocolError, "bad_character"),
        (b"[" * 100_000, ProtocolError, "bad_character"),
        (b'{"prompt": {"temperature": ' + b"9" * 5000 + b"}}", ProtocolError, "bad_character"),
        (b'{"prompt": {"title": "\xff"}}', ProtocolError, "decode_error"),
        (b'{"prompt": {"title": "A', StreamInterruptedError, "stream_truncated"),
    ],
)
def test_what_is_no_object_with_a_prompt_is_no_character(body: bytes, kind: type[FlowGPTError], code: str) -> None:
    with pytest.raises(kind) as caught:
        parse(body)

    assert caught.value.code == code


# --- the bytes as they come -------------------------------------------------------------------------------------------


def test_a_character_comes_out_the_same_however_its_bytes_are_cut() -> None:
    for place in range(len(WHOLE) + 1):
        decoder = Decoder("x")
        assert not decoder.feed(WHOLE[:place]).others
        assert not decoder.feed(WHOLE[place:]).others
        ((_, event),) = decoder.close().others
        assert (event.name, event.data) == ("character", ADA)


def test_a_body_that_ends_anywhere_before_its_end_is_cut_and_no_character() -> None:
    for place in range(1, len(WHOLE) - 2):
        decoder = Decoder("x")
        decoder.feed(WHOLE[:place])
        failure = decoder.close().failure
        assert failure is not None
        assert failure.code == "stream_truncated" or WHOLE[place - 1 : place] == b"}"
        assert decoder.cut().others == []


def test_a_body_over_the_limit_fails_at_once() -> None:
    decoder = Decoder("x")

    assert decoder.feed(b" " * LIMIT_BYTES).failure is None
    failure = decoder.feed(b" ").failure
    assert failure is not None
    assert failure.code == "response_too_large"


# --- ids --------------------------------------------------------------------------------------------------------------

NANOID, UUID = "V1StGXR8_Z5jdHi6B-myT", "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        (NANOID, NANOID),
        (UUID, UUID),
        ("flowgpt-embedded-char", "flowgpt-embedded-char"),
        ("a", "a"),
        (f"https://flowgpt.com/chat/{NANOID}", NANOID),
        (f"https://flowgpt.com/chat/{NANOID}/", NANOID),
        (f"https://flowgpt.com/chat/{NANOID}?lang=en&a=/x#top", NANOID),
        (f"https://flowgpt.com/prompt/{UUID}", UUID),
        (f"https://www.flowgpt.com/prompt/{UUID}#", UUID),
        (f"http://flowgpt.com/chat/{UUID}", UUID),
        (f"flowgpt.com/chat/{UUID}", UUID),
        (f"https://flowgpt.com/p/{NANOID}", NANOID),
        (f"https://flowgpt.com/p/{UUID}/", UUID),
    ],
)
def test_an_id_is_given_as_such_or_in_the_address_of_a_page(text: str, id_: str) -> None:
    assert character_id(text) == id_


def test_a_pages_name_is_no_id_and_it_is_said_what_to_do() -> None:
    with pytest.raises(ModelNotFoundError, match="a page's name") as caught:
        character_id("https://flowgpt.com/p/a-friendly-clerk-12")

    assert (caught.value.code, "flowgpt.com/chat/ID" in str(caught.value.hint)) == ("character_not_found", True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "%2e%2e",
        "%2e",
        "a%00",
        "a\0",
        "a\n",
        "a b",
        "ä",
        "x" * 65,
        f"https://flowgpt.com.evil.invalid/chat/{NANOID}",
        f"https://evil.invalid/chat/{NANOID}",
        f"https://evil.invalid/?u=https://flowgpt.com/chat/{NANOID}",
        f"https://flowgpt.com@evil.invalid/chat/{NANOID}",
        f"https://user@flowgpt.com/chat/{NANOID}",
        f"https://flowgpt.com:8443/chat/{NANOID}",
        f"ftp://flowgpt.com/chat/{NANOID}",
        f"https://flowgpt.com/chat/{NANOID}/more",
        f"https://flowgpt.com/user/{NANOID}",
        "https://flowgpt.com/chat/",
        "https://flowgpt.com/chat/..",
        "https://flowgpt.com/chat/%2e%2e%2fx",
        f"https://flowgpt.com/chat/{NANOID}\n",
        f"https://flowgpt.com/chat/{'x' * 65}",
    ],
)
def test_m5_nothing_else_is_an_id(text: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        character_id(text)

    assert caught.value.code == "character_not_found"
    assert str(caught.value).isprintable()


@given(st.text())
def test_m5_what_is_taken_for_an_id_is_safe_in_a_path(text: str) -> None:
    try:
        id_ = character_id(text)
    except ModelNotFoundError:
        return
    assert id_.replace("-", "").replace("_", "").isalnum() or set(id_) <= {"-", "_"}
    assert id_.isascii()


# --- placeholders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("{{user}} and {{char}}", "Bo and Ada"),
        ("{{USER}}{{Char}}{{uSeR}}", "BoAdaBo"),
        ("{{{user}}}", "{Bo}"),
        ("{{ user }} {user} {{users}} {{}} {{", "{{ user }} {user} {{users}} {{}} {{"),
        ("{{random:a,b}} ${user} %s {0} \\1", "{{random:a,b}} ${user} %s {0} \\1"),
        ("{{u\u017fer}} {{U\u017fER}}", "{{u\u017fer}} {{U\u017fER}}"),
    ],
)
def test_m7_placeholders_are_two_words_and_nothing_else_is_evaluated(text: str, whole: str) -> None:
    assert filled(text, {"user": "Bo", "char": "Ada"}) == whole


def test_m7_what_is_filled_in_is_not_looked_at_again() -> None:
    assert filled("{{user}}{{char}}", {"user": "{{char}}", "char": "\\g<0>{{user}}"}) == "{{char}}\\g<0>{{user}}"


def test_a_hostile_title_makes_no_text_thousands_of_times_as_long() -> None:
    body = json.dumps({"prompt": {"title": "T" * 400_000, "systemMessage": "{{char}}" * 70_000}}).encode()

    whole = named(parse(body), "Bo")

    assert (len(whole.title), len(whole.system)) == (LIMIT_TITLE, 70_000 * LIMIT_TITLE)


def test_every_text_of_a_character_is_filled_but_its_title() -> None:
    text = "{{USER}} {{char}}"
    whole = Character(title="A{{user}}", description=text, system=text, greeting=text, examples=(Turn("user", text),))

    assert named(whole, "Bo") == Character(
        title="A{{user}}",
        description="Bo A{{user}}",
        system="Bo A{{user}}",
        greeting="Bo A{{user}}",
        examples=(Turn("user", "Bo A{{user}}"),),
    )


# --- a question to a character ----------------------------------------------------------------------------------------

SAYS = Character(system="Be Ada.", greeting="Hello!")
HELLO = Turn("assistant", "Hello!")


@pytest.mark.parametrize(
    ("prompt", "character", "put"),
    [
        (Prompt("?"), Character(), Prompt("?")),
        (Prompt("?"), SAYS, Prompt("?", (HELLO,), "Be Ada.")),
        (Prompt("?", (), "Be short."), SAYS, Prompt("?", (HELLO,), "Be Ada.\nBe short.")),
        (Prompt("?", (), "Be short."), Character(greeting="Hello!"), Prompt("?", (HELLO,), "Be short.")),
        (Prompt("?", (HELLO,)), SAYS, Prompt("?", (HELLO,), "Be Ada.")),
        (Prompt("?", (Turn("assistant", "Hi, Bo!"),)), SAYS, Prompt("?", (Turn("assistant", "Hi, Bo!"),), "Be Ada.")),
        (Prompt("b", (Turn("user", "a"),)), SAYS, Prompt("b", (HELLO, Turn("user", "a")), "Be Ada.")),
        (Prompt("Hello!"), SAYS, Prompt("Hello!", (), "Be Ada.")),
    ],
)
def test_the_characters_words_come_before_the_callers_and_its_greeting_is_said_once(
    prompt: Prompt, character: Character, put: Prompt
) -> None:
    assert in_character(prompt, character) == put
