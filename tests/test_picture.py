"""docs/chat.svg shows what the program shows, and fetches nothing."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from flowgpt.embedded import Server
from tests import picture

PICTURE = (Path(__file__).parents[1] / "docs" / "chat.svg").read_text("utf-8")


def drawn(svg: str) -> str:
    """The letters of a picture, row by row, without spaces."""
    return "".join("".join(unescape(text).split()) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_the_picture_shows_what_the_program_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(picture.respond) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        with picture.session() as terminal:
            shown = picture.words(terminal)

    assert drawn(PICTURE) == "".join(shown.split())
    assert "gpt-4-turbo·saved" in drawn(PICTURE)


def test_the_picture_is_small_and_fetches_nothing() -> None:
    assert len(PICTURE.encode()) < 60_000
    assert re.findall(r"https?://[^\s\"<&;)]+", PICTURE.replace("http://127.0.0.1:8000", "")) == [
        "http://www.w3.org/2000/svg"
    ]
    assert not re.search(r"@import|@font-face|url\((?!#)|<script|<image|/(home|root|tmp|work)/", PICTURE)
