"""The one table of options, and which of argument, environment, file and default counts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from flowgpt.addresses import Proxy
from flowgpt.config import OPTIONS, Options, Timeouts
from flowgpt.errors import InvalidRequestError
from tests.conftest import API_KEY

PROXIES = (Proxy("http", "a", 1), Proxy("https", "b", 443), Proxy("socks5", "c", 1080))
ROWS: dict[str, tuple[Any, ...]] = {
    # option: argument, environment, file (TOML), and what each becomes
    "model": ("a", "b", '"c"', "a", "b", "c"),
    "temperature": (0.1, "", "0.3", 0.1, None, 0.3),
    "api_key": ("a", "b", '"c"', "a", "b", "c"),
    "base_url": ("http://a:80", "https://B", '"http://c:1/"', "http://a", "https://b", "http://c:1"),
    "proxy": ("http://a:1", "https://b", '"socks5h://c"', *PROXIES),
    "timeout": (1, "2.5", "3", *(Timeouts(total_s=seconds) for seconds in (1, 2.5, 3))),
    "max_retries": (1, "", "3", 1, None, 3),
    "safe_retries_only": (True, "", "true", True, None, True),
    "max_connections": (1, "2", "3", 1, 2, 3),
    "nsfw": (True, "", "true", True, None, True),
    "prompt_id": ("a", "", '"c"', "a", None, "c"),
    "greeting": ("a", "", '"c"', "a", None, "c"),
    "user_name": ("a", "", '"c"', "a", None, "c"),
    "document_ids": (["a"], "", '["c"]', ("a",), None, ("c",)),
    "generate_image": (True, "", "true", True, None, True),
    "user_id": ("a", "", '"c"', "a", None, "c"),
    "conversation_id": ("a", "", '"c"', "a", None, "c"),
    "extra_models": (["a"], "", '["c"]', ("a",), None, ("c",)),
    "allow_unknown_model": (True, "", "true", True, None, True),
    "extra_body": ({"a": 1}, "", "{c = 3}", {"a": 1}, None, {"c": 3}),
}


def test_each_option_has_its_row_here() -> None:
    assert ROWS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_argument_goes_before_environment_before_file_before_default(
    name: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument, variable, text, from_argument, from_environment, from_file = ROWS[name]

    def value(**arguments: Any) -> Any:
        return getattr(Options.resolve(**arguments), name)

    assert value() == getattr(Options(), name)
    file.write_text(f"{name} = {text}\n")
    assert value() == from_file
    assert value(**{name: None}) == from_file, "None is: as configured"
    env = OPTIONS[name].metadata["env"]
    assert bool(env) is bool(variable)
    if env:
        monkeypatch.setenv(env, variable)
        assert value() == from_environment
        monkeypatch.setenv(env, "")
        assert value() == from_file, "an empty variable is not set"
        monkeypatch.setenv(env, variable)
    assert value(**{name: argument}) == from_argument


def test_the_variables_are_those_of_the_documentation() -> None:
    assert {option.metadata["env"] for option in OPTIONS.values()} - {None} == {
        "FLOWGPT_API_KEY",
        "FLOWGPT_BASE_URL",
        "FLOWGPT_PROXY",
        "FLOWGPT_MODEL",
        "FLOWGPT_TIMEOUT",
        "FLOWGPT_MAX_CONNECTIONS",
    }


def test_an_empty_key_and_an_empty_proxy_switch_off_what_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FLOWGPT_API_KEY": API_KEY, "FLOWGPT_PROXY": "http://a:1", "ALL_PROXY": "http://b:1"}.items():
        monkeypatch.setenv(name, value)
    options = Options.resolve(api_key="", proxy="")
    assert (options.api_key, options.proxy) == (None, None)


BAD_VALUES: dict[str, list[Any]] = {
    "model": [1, b"x"],
    "temperature": [float("nan"), float("inf"), -0.1, 2.1, 10**400, "0.7", True],
    "api_key": [1, b"key", "a\nb", "a\rb", "a\0b", "\x7f", "\x85", "€"],
    "base_url": [1, ""],
    "proxy": [1, "h"],
    "timeout": ["1", True, 0, -1, float("nan"), float("inf"), {"nope": 1}, {1: 2, "x": 3}, {"head_s": "1"}],
    "max_retries": [-1, 1.0, True, "1"],
    "safe_retries_only": [1, "yes"],
    "max_connections": [0, -1, 1.5, True],
    "nsfw": [1, "yes"],
    "prompt_id": [1],
    "greeting": [1],
    "user_name": [1],
    "document_ids": ["a", [1], 1],
    "generate_image": [0],
    "user_id": [1],
    "conversation_id": [1],
    "extra_models": ["a", [None]],
    "allow_unknown_model": ["true"],
    "extra_body": [[], {1: 2}, "x"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_VALUES.items() for value in values])
def test_j4_j6_a_bad_value_is_refused_by_the_name_of_its_option(name: str, value: Any) -> None:
    """Nothing is converted in silence."""
    with pytest.raises(InvalidRequestError, match=name):
        Options.resolve(**{name: value})


def test_each_option_has_bad_values_here() -> None:
    assert BAD_VALUES.keys() == OPTIONS.keys()


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX: y", "\0", "\x1f", "\u2028"])
def test_j6_a_key_cannot_inject_a_header(key: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Options.resolve(api_key=key)
    assert caught.value.code == "header_injection"
    assert key not in str(caught.value)


def test_j2_a_mutable_argument_is_copied() -> None:
    """What the caller changes later changes nothing."""
    ids, extra = ["a"], {"a": 1}
    options = Options.resolve(document_ids=ids, extra_body=extra)
    ids.append("b")
    extra["b"] = 2
    assert (options.document_ids, options.extra_body) == (("a",), {"a": 1})


def test_no_minus_zero_goes_on_the_wire() -> None:
    assert str(Options.resolve(temperature=-0.0).temperature) == "0.0"


def test_the_word_embedded_is_an_endpoint_for_the_terminal_and_no_proxy_is_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    options = Options.resolve(base_url="embedded")
    assert (options.base_url, options.proxy) == ("embedded", None)


def test_a_wrong_variable_keeps_the_hint_of_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_API_KEY", " ")
    with pytest.raises(InvalidRequestError, match=r"^FLOWGPT_API_KEY: api_key is blank") as caught:
        Options.resolve()
    assert "anonymously" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("keyword", "meant"), [("temprature", "temperature"), ("apikey", "api_key"), ("zzz", "goes without it")]
)
def test_j7_an_unknown_keyword_is_warned_of_once_and_names_the_nearest(keyword: str, meant: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert [Options.resolve(**{keyword: 1}) for _ in range(3)] == [Options()] * 3
    [warning] = told
    assert warning.category is UserWarning
    assert keyword in str(warning.message)
    assert meant in str(warning.message)
