"""Character cards, as chat programs exchange them: JSON, or a PNG picture with the JSON in a text chunk. Pure.

What a card says is kept whole, unknown fields and `extensions` too; what of it makes a character is none of this room.
Sources: Character Card V2 (malfoyslastname/character-card-spec-v2, spec_v2.md) and V3 (kwaroran/character-card-spec-v3,
SPEC_V3.md); chunks: PNG, W3C Recommendation, sections 5.3 and 11.3.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import InvalidRequestError

LIMIT_BYTES = 32 * 1024 * 1024
"""A card's file, picture included. Nothing in it is ever inflated."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"

KEYWORDS = {2: b"chara", 3: b"ccv3"}
"""The text chunk in which a picture has the card, by the version of the format. Cards of V1 are in `chara` too."""

TEXTS = (
    *("name", "description", "personality", "scenario", "first_mes", "mes_example"),
    *("creator_notes", "system_prompt", "post_history_instructions", "creator", "character_version"),
)
"""What every card of V2 and V3 has, a text each."""

WIDTH, HEIGHT = 256, 384


@dataclass(frozen=True, slots=True)
class Card:
    """A card. `fields`: its `data` as it stands, unknown fields included. `others`: what stands beside `data`."""

    fields: Mapping[str, Any]
    others: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field's text; "" when it has none."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        """The texts in a field's list."""
        value = self.fields.get(name)
        return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []

    def extension(self, name: str) -> Mapping[str, Any]:
        """A program's own fields within the card; empty when there are none."""
        extensions = self.fields.get("extensions")
        value = extensions.get(name) if isinstance(extensions, dict) else None
        return value if isinstance(value, dict) else {}


def read(data: bytes) -> Card:
    """The card in a file, JSON or PNG; a picture's `ccv3` goes before its `chara`. Raises: InvalidRequestError."""
    if len(data) > LIMIT_BYTES:
        raise InvalidRequestError(f"a card has {LIMIT_BYTES:,} bytes at most, and this file more")
    if not data.startswith(SIGNATURE):
        return _card(data)
    found: dict[bytes, bytes] = {}
    for kind, content in _chunks(data):
        keyword, zero, text = content.partition(b"\0")
        if kind == b"tEXt" and zero:
            found.setdefault(keyword.lower(), text)
    text = found.get(KEYWORDS[3], found.get(KEYWORDS[2], b""))
    if not text:
        raise InvalidRequestError("the picture has no character in it: no text chunk `ccv3` or `chara`")
    try:
        return _card(base64.b64decode(b"".join(text.split()), validate=True))
    except binascii.Error:
        raise InvalidRequestError("the picture's character is not base64") from None


def _card(data: bytes) -> Card:
    try:
        value = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError("it is no character card: neither JSON nor a PNG picture") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("it is no character card: the JSON is no object")
    if "spec" not in value and isinstance(value.get("name"), str):  # V1 has the fields at the top
        return Card(value, {})
    if not str(value.get("spec")).startswith("chara_card_v") or not isinstance(value.get("data"), dict):
        raise InvalidRequestError("it is no character card: no `spec` chara_card_v2 or chara_card_v3 with `data`")
    return Card(
        value["data"], {key: what for key, what in value.items() if key not in ("spec", "spec_version", "data")}
    )


def as_json(card: Card, version: int = 3) -> bytes:
    """The card as a file of V2 or V3, with every field that its version wants."""
    fields: dict[str, Any] = dict.fromkeys(TEXTS, "")
    fields |= {"alternate_greetings": [], "tags": [], "extensions": {}}
    if version == 3:
        fields["group_only_greetings"] = []
    head = {"spec": f"chara_card_v{version}", "spec_version": f"{version}.0"}
    return msgspec.json.format(
        msgspec.json.encode({**head, "data": {**fields, **card.fields}, **card.others}), indent=2
    )


def as_png(card: Card, version: int = 3, picture: bytes | None = None) -> bytes:
    """The card within a picture (a PNG; None: a plain one), instead of the card that it has.

    One of V3 has the V2 form too, for programs that know no other. Raises: InvalidRequestError for another picture.
    """
    kept = [*_chunks(_plain(card.text("name")) if picture is None else picture)]
    kept = [(kind, content) for kind, content in kept if not _is_card(kind, content)]
    cards = [
        (b"tEXt", KEYWORDS[each] + b"\0" + base64.b64encode(as_json(card, each)))
        for each in KEYWORDS
        if each <= version
    ]
    return _png([*kept[:-1], *cards, kept[-1]])


def _is_card(kind: bytes, content: bytes) -> bool:
    return kind == b"tEXt" and content.partition(b"\0")[0].lower() in KEYWORDS.values()


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A picture's chunks, type and content, from IHDR to IEND; what follows is dropped. Raises: InvalidRequestError."""
    if not data.startswith(SIGNATURE):
        raise InvalidRequestError("the picture is no PNG")
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if len(data) < place + 12:
            raise InvalidRequestError("the picture is cut")
        size, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + size
        if len(data) < end + 4:
            raise InvalidRequestError("the picture is cut")
        if not re.fullmatch(rb"[A-Za-z]{4}", kind) or (kind == b"IHDR") != (place == len(SIGNATURE)):
            raise InvalidRequestError("the picture is no proper PNG")
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise InvalidRequestError(f"the picture is damaged: the checksum of its chunk {kind.decode()} is wrong")
        yield kind, data[place + 8 : end]
        place = end + 4


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    parts = [SIGNATURE]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


def _plain(name: str) -> bytes:
    """A picture of one colour, which the name chooses: 8 bits each of red, green and blue."""
    tone = zlib.crc32(name.encode(errors="replace"))
    colour = bytes(96 + (tone >> shift) % 128 for shift in (0, 8, 16))
    rows = (b"\0" + colour * WIDTH) * HEIGHT
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return _png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])
