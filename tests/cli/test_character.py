"""`flowgpt character`: what it shows, keeps, gives out and takes in, and a talk with one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowgpt.embedded import Server
from flowgpt.formats import cards
from flowgpt.formats.cards import Card
from flowgpt.providers import local_characters
from tests.cli.conftest import Invoke, Start, Write
from tests.upstream import Upstream, answer, reply

EVIL = "A\x1b[2Jd\x07a\u202e\x9b1m\r\n!"
ADA = {
    "title": EVIL,
    "description": f"A clerk.{EVIL}",
    "systemMessage": f"You are {{{{char}}}}.{EVIL}",
    "welcomeMessage": "Hello {{user}}!",
    "exampleConversation": [{"role": "user", "content": EVIL}],
    "promptTags": [["a", 0, "", EVIL]],
    "model": "FlowGPT-Ares",
    "temperature": 0.5,
}
ID = "V1StGXR8_Z5jdHi6B-myT"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, configure: Write) -> Iterator[Server]:
    configure("max_retries = 0\n")
    with Server(characters={ID: ADA, "bare": {}}) as server:
        monkeypatch.setenv("FLOWGPT_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    """A card of another program."""
    path = tmp_path / "ada card.json"
    path.write_bytes(cards.as_json(Card({"name": "Ada L.", "first_mes": "Hi!", "x": 1}, {}), 2))
    return path


# --- show -------------------------------------------------------------------------------------------------------------


def test_e14_a_character_is_shown_whole_and_commands_no_terminal(server: Server, invoke: Invoke) -> None:
    shown = invoke("character", "show", f"https://flowgpt.com/chat/{ID}?lang=en")

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == (
        f"A[2Jda1m !\n\nA clerk.A[2Jda1m\n!\n\nid           {ID}\nmodel        FlowGPT-Ares\ntemperature  0.5\n"
        "tags         A[2Jda1m !\n\nSystem text:\n  You are {{char}}.A[2Jda1m\n  !\n\nGreeting:\n  Hello {{user}}!\n\n"
        "Examples:\n  user: A[2Jda1m\n  !\n"
    )
    assert [(request.method, request.path) for request in server.requests] == [("GET", f"/prompt/{ID}/")]


def test_a_character_that_says_nothing_is_shown_too(server: Server, invoke: Invoke) -> None:
    assert invoke("character", "show", "bare").stdout == "(without a title)\n\nid           bare\n"


def test_json_has_every_field_as_it_came(server: Server, invoke: Invoke) -> None:
    shown = json.loads(invoke("character", "show", "--json", ID).stdout)

    assert (shown["title"], shown["id"], shown["tags"]) == (EVIL, ID, [EVIL])
    assert shown["examples"] == [{"role": "user", "content": EVIL}]
    assert shown["greeting"] == "Hello {{user}}!"


def test_a_kept_card_and_a_file_are_shown_without_asking_anybody(server: Server, invoke: Invoke, ada: Path) -> None:
    invoke("character", "import", str(ada))

    for who in (str(ada), "Ada-L", "character:Ada-L"):
        assert invoke("character", "show", who).stdout == "Ada L.\n\nGreeting:\n  Hi!\n"
    assert not server.requests


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("nobody", "there is no character nobody"),
        ("../x", "'../x' is no character's id"),
        ("https://evil.invalid/chat/x", "is no character's id, and no address of a page on flowgpt.com"),
        ("https://flowgpt.com/p/a-clerk", "'a-clerk' is a page's name"),
        ("none.png", "none.png cannot be read: No such file"),
    ],
)
def test_what_is_no_character_is_told_with_the_next_step(server: Server, invoke: Invoke, who: str, words: str) -> None:
    shown = invoke("character", "show", who)

    assert (shown.exit_code, shown.stdout) == (2, "")
    assert words in shown.stderr
    assert who.endswith(".png") or "\nhint: " in shown.stderr
    assert "flowgpt models" not in shown.stderr


def test_the_embedded_server_answers_where_nothing_is_configured(start: Start) -> None:
    with start("character", "show", "flowgpt-embedded-char") as child:
        out, err = child.communicate(timeout=60)

    assert (child.returncode, out.splitlines()[0]) == (0, b"The embedded guide")
    assert b"so the embedded server answers" in err


# --- import, list, export, remove -------------------------------------------------------------------------------------


def test_a_card_is_imported_listed_and_removed(invoke: Invoke, ada: Path) -> None:
    taken = invoke("character", "import", str(ada))
    assert (taken.exit_code, taken.stdout) == (0, "character:Ada-L\n")
    assert "flowgpt character chat Ada-L" in taken.stderr
    assert invoke("character", "import", str(ada)).exit_code == 2
    assert invoke("character", "import", str(ada), "--name", "other").stdout == "character:other\n"

    assert invoke("character", "list").stdout == "name   title\nAda-L  Ada L.\nother  Ada L.\n"
    listed = json.loads(invoke("character", "list", "--json").stdout)
    assert listed == {"characters": [{"name": name, "title": "Ada L.", "model": ""} for name in ("Ada-L", "other")]}

    assert invoke("character", "remove", "other").exit_code == 0
    assert invoke("character", "list", "--json").stdout.count("name") == 1
    gone = invoke("character", "remove", "other")
    assert (gone.exit_code, "no character 'other' is kept here" in gone.stderr) == (2, True)


@pytest.mark.parametrize(
    ("title", "stem", "name"), [("Ada!", "x", "Ada"), ("Āda", "x", "da"), ("日本", "my card", "my-card")]
)
def test_a_card_gets_a_name_that_can_be_one(invoke: Invoke, tmp_path: Path, title: str, stem: str, name: str) -> None:
    (tmp_path / f"{stem}.png").write_bytes(cards.as_png(Card({"name": title}, {})))

    assert invoke("character", "import", str(tmp_path / f"{stem}.png")).stdout == f"character:{name}\n"


def test_m5_a_name_that_leads_elsewhere_is_refused(invoke: Invoke, ada: Path) -> None:
    for name in ("../x", "a/b", ".x", "x" * 65):
        assert "a character's name has" in invoke("character", "import", str(ada), "--name", name).stderr
    (ada.parent / "日本.json").write_bytes(cards.as_json(Card({"name": "日本"}, {})))
    assert "--name NAME" in invoke("character", "import", str(ada.parent / "日本.json")).stderr
    assert local_characters.names() == []


def test_a_card_that_is_broken_spoils_no_list(invoke: Invoke, ada: Path) -> None:
    invoke("character", "import", str(ada))
    (local_characters.folder() / "bad.json").write_text("{")

    listed = invoke("character", "list")
    assert (listed.exit_code, listed.stdout) == (0, "name   title\nAda-L  Ada L.\n")
    assert "bad.json: it is no character card" in listed.stderr


def test_a_character_is_exported_for_other_programs_and_comes_back(
    server: Server, invoke: Invoke, tmp_path: Path, ada: Path
) -> None:
    picture, old = tmp_path / "a.PNG", tmp_path / "b.json"
    assert invoke("character", "export", ID, "-o", str(picture)).exit_code == 0
    assert invoke("character", "export", ID, "-o", str(old), "--v2").exit_code == 0
    assert json.loads(old.read_bytes())["spec"] == "chara_card_v2"
    assert cards.read(picture.read_bytes()).text("name") == EVIL

    assert invoke("character", "import", str(ada)).exit_code == 0
    framed = tmp_path / "c.png"
    assert invoke("character", "export", "Ada-L", "-o", str(framed), "--image", str(picture)).exit_code == 0
    kept = cards.read(framed.read_bytes())
    assert (kept.text("name"), kept.fields["x"]) == ("Ada L.", 1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-o", "x.txt"], "must end with .json or .png"),
        (["-o", "x.json", "--image", "y.png"], "--image needs .png"),
        (["-o", "x.png", "--image", "none.png"], "none.png cannot be read"),
        (["-o", "none/x.png"], "cannot be written: No such file"),
        ([], "Missing option"),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    invoke: Invoke, ada: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
) -> None:
    monkeypatch.chdir(ada.parent)
    refused = invoke("character", "export", str(ada), *args)

    assert (refused.exit_code, words in refused.stderr) == (2, True)


# --- asked ------------------------------------------------------------------------------------------------------------


def test_a_question_goes_to_a_character_by_its_name_as_a_model(server: Server, invoke: Invoke) -> None:
    said = json.loads(invoke("ask", "-m", f"character:{ID}", "--json", "Who?").stdout)

    assert (said["model"], said["attempts"]) == ("FlowGPT-Ares", 1)
    assert "earlier turns: 1" in said["text"]


def test_a_talk_with_a_character_has_its_greeting_and_the_users_name(server: Server, start: Start) -> None:
    with start(
        "character", "chat", "--user", "Bo", "--no-save", "--plain", ID, stdin=-1, env={"FLOWGPT_PROXY": ""}
    ) as child:
        out, err = child.communicate(b"Who are you?\n", timeout=60)

    assert (child.returncode, err) == (0, b"")
    assert b"earlier turns: 1\nquestion: Who are you?" in out
    chat = server.requests[-1].chat
    assert chat is not None
    assert [(turn.role, turn.content) for turn in chat.prompt.history] == [("assistant", "Hello Bo!")]
    assert (chat.prompt_id, chat.model, chat.temperature) == (ID, "FlowGPT-Ares", 0.5)


def test_a_card_in_a_file_must_be_kept_to_be_talked_with(invoke: Invoke, ada: Path) -> None:
    refused = invoke("character", "chat", str(ada))

    assert (refused.exit_code, "flowgpt character import" in refused.stderr) == (2, True)


def test_a_browser_check_is_told_as_one(invoke: Invoke, configure: Write) -> None:
    page = answer(403, b"<html>Just a moment", "Content-Type: text/html")
    with Upstream([page], [reply("x")]) as upstream:
        shown = invoke("character", "show", ID, "--base-url", upstream.url)

    assert "asks for a browser check" in shown.stderr
