"""The gateway's settings: arguments before the file before defaults, and words for each that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowgpt import config
from flowgpt.errors import InvalidRequestError
from flowgpt.gateway.settings import SETTINGS, Settings


def write(text: str) -> Path:
    path = config.home() / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_nothing_said_is_the_defaults() -> None:
    assert Settings.resolve() == Settings()


def test_the_file_counts_and_an_argument_goes_before_it() -> None:
    write('[gateway]\nany_model = "gemini"\nmax_streams = 3\n[gateway.model_names]\ngpt-4o-mini = "gpt-3.5-turbo"\n')

    settings = Settings.resolve(max_streams=5, any_model=None)

    assert (settings.any_model, settings.max_streams) == ("gemini", 5)
    assert settings.model_names == {"gpt-4o-mini": "gpt-3.5-turbo"}


def test_i22_a_key_that_nobody_knows_is_named_with_its_file() -> None:
    path = write("[gateway]\nmax_stream = 3\n")

    with pytest.raises(InvalidRequestError) as caught:
        Settings.resolve()

    assert f"{path}: gateway.max_stream: there is no such setting" in caught.value.message


WRONG: list[tuple[str, Any, str]] = [
    ("model_names", ["a"], "a table of strings"),
    ("model_names", {"a": 1}, "a table of strings"),
    ("any_model", 1, "a string"),
    ("allow_hosts", "one", "a list of strings"),
    ("allow_origins", [1], "a list of strings"),
    *(("allow_origins", [text], "a list of origins") for text in ("*", "null", "app.example", "https://a.example/")),
    *(("allow_hosts", [text], "a list of host names") for text in ("*", "http://a.example", "a/b", "")),
    ("insecure_no_auth", 1, "true or false"),
    ("max_streams", 0, "a whole number of at least 1"),
    ("max_streams", True, "a whole number of at least 1"),
    ("max_streams", 1.5, "a whole number of at least 1"),
    ("hold_s", 0, "a positive number of seconds"),
    ("hold_s", float("inf"), "a positive number of seconds"),
    ("hold_s", float("nan"), "a positive number of seconds"),
    ("hold_s", True, "a positive number of seconds"),
    ("hold_s", "10", "a positive number of seconds"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_i22_a_wrong_value_is_named_with_what_it_must_be(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Settings.resolve(**{name: value})

    assert caught.value.message.startswith(f"{name} must be {words}")
    assert caught.value.message.endswith(f", not {value!r}")


def test_every_setting_has_words() -> None:
    assert all(setting.metadata["help"] for setting in SETTINGS.values())
    assert all(
        setting.metadata["check"](setting_default(name)) is not None
        for name, setting in SETTINGS.items()
        if name != "any_model"
    )


def setting_default(name: str) -> Any:
    return getattr(Settings(), name)


def test_hosts_and_origins_are_taken_as_browsers_write_them() -> None:
    hosts, origins = ["gateway.example", "192.0.2.1", "2001:db8::1", "[2001:db8::1]"], ["https://app.example:8443"]

    settings = Settings.resolve(allow_hosts=hosts, allow_origins=origins)

    assert settings.allow_hosts == tuple(hosts)
    assert settings.allow_origins == tuple(origins)
