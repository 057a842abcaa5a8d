"""`flowgpt models`: the whole output."""

from __future__ import annotations

import json
import re

from flowgpt import Client, FlowGPTError
from flowgpt.limits.breaker import LEAST_CALLS
from tests.cli.conftest import Invoke, Write
from tests.upstream import Upstream, answer

IDS = [
    *("gpt-3.5-turbo", "gpt-3.5-long", "gpt-4-turbo", "google-gemini", "claude-instant", "claude-v1", "claude-v2"),
    *("llama2-13b", "mythalion-13b", "pygmalion-13b", "chronos-hermes-13b", "Mixtral-8x7B", "Dolphin-2.6-8x7B"),
]

TWO = """
providers = ["flowgpt", "local"]
[provider.local]
type = "openai"
base_url = "http://127.0.0.1:11434/v1"
models = ["llama3", "qwen3"]
"""


def test_the_table_has_every_model_and_what_each_alias_stands_for(invoke: Invoke) -> None:
    result = invoke("models")

    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines == [
        ["flowgpt:", "working"],
        [],
        ["model", "stands", "for"],
        *([id_] for id_ in IDS),
        ["gemini", "google-gemini"],
        ["gemini-pro", "google-gemini"],
    ]
    assert "2024-04" in result.stderr
    assert invoke("models", "-q").stderr == ""


def test_json_has_the_list_its_date_and_the_providers(invoke: Invoke) -> None:
    result = invoke("models", "--json")

    said = json.loads(result.stdout)
    assert (result.stderr, said["object"], said["as_of"]) == ("", "list", "2024-04")
    assert [model["id"] for model in said["data"]] == [*IDS, "gemini", "gemini-pro"]
    assert said["data"][-1]["alias_of"] == "google-gemini"
    (known,) = said["providers"]
    assert known.pop("models") == [*IDS, "gemini", "gemini-pro"]
    assert known == {"name": "flowgpt", "working": True, "since_s": None, "reason": None, "again_s": None}


def test_configured_models_are_listed_too(invoke: Invoke, configure: Write) -> None:
    configure('extra_models = ["nemomix-v4"]\n')

    assert "\nnemomix-v4" in invoke("models").stdout
    assert "2024-04" in invoke("models").stderr


def test_each_configured_provider_has_its_table(invoke: Invoke, configure: Write) -> None:
    configure(TWO)

    first, second = invoke("models").stdout.split("\nlocal: ")
    assert first.startswith("flowgpt: working\n\nmodel ")
    assert second.split() == ["working", "model", "stands", "for", "llama3", "qwen3"]
    said = json.loads(invoke("models", "--json").stdout)
    assert [(each["name"], each["models"][-1]) for each in said["providers"]] == [
        ("flowgpt", "gemini-pro"),
        ("local", "qwen3"),
    ]
    assert [(model["id"], model["owned_by"]) for model in said["data"]][-1] == ("qwen3", "local")


def test_a_provider_that_is_down_says_since_when_and_why(invoke: Invoke, configure: Write) -> None:
    """The state is this process's: here the calls were made in it."""
    with Upstream([answer(500)]) as there:
        configure(
            f'providers = ["there"]\n[provider.there]\ntype = "flowgpt"\nbase_url = "{there.url}"\nmax_retries = 0\n'
        )
        with Client() as client:
            while json.loads(invoke("models", "--json").stdout)["providers"][0]["working"]:
                assert len(there.requests) < LEAST_CALLS
                try:
                    client.chat.completions.create(messages=[{"role": "user", "content": "?"}])
                except FlowGPTError:
                    continue
        result = invoke("models")
        (known,) = json.loads(invoke("models", "--json").stdout)["providers"]

    assert re.match(r"there: down since \d\d:\d\d:\d\d \(server_error\), next try in \d s\n", result.stdout)
    assert (known["working"], known["reason"]) == (False, "server_error")
    assert known["since_s"] > 1e9


def test_a_wrong_configuration_is_told(invoke: Invoke, configure: Write) -> None:
    configure('providers = ["nobody"]\n')

    result = invoke("models")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no provider 'nobody'" in result.stderr
