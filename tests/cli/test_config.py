"""`flowgpt config`: what is shown, from where, without secrets; and what may be written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowgpt import config
from flowgpt.cli.config import shown
from flowgpt.config import OPTIONS
from flowgpt.gateway.settings import SETTINGS
from tests.cli.conftest import Invoke, Write
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER


def options(invoke: Invoke) -> dict[str, tuple[Any, str]]:
    """Each key with its value and where that comes from."""
    result = invoke("config", "show", "--json")
    assert result.exit_code == 0, result.stderr
    return {key: (row["value"], row["source"]) for key, row in json.loads(result.stdout)["options"].items()}


def test_the_path_is_told_whether_the_file_is_there_or_not(invoke: Invoke) -> None:
    assert invoke("config", "path").stdout == f"{config.home() / 'config.toml'}\n"


def test_every_option_is_shown_with_where_it_comes_from(
    invoke: Invoke, configure: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        "model = 'a'\nmax_retries = 2\nproviders = ['x']\n[timeout]\nidle_s = 5\n[history]\nsave = false\n"
        "[gateway]\nmax_streams = 7\n[provider.x]\ntype = 'openai'\n"
    )
    monkeypatch.setenv("FLOWGPT_MODEL", "b")
    found = options(invoke)

    assert found["model"] == ("b", "FLOWGPT_MODEL")
    assert found["max_retries"] == (2, "file"), "it stands there, though it is the default"
    assert found["temperature"] == (0.7, "default")
    assert (found["timeout.idle_s"], found["timeout.head_s"]) == ((5, "file"), (60, "default"))
    assert (found["history.save"], found["history.retention_days"]) == ((False, "file"), (None, "default"))
    assert (found["gateway.max_streams"], found["gateway.any_model"]) == ((7, "file"), ("", "default"))
    assert (found["providers"], found["provider.x.type"]) == ((["x"], "file"), ("openai", "file"))
    assert OPTIONS.keys() - {"timeout"} | {f"gateway.{name}" for name in SETTINGS} <= found.keys()
    assert 'model                        "b"  (FLOWGPT_MODEL)\n' in invoke("config", "show").stdout


def test_a_number_as_timeout_and_the_environments_proxy_and_providers_are_shown(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TIMEOUT": "9", "PROVIDER": "flowgpt", "BASE_URL": "http://10.0.0.1"}.items():
        monkeypatch.setenv(f"FLOWGPT_{name}", value)
    monkeypatch.setenv("HTTP_PROXY", "http://p:1")
    found = options(invoke)

    assert (found["timeout.total_s"], found["timeout.idle_s"]) == ((9, "FLOWGPT_TIMEOUT"), (60, "default"))
    assert found["proxy"] == ("http://p:1", "proxy variables")
    assert found["providers"] == (["flowgpt"], "FLOWGPT_PROVIDER")


def test_without_an_endpoint_the_one_that_is_asked_is_shown(
    invoke: Invoke, configure: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWGPT_BASE_URL", raising=False)
    assert options(invoke)["base_url"] == ("embedded", "default")
    configure("providers = ['flowgpt']\n")
    assert options(invoke)["base_url"] == (config.Options.resolve().base_url, "default")


def test_k1_no_secret_is_shown(invoke: Invoke, configure: Write) -> None:
    proxy = f"http://{PROXY_USER}:{PROXY_PASSWORD}@p:1"
    configure(
        f"api_key = '{API_KEY}'\nproxy = '{proxy}'\nextra_body = {{a = {{my_Token = '{API_KEY}'}}}}\n"
        f"[provider.x]\napi_key = '{API_KEY}'\nproxy = '{proxy}'\nbase_url = 'http://{API_KEY}@h'\n"
        f"password = ['{API_KEY}']\n"
    )
    (config.home() / "config.toml").chmod(0o600)
    found = options(invoke)
    text = invoke("config", "show").stdout

    assert found["api_key"] == ("***", "file")
    assert found["proxy"] == ("http://***@p:1", "file")
    assert found["extra_body"][0] == {"a": {"my_Token": "***"}}
    assert [found[f"provider.x.{key}"][0] for key in ("api_key", "proxy", "base_url", "password")] == [
        "***",
        "http://***@p:1",
        "http://***@h",
        ["***"],
    ]
    assert not any(secret in text for secret in (API_KEY, PROXY_USER, PROXY_PASSWORD))


@pytest.mark.parametrize(
    ("key", "value", "seen"),
    [
        ("api_key", "", ""),
        ("model", "http://a@b/c", "http://***@b/c"),
        ("extra", ["//u:p@h"], ["//***@h"]),
        (
            "extra_body",
            {"authorization": "x", "Cookie": "y", "nsfw": "z"},
            {"authorization": "***", "Cookie": "***", "nsfw": "z"},
        ),
        ("x", None, None),
        ("x", 1.5, 1.5),
    ],
)
def test_k1_what_looks_like_a_credential_is_masked(key: str, value: Any, seen: Any) -> None:
    assert shown(key, value) == seen


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("model", "5", 'model = "5"\n'),
        ("model", "", 'model = ""\n'),
        ("temperature", "0.5", "temperature = 0.5\n"),
        ("nsfw", "true", "nsfw = true\n"),
        ("extra_models", "a, b", 'extra_models = ["a", "b"]\n'),
        ("extra_models", '["a,b"]', 'extra_models = ["a,b"]\n'),
        ("extra_body", "{a = 1}", "extra_body = {a = 1}\n"),
        ("base_url", "embedded", 'base_url = "embedded"\n'),
        ("proxy", "http://p:1", 'proxy = "http://p:1"\n'),
        ("timeout", "120", "timeout = 120\n"),
        ("timeout.head_s", "5", "[timeout]\nhead_s = 5\n"),
        ("history.save", "false", "[history]\nsave = false\n"),
        ("history.retention_days", "30", "[history]\nretention_days = 30\n"),
        ("gateway.max_streams", "5", "[gateway]\nmax_streams = 5\n"),
        ("gateway.allow_hosts", "a.example,b.example", '[gateway]\nallow_hosts = ["a.example", "b.example"]\n'),
        ("providers", "flowgpt,x", 'providers = ["flowgpt", "x"]\n'),
        ("provider.x.type", "openai", '[provider.x]\ntype = "openai"\n'),
        ("provider.x.base_url", "http://127.0.0.1:1/v1", '[provider.x]\nbase_url = "http://127.0.0.1:1/v1"\n'),
        ("provider.openai.models", "a", '[provider.openai]\nmodels = ["a"]\n'),
        ("provider.x.max_retries", "0", "[provider.x]\nmax_retries = 0\n"),
    ],
)
def test_a_right_value_is_written_as_the_option_wants_it(invoke: Invoke, key: str, value: str, written: str) -> None:
    result = invoke("config", "set", key, value)

    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert result.stderr == f"flowgpt: {key} is set in {config.path()}\n"
    assert config.path().read_text() == written
    assert options(invoke)["model"], "the file can be read"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("temperature", "9", "temperature must be a number from 0 to 2"),
        ("temperature", "hot", "temperature must be a number from 0 to 2"),
        ("nsfw", "yes", "nsfw must be true or false"),
        ("base_url", "ftp://x", "base_url"),
        ("extra_body", "[1]", "extra_body must be a dict"),
        ("timeout.head", "5", "timeout has no part 'head'"),
        ("timeout.head_s", "0", "timeout head_s must be"),
        ("history.save", "1", "save must be true or false"),
        ("gateway.max_streams", "0", "gateway.max_streams must be a whole number of at least 1, not '0'"),
        ("gateway.nope", "0", "there is no key 'gateway.nope'"),
        ("provider.openai.modle", "a", "there is no key 'modle'; did you mean 'model'"),
        ("provider.flowgpt.temperature", "9", "temperature must be"),
        ("provider.openai.base_url", "http://me:secret@h", "base_url is no usable address: it must not have a user"),
        ("provider.openai.models", "[1]", "models a list of strings"),
        ("provider.x", "a", "there is no key 'provider.x'"),
        ("provider..x", "a", "there is no key 'provider..x'"),
        ("", "a", "there is no key ''"),
        ("nope", "a", "there is no key 'nope'"),
        ("providers", "[1]", "providers must be a list of names"),
        ("nsfw", "true\nmodel = 'x'", "nsfw must be true or false"),
    ],
)
def test_i22_a_wrong_value_is_refused_by_its_own_check_and_the_file_stays(
    invoke: Invoke, configure: Write, key: str, value: str, words: str
) -> None:
    configure("# mine\n")
    result = invoke("config", "set", key, value)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert config.path().read_text() == "# mine\n"


def test_m7_a_text_is_a_text_whatever_is_in_it(invoke: Invoke) -> None:
    text = "a\nnsfw = true # \"'\\ [x]"
    assert invoke("config", "set", "model", text).exit_code == 0
    assert (config.Options.resolve().model, config.Options.resolve().nsfw) == (text, False)


def test_k9_a_key_is_read_from_stdin_and_is_no_argument(invoke: Invoke) -> None:
    refused = invoke("config", "set", "api_key", "sk-plain")
    result = invoke("config", "set", "provider.x.api_key", "-", stdin=API_KEY + "\n")

    assert (refused.exit_code, result.exit_code) == (2, 0)
    assert "hint: flowgpt config set api_key -" in refused.stderr
    assert "sk-plain" not in refused.output
    assert config.provider_tables()[0]["x"]["api_key"] == API_KEY
    assert config.path().stat().st_mode & 0o777 == 0o600
    assert API_KEY not in result.output


def test_what_is_unset_has_its_default_again(invoke: Invoke, configure: Write) -> None:
    configure("# mine\nmodel = 'a'\nnope = 1\n[provider.x]\ntype = 'openai'\n")
    assert invoke("config", "show").exit_code == 2
    for key in ("nope", "model", "provider.x"):
        assert invoke("config", "unset", key).stderr == f"flowgpt: {key} is no longer in {config.path()}\n"
    assert config.path().read_text() == "# mine\n"
    again = invoke("config", "unset", "model")
    assert (again.exit_code, "there is no model" in again.stderr) == (2, True)


def test_j6_no_value_commands_the_terminal(invoke: Invoke, configure: Write) -> None:
    configure('[provider.x]\ntitle = "\\u001b[31m\\u202e"\n')

    assert not {"\x1b", "‮"} & set(invoke("config", "show").stdout)
