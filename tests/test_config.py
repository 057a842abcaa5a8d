"""Where values come from, and which are taken: the one table of options, the file, the device id."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from flowgpt import config
from flowgpt.addresses import Proxy
from flowgpt.config import (
    OPTIONS,
    Options,
    Timeouts,
    device_id,
    environment_proxy,
    gateway_table,
    home,
    provider_names,
    provider_tables,
)
from flowgpt.errors import InvalidRequestError
from flowgpt.protocol.signing import DEVICE_ID
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the configuration file belongs."""
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path))
    path = tmp_path / "config.toml"
    path.touch(0o600)
    return path


# --- precedence -----------------------------------------------------------------------------------------------------

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


def test_a_configuration_that_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path))
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(InvalidRequestError, match="it is no file"):
        Options.resolve()


def test_a_byte_order_mark_before_the_configuration_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("\ufeffmax_retries = 5\n", "utf-8")
    assert Options.resolve().max_retries == 5


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


# --- timeouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [field.name for field in dataclasses.fields(Timeouts)])
def test_each_part_of_a_timeout_is_a_positive_number_or_none(part: str) -> None:
    assert getattr(Timeouts(**{part: 0.5}), part) == 0.5
    assert getattr(Timeouts(**{part: None}), part) is None
    for bad in (0, -1, float("nan"), float("inf"), "1", True, 10**400, [1]):
        with pytest.raises(InvalidRequestError, match=part):
            Timeouts(**{part: bad})  # type: ignore[arg-type]


def test_a_number_is_the_deadline_of_the_whole_reply_and_a_table_says_it_in_parts(file: Path) -> None:
    assert Options.resolve(timeout=5).timeout == Timeouts(total_s=5)
    assert Options.resolve(timeout=Timeouts(head_s=5)).timeout == Timeouts(head_s=5)
    file.write_text("[timeout]\nhead_s = 5\nidle_s = 1.5\n")
    assert Options.resolve().timeout == Timeouts(head_s=5, idle_s=1.5)


@pytest.mark.parametrize("text", ["soon", "nan", "-1", "1e999", "0"])
def test_i22_a_bad_variable_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_TIMEOUT", text)
    with pytest.raises(InvalidRequestError, match=r"^FLOWGPT_TIMEOUT: "):
        Options.resolve()
    assert Options.resolve(timeout=1).timeout.total_s == 1, "an argument makes it not matter"


# --- the environment's proxy ----------------------------------------------------------------------------------------

FAR, NEAR = "http://far.test", "https://far.test"


@pytest.mark.parametrize(
    ("variables", "origin", "found"),
    [
        ({}, FAR, None),
        ({"HTTP_PROXY": "http://p:1"}, FAR, "http://p:1"),
        ({"http_proxy": "http://p:1"}, FAR, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, NEAR, None),
        ({"HTTPS_PROXY": "http://p:1"}, NEAR, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, FAR, None),
        ({"ALL_PROXY": "socks5://p:1"}, FAR, "socks5://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": "http://q:1"}, NEAR, "http://q:1"),
        ({"ALL_PROXY": "p:1"}, FAR, "http://p:1"),
        ({"HTTP_PROXY": ""}, FAR, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "far.test"}, FAR, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": ".test"}, FAR, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "far.test:81"}, FAR, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "ar.test,other"}, FAR, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, FAR, None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.8.8.8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://localhost:8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://[::1]:8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1.far.test", "http://p:1"),
        ({"NO_PROXY": "x"}, FAR, None),
    ],
)
def test_a17_the_environments_proxy_counts_less_no_proxy_and_loopback(
    variables: dict[str, str], origin: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = environment_proxy(origin)
    assert (proxy.url if proxy else None) == found
    assert Options.resolve(base_url=origin).proxy == proxy
    monkeypatch.setenv("FLOWGPT_PROXY", "http://ours:1")
    ours = Options.resolve(base_url=origin).proxy
    assert ours is not None
    assert ours.url == "http://ours:1", "ours goes before, and to loopback too"


def test_a17_the_environments_proxy_has_credentials_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://{PROXY_USER}:{PROXY_PASSWORD}@p:1")
    proxy = Options.resolve(base_url=FAR).proxy
    assert proxy is not None
    assert (proxy.username, proxy.password) == (PROXY_USER, PROXY_PASSWORD)


# --- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = ", "cannot be read: Invalid value"),
        ("model = 1\nmodel = 2", "cannot be read: Cannot overwrite"),
        ("\x00", "cannot be read"),
        ("temprature = 1", "no option 'temprature'; did you mean 'temperature'"),
        ("zzz = 1", "no option 'zzz'; the keys are model, temperature"),
        ("temperature = 9", "config.toml: temperature: temperature must be"),
        ("[timeout]\nhead = 1", "config.toml: timeout: timeout has no part 'head'; the parts are connect_s"),
        ("[timeout]\nhead_s = -1", "config.toml: timeout: timeout head_s must be"),
        ("nsfw = 1", "config.toml: nsfw: nsfw must be"),
        ("base_url = 'ftp://x'", "config.toml: base_url: base_url is no usable address"),
    ],
)
def test_i22_a_bad_file_is_named_with_its_key_and_reason(text: str, words: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(InvalidRequestError) as caught:
        Options.resolve()
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_i22_a_file_of_other_bytes_or_a_directory_is_named(file: Path) -> None:
    file.write_bytes(b"model = '\xff'")
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        Options.resolve()
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        Options.resolve()


def test_the_gateways_table_is_the_gateways_and_a_call_takes_no_notice_of_it(file: Path) -> None:
    assert gateway_table() == ({}, file)
    file.write_text("model = 'a'\n[gateway]\nmax_streams = 'nonsense'\nmodel = 'b'\n")
    assert Options.resolve() == Options(model="a")
    assert gateway_table() == ({"max_streams": "nonsense", "model": "b"}, file)
    file.unlink()
    assert gateway_table() == ({}, file)


def test_what_is_no_table_is_no_gateways(file: Path) -> None:
    file.write_text("gateway = 8080")
    assert Options.resolve() == Options()
    with pytest.raises(InvalidRequestError, match=f"{file}: gateway must be a table, not 8080"):
        gateway_table()


def test_who_answers_is_the_variables_before_the_files_and_a_call_takes_no_notice_of_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (provider_names()[0], provider_tables()) == ((), ({}, file))
    file.write_text("providers = ['a', 'b']\n[provider.b]\ntype = 'openai'\n")
    assert Options.resolve() == Options()
    assert provider_names() == (("a", "b"), f"{file}: providers")
    assert provider_tables() == ({"b": {"type": "openai"}}, file)
    monkeypatch.setenv("FLOWGPT_PROVIDER", "c, d")
    assert provider_names() == (("c", "d"), "FLOWGPT_PROVIDER")


@pytest.mark.parametrize("text", ["providers = 'a'", "providers = [1]", "provider = 1", "[provider]\na = 1"])
def test_i22_what_cannot_be_providers_is_named_with_its_file(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(InvalidRequestError, match=f"^{file}: provider"):
        (provider_names(), provider_tables())


def test_i22_a_misspelt_list_of_providers_is_told_the_right_word(file: Path) -> None:
    file.write_text("provders = ['a']")
    with pytest.raises(InvalidRequestError, match="no option 'provders'; did you mean 'provide"):
        Options.resolve()


def test_a_changed_file_is_read_again(file: Path) -> None:
    for model in ("a", "bb", "ccc"):
        file.write_text(f"model = '{model}'")
        assert Options.resolve().model == model
    file.unlink()
    assert Options.resolve().model == ""


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o644, True), (0o640, True), (0o400, False)])
def test_k9_a_file_with_a_key_that_others_may_read_is_warned_of(mode: int, warns: bool, file: Path) -> None:
    file.write_text(f"api_key = '{API_KEY}'")
    file.chmod(mode)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert Options.resolve().api_key == API_KEY
        assert Options.resolve().api_key == API_KEY
    assert [("chmod 600" in str(warning.message)) for warning in told] == [True] * warns


def test_k9_a_providers_key_is_private_too(file: Path) -> None:
    file.write_text(f"[provider.x]\napi_key = '{API_KEY}'")
    file.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        assert API_KEY not in repr(provider_tables())


def test_a_file_without_a_key_may_be_read_by_all(file: Path) -> None:
    file.write_text("model = 'a'")
    file.chmod(0o644)
    assert Options.resolve().model == "a"


@pytest.mark.parametrize("place", ["/dev/null/home", "/nonexistent/home", "~nobody-of-this-name/home"])
def test_a_home_that_is_none_is_no_failure(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_HOME", place)
    monkeypatch.chdir("/dev")
    assert Options.resolve() == Options()
    assert DEVICE_ID.fullmatch(device_id())
    assert device_id() == device_id()


def test_without_a_variable_the_home_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLOWGPT_HOME")
    assert home().name == "flowgpt"
    assert tmp_path in home().parents


# --- the device id --------------------------------------------------------------------------------------------------


def forget() -> None:
    """As a new process."""
    config._device_id.cache_clear()


def test_the_device_id_is_made_once_and_kept_private() -> None:
    first = device_id()
    assert DEVICE_ID.fullmatch(first)
    assert first.startswith("f-")
    path = home() / "device-id"
    assert path.read_text() == first + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    forget()
    assert device_id() == first


def test_the_device_id_is_reset_by_deleting_its_file() -> None:
    first = device_id()
    (home() / "device-id").unlink()
    forget()
    assert device_id() != first


@pytest.mark.parametrize("kept", ["", "short", "f-" + "A" * 19, "x" * 22, "f-0123456789abcdefghi\nmore", "\u00e9"])
def test_a_broken_device_id_is_replaced(kept: str) -> None:
    home().mkdir()
    (home() / "device-id").write_text(kept)
    made = device_id()
    assert DEVICE_ID.fullmatch(made)
    forget()
    assert device_id() == made


@pytest.mark.parametrize("kept", ["f-0123456789abcdefghi", "V1StGXR8_Z5jdHi6B-myT"])
def test_a_device_id_that_the_user_wrote_is_taken(kept: str) -> None:
    """docs/protocol.md#request-headers: both shapes were seen."""
    home().mkdir()
    (home() / "device-id").write_text(kept)
    assert device_id() == kept


def test_two_installations_have_two_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = device_id()
    monkeypatch.setenv("FLOWGPT_HOME", str(tmp_path / "other"))
    assert device_id() != first
