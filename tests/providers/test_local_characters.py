"""The characters of this machine: their files and no others, and what a card says as a character and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowgpt import InvalidRequestError, StoreError, config
from flowgpt.formats import cards
from flowgpt.formats.cards import Card
from flowgpt.protocol.characters import Character
from flowgpt.protocol.request import Turn
from flowgpt.providers import local_characters
from flowgpt.providers.local_characters import add, card, character, find, names, read, remove

ADA = Card({"name": "Ada", "extensions": {"other": {"kept": 1}}}, {})


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_card_is_kept_whole_under_its_name_for_its_owner_alone() -> None:
    add("Ada", ADA)

    path = config.home() / "characters" / "Ada.json"
    assert (names(), path.stat().st_mode & 0o777) == (["Ada"], 0o600)
    assert os.listdir(path.parent) == ["Ada.json"]
    assert cards.read(path.read_bytes()).extension("other") == {"kept": 1}
    kept = find("Ada")
    assert kept is not None
    assert kept.text("name") == "Ada"


def test_a_name_that_is_taken_is_refused_and_what_is_kept_stays() -> None:
    add("Ada", ADA)
    with pytest.raises(InvalidRequestError, match="a character Ada already"):
        add("Ada", Card({"name": "Eve"}, {}))

    kept = find("Ada")
    assert kept is not None
    assert kept.text("name") == "Ada"


def test_a_home_that_cannot_be_looked_into_has_no_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose user may not enter HOME; there, too, the service's characters can be asked."""
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / ("a" * 300)))

    assert (find("Ada"), names(), remove("Ada")) == (None, [], False)


def test_what_is_removed_is_gone() -> None:
    add("Ada", ADA)

    assert (remove("Ada"), remove("Ada"), find("Ada"), names()) == (True, False, None, [])


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret", "/etc/passwd", "a/b", "a\\b", "a.b", "%2e", "a\0", "ä", "x" * 65]
)
def test_m5_a_name_never_leaves_the_folder(name: str) -> None:
    folder = config.home() / "characters"
    folder.mkdir(parents=True)
    (folder.parent / "secret.json").write_bytes(cards.as_json(ADA))

    assert find(name) is None
    assert remove(name) is False
    with pytest.raises(InvalidRequestError, match="a character's name has"):
        add(name, ADA)
    assert os.listdir(folder) == []
    assert (folder.parent / "secret.json").exists()


def test_m5_a_link_out_of_the_folder_is_no_card() -> None:
    outside = config.home() / "outside.json"
    add("inside", ADA)
    outside.write_bytes(cards.as_json(ADA))
    (local_characters.folder() / "link.json").symlink_to(outside)
    (local_characters.folder() / "other.json").symlink_to("inside.json")

    assert names() == ["inside", "other"]
    assert (find("link"), remove("link")) == (None, False)
    with pytest.raises(InvalidRequestError, match="already"):
        add("link", Card({"name": "Eve"}, {}))
    assert cards.read(outside.read_bytes()).text("name") == "Ada"


def test_what_is_no_file_of_a_card_is_not_listed() -> None:
    add("Ada", ADA)
    (local_characters.folder() / "notes.txt").write_text("x")
    (local_characters.folder() / "a b.json").write_text("{}")
    (local_characters.folder() / "folder.json").mkdir()

    assert names() == ["Ada"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"none\.json cannot be read: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(InvalidRequestError, match=r"bad\.json: it is no character card"):
        read(tmp_path / "bad.json")


def test_m6_a_file_over_the_limit_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "LIMIT_BYTES", 1000)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidRequestError, match="at most"):
        read(tmp_path / "huge.json")


def test_a_home_that_cannot_be_written_is_a_store_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "file" / "home"))

    assert (names(), find("Ada")) == ([], None)
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        add("Ada", ADA)


# --- a card as a character --------------------------------------------------------------------------------------------


def test_all_that_a_card_means_for_the_model_is_in_the_system_text() -> None:
    fields = {
        "name": "Ada",
        "description": "A clerk. ",
        "personality": "calm",
        "scenario": "An office.",
        "first_mes": "Hello {{user}}!",
        "mes_example": "<START>\n{{user}}: Who?",
        "creator_notes": "for people",
        "system_prompt": "{{original}} Be {{char}}.",
        "post_history_instructions": "Stay {{char}}. {{ORIGINAL}}",
        "alternate_greetings": ["Hi"],
        "tags": ["office", 5],
    }

    assert character(Card(fields, {})) == Character(
        title="Ada",
        description="for people",
        system="Be {{char}}.\n\nA clerk.\n\nPersonality: calm\n\nScenario: An office.\n\n"
        "Examples of how {{char}} talks:\n<START>\n{{user}}: Who?\n\nStay {{char}}.",
        greeting="Hello {{user}}!",
        tags=("office",),
    )


def test_an_empty_card_is_an_empty_character_and_a_nickname_goes_before_the_name() -> None:
    assert character(Card({}, {})) == Character()
    assert character(Card({"name": "Ada", "nickname": "A."}, {})).title == "A."
    assert character(Card({"name": 5, "tags": "x", "extensions": {"flowgpt": {"model": 5}}}, {})) == Character()


def test_a_character_of_the_service_comes_back_from_its_card_without_its_id() -> None:
    whole = Character(
        id="x",
        title="Ada",
        description="A clerk",
        kind="CHARACTER",
        language="en",
        system="Be {{char}}.",
        greeting="Hello {{user}}!",
        model="FlowGPT-Ares",
        temperature=0.4,
        nsfw=True,
        tags=("office",),
        examples=(Turn("user", "Who?"), Turn("assistant", "{{char}}.")),
        cover_url="https://c.invalid/a.png",
        thumbnail_url="https://c.invalid/t.png",
    )
    said = "<START>\n{{user}}: Who?\n{{char}}: {{char}}."
    written = card(whole)

    assert (written.text("mes_example"), written.extension("flowgpt")["id"]) == (said, "x")
    for version in (2, 3):
        back = character(cards.read(cards.as_png(written, version)))
        assert back == Character(
            title="Ada",
            description="A clerk",
            kind="CHARACTER",
            language="en",
            system=f"Be {{{{char}}}}.\n\nExamples of how {{{{char}}}} talks:\n{said}",
            greeting="Hello {{user}}!",
            model="FlowGPT-Ares",
            temperature=0.4,
            nsfw=True,
            tags=("office",),
            cover_url="https://c.invalid/a.png",
            thumbnail_url="https://c.invalid/t.png",
        )


def test_a_character_that_says_nothing_is_a_card_of_empty_fields() -> None:
    assert card(Character()).extension("flowgpt") == {"nsfw": False}
    assert character(card(Character())) == Character()
