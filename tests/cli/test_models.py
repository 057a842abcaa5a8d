"""`flowgpt models`: the whole output."""

from __future__ import annotations

import json

from tests.cli.conftest import Invoke, Write

IDS = [
    *("gpt-3.5-turbo", "gpt-3.5-long", "gpt-4-turbo", "google-gemini", "claude-instant", "claude-v1", "claude-v2"),
    *("llama2-13b", "mythalion-13b", "pygmalion-13b", "chronos-hermes-13b", "Mixtral-8x7B", "Dolphin-2.6-8x7B"),
]


def test_the_table_has_every_model_and_what_each_alias_stands_for(invoke: Invoke) -> None:
    result = invoke("models")

    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines == [
        ["model", "stands", "for"],
        *([id_] for id_ in IDS),
        ["gemini", "google-gemini"],
        ["gemini-pro", "google-gemini"],
    ]
    assert "2024-04" in result.stderr
    assert invoke("models", "-q").stderr == ""


def test_json_has_the_list_and_its_date(invoke: Invoke) -> None:
    result = invoke("models", "--json")

    said = json.loads(result.stdout)
    assert (result.stderr, said["object"], said["as_of"]) == ("", "list", "2024-04")
    assert [model["id"] for model in said["data"]] == [*IDS, "gemini", "gemini-pro"]
    assert said["data"][-1]["alias_of"] == "google-gemini"


def test_configured_models_are_listed_too(invoke: Invoke, configure: Write) -> None:
    configure('extra_models = ["nemomix-v4"]\n')

    assert "\nnemomix-v4" in invoke("models").stdout
    assert "2024-04" in invoke("models").stderr
