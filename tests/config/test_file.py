"""The configuration file: where it is, and what is wrong with it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from flowgpt.config import Options, device_id, home, provider_tables
from flowgpt.errors import InvalidRequestError
from flowgpt.protocol.signing import DEVICE_ID
from tests.conftest import API_KEY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = ", "cannot be read: Invalid value"),
        ("model = 1\nmodel = 2", "cannot be read: Cannot overwrite"),
        ("\x00", "cannot be read"),
        ("temprature = 1", "no option 'temprature'; did you mean 'temperature'"),
        ("zzz = 1", "no option 'zzz'; the keys are allow_unknown_model, api_key"),
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
