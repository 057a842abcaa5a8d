"""formats/cards.py: cards as other chat programs write them, and ours as they read them.

The reader here is made by hand, of PNG's own words: length, type, content, CRC. It shares no line with ours.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt import InvalidRequestError
from flowgpt.formats import cards
from flowgpt.formats.cards import Card

V2 = b"""{"spec": "chara_card_v2", "spec_version": "2.0", "data": {
    "name": "Ada", "description": "A clerk.", "personality": "calm", "scenario": "An office.", "first_mes": "Hello!",
    "mes_example": "<START>", "creator_notes": "n", "system_prompt": "s", "post_history_instructions": "p",
    "alternate_greetings": ["Hi!"], "character_book": {"entries": [], "extensions": {"x/y": 1}}, "tags": ["a"],
    "creator": "c", "character_version": "1", "extensions": {"other/program": {"deep": [1, null]}}, "unknown": true}}"""

IHDR = b"\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00\x3a\x7e\x9b\x55"
IDAT = b"\x00\x00\x00\x0aIDAT\x78\x9c\x63\x60\x00\x00\x00\x02\x00\x01\x48\xaf\xa4\x71"
IEND = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
PNG = b"\x89PNG\r\n\x1a\n"
PIXEL = PNG + IHDR + IDAT + IEND
"""A grey picture of one pixel, as in PNG's own examples."""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def text(keyword: bytes, card: bytes) -> bytes:
    return chunk(b"tEXt", keyword + b"\0" + base64.b64encode(card))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """A picture read by the letter of the format."""
    assert data[:8] == PNG
    found, place = [], 8
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        assert data[place + 8 + size : place + 12 + size] == struct.pack(">I", zlib.crc32(kind + content))
        found.append((kind, content))
        place += 12 + size
    return found


def inside(data: bytes) -> dict[bytes, Any]:
    """The cards in a picture, by keyword."""
    texts = (content.split(b"\0", 1) for kind, content in chunks(data) if kind == b"tEXt")
    return {keyword: json.loads(base64.b64decode(value, validate=True)) for keyword, value in texts}


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_card_of_v2_is_read_whole() -> None:
    card = cards.read(V2)

    assert card.fields == json.loads(V2)["data"]
    assert (card.text("name"), card.texts("tags"), card.text("unknown"), card.text("none")) == ("Ada", ["a"], "", "")
    assert card.extension("other/program") == {"deep": [1, None]}


def test_a_card_without_a_version_has_its_fields_at_the_top() -> None:
    card = cards.read(b'\xef\xbb\xbf{"name": "Ada", "first_mes": "Hello!"}')

    assert (card.text("name"), card.text("first_mes")) == ("Ada", "Hello!")


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (text(b"chara", b'{"spec": "chara_card_v2", "data": {"name": "two"}}'), "two"),
        (text(b"ccv3", b'{"spec": "chara_card_v3", "data": {"name": "three"}}'), "three"),
        (text(b"chara", V2) + text(b"ccv3", b'{"spec": "chara_card_v3", "data": {"name": "three"}}'), "three"),
        (text(b"ccv3", b'{"spec": "chara_card_v3", "data": {"name": "three"}}') + text(b"chara", V2), "three"),
        (text(b"Chara", V2), "Ada"),
        (text(b"chara", V2) + text(b"chara", b"{}"), "Ada"),
        (chunk(b"tEXt", b"Comment\0x") + chunk(b"zTXt", b"chara\0\0bomb") + text(b"chara", V2), "Ada"),
        (chunk(b"tEXt", b"chara\0" + b"\r\n".join([base64.b64encode(V2)[:76], base64.b64encode(V2)[76:]])), "Ada"),
    ],
)
def test_the_card_in_a_picture_is_the_newest_form_of_it(texts: bytes, name: str) -> None:
    assert cards.read(PNG + IHDR + texts + IDAT + IEND).text("name") == name
    assert cards.read(PNG + IHDR + IDAT + texts + IEND + b"what follows").text("name") == name


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither JSON nor a PNG"),
        (b"\xff\xd8\xff\xe0 a JPEG", "neither JSON nor a PNG"),
        (b"{", "neither JSON nor a PNG"),
        (b"[" * 100_000, "neither JSON nor a PNG"),
        (b"[]", "is no object"),
        (b"{}", "no `spec`"),
        (b'{"spec": "chara_card_v3", "data": []}', "no `spec`"),
        (b'{"spec": 5, "data": {}}', "no `spec`"),
        (PIXEL, "has no character in it"),
        (PNG + IHDR + text(b"chara", b"") + IEND, "has no character in it"),
        (PNG + IHDR + chunk(b"tEXt", b"chara") + IEND, "has no character in it"),
        (PNG + IHDR + chunk(b"tEXt", b"chara\0%%%%") + IEND, "not base64"),
        (PNG + IHDR + text(b"chara", b"\xff{}") + IEND, "neither JSON nor a PNG"),
        (PNG + text(b"chara", V2) + IHDR + IEND, "no proper PNG"),
        (PNG + IHDR + IHDR + IEND, "no proper PNG"),
        (PNG + IEND, "no proper PNG"),
        (PNG + IHDR + chunk(b"a\0b!", b"") + IEND, "no proper PNG"),
        (PNG + IHDR[:-1] + b"\0" + IEND, "the checksum of its chunk IHDR"),
        (PNG + IHDR + struct.pack(">I4s", 0xFFFFFFFF, b"tEXt") + b"chara", "is cut"),
    ],
)
def test_m6_what_is_no_card_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        cards.read(data)


def test_m6_a_file_over_the_limit_is_refused_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "LIMIT_BYTES", len(V2) - 1)

    with pytest.raises(InvalidRequestError, match="at most"):
        cards.read(V2)


def test_m6_a_picture_that_is_cut_anywhere_is_refused() -> None:
    whole = PNG + IHDR + text(b"chara", V2) + IDAT + IEND

    for place in range(len(whole)):
        with pytest.raises(InvalidRequestError):
            cards.read(whole[:place])
    assert cards.read(whole).text("name") == "Ada"


@given(st.binary(max_size=200), st.sampled_from([b"", PNG, PNG + IHDR]))
def test_m6_no_bytes_make_another_error(data: bytes, begin: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        cards.read(begin + data)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_card_as_json_has_all_that_its_version_wants_and_what_it_had() -> None:
    card = Card({"name": "Ada", "mine": 1}, {"beside": [1]})

    for version in (2, 3):
        whole = json.loads(cards.as_json(card, version))
        assert (whole["spec"], whole["spec_version"], whole["beside"]) == (
            f"chara_card_v{version}",
            f"{version}.0",
            [1],
        )
        assert whole["data"] == {
            **dict.fromkeys(
                ["description", "personality", "scenario", "first_mes", "mes_example", "creator_notes"], ""
            ),
            **dict.fromkeys(["system_prompt", "post_history_instructions", "creator", "character_version"], ""),
            "alternate_greetings": [],
            "tags": [],
            **({"group_only_greetings": []} if version == 3 else {}),
            "extensions": {},
            "name": "Ada",
            "mine": 1,
        }


def test_what_other_programs_wrote_into_a_card_stays_in_it_through_every_form() -> None:
    card = cards.read(V2)
    kept = json.loads(V2)["data"].items()

    for version in (2, 3):
        for again in (cards.as_json(card, version), cards.as_png(card, version), cards.as_png(card, version, PIXEL)):
            assert kept <= cards.read(again).fields.items()


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["name", "tags", "extensions", "x"]), VALUES))
def test_any_json_in_a_card_comes_back_as_it_was(fields: dict[str, Any]) -> None:
    for again in (cards.as_json(Card(fields, {})), cards.as_png(Card(fields, {}), picture=PIXEL)):
        assert fields.items() <= cards.read(again).fields.items()


def test_a_picture_of_v3_has_the_card_for_programs_that_know_v2_too() -> None:
    found = inside(cards.as_png(cards.read(V2), 3, PIXEL))

    assert (found[b"chara"]["spec"], found[b"ccv3"]["spec"]) == ("chara_card_v2", "chara_card_v3")
    assert found[b"chara"]["data"]["system_prompt"] == found[b"ccv3"]["data"]["system_prompt"] == "s"
    assert inside(cards.as_png(cards.read(V2), 2, PIXEL)).keys() == {b"chara"}


def test_the_picture_stays_as_it_is_and_its_old_card_goes() -> None:
    other = chunk(b"tEXt", b"Author\0me")
    picture = PNG + IHDR + text(b"chara", V2) + other + text(b"ccv3", V2) + IDAT + IEND + b"dropped"

    written = cards.as_png(Card({"name": "new"}, {}), 2, picture)

    assert written.startswith(PNG + IHDR + other + IDAT)
    assert written.endswith(IEND)
    assert [kind for kind, _ in chunks(written)] == [b"IHDR", b"tEXt", b"IDAT", b"tEXt", b"IEND"]
    assert cards.read(written).text("name") == "new"


def test_a_picture_of_our_own_is_a_proper_one_of_one_colour() -> None:
    first, other = (chunks(cards.as_png(Card({"name": name}, {}))) for name in ("Ada", "Bo"))

    assert [kind for kind, _ in first] == [b"IHDR", b"IDAT", b"tEXt", b"tEXt", b"IEND"]
    assert first[0][1] == struct.pack(">IIBBBBB", cards.WIDTH, cards.HEIGHT, 8, 2, 0, 0, 0)
    rows = zlib.decompress(first[1][1])
    assert len(rows) == cards.HEIGHT * (1 + 3 * cards.WIDTH)
    assert rows == (b"\0" + rows[1:4] * cards.WIDTH) * cards.HEIGHT
    assert first[1] != other[1]


@pytest.mark.parametrize("picture", [b"GIF89a", b"", PIXEL[:-1], PIXEL[:20]])
def test_a_picture_that_is_no_png_is_refused(picture: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the picture is"):
        cards.as_png(Card({}, {}), 3, picture)
