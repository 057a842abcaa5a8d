"""Who answers: argument, environment, file, or the embedded server of this call."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from flowgpt import Client, Fallback, FlowGpt, InvalidRequestError, config
from flowgpt.cli.endpoint import Endpoint, answering, endpoint, unstarted
from flowgpt.protocol.request import PUBLIC_ORIGIN

FILE, VARIABLE, ARGUMENT = (f"http://127.0.0.1:{port}" for port in (1, 2, 3))


def nobody(words: str) -> None:
    pytest.fail(f"nobody is told {words!r}")


def name(base_url: str | None = None) -> str:
    with endpoint(base_url, None, tell=nobody) as there:
        return there.name


def refuses(base_url: str) -> bool:
    host, port = base_url.removeprefix("http://").split(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) != 0


def test_the_argument_goes_before_the_environment_before_the_file(
    monkeypatch: pytest.MonkeyPatch, configure: Callable[[str], None]
) -> None:
    configure(f"base_url = '{FILE}'\n")
    assert name() == FILE
    monkeypatch.setenv("FLOWGPT_BASE_URL", VARIABLE)
    assert name() == VARIABLE
    assert name(ARGUMENT) == ARGUMENT


def test_the_word_public_is_flowgpt_s_own_host() -> None:
    with endpoint("public", "http://127.0.0.1:9", tell=nobody) as there:
        assert there == Endpoint(PUBLIC_ORIGIN, PUBLIC_ORIGIN, "http://127.0.0.1:9")


def test_a_bad_address_is_an_error_that_names_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_BASE_URL", "ftp://127.0.0.1")

    with pytest.raises(InvalidRequestError, match=r"^FLOWGPT_BASE_URL: .*'ftp'"):
        name()


def test_nothing_configured_starts_the_embedded_server_for_as_long_as_the_block_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A configured proxy is no way to this machine."""
    monkeypatch.setenv("FLOWGPT_PROXY", "http://127.0.0.1:1")
    told: list[str] = []

    with endpoint(None, None, tell=told.append) as there, Client(base_url=there.base_url, proxy=there.proxy) as client:
        completion = client.chat.completions.create(messages=[{"role": "user", "content": "is this on?"}])

    assert there.name == "embedded"
    assert "question: is this on?" in (completion.choices[0].message.content or "")
    assert refuses(there.base_url)
    (line,) = told
    for choice in ("--base-url", "FLOWGPT_BASE_URL", str(config.home() / "config.toml")):
        assert choice in line


def test_whoever_chooses_the_embedded_server_is_not_told_how_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWGPT_BASE_URL", "embedded")

    assert name() == "embedded"


def test_without_starting_anything_the_embedded_server_is_where_it_would_listen(
    monkeypatch: pytest.MonkeyPatch, configure: Callable[[str], None]
) -> None:
    there = Endpoint("embedded", "http://127.0.0.1:8000", "")
    assert unstarted(None, None) == unstarted("embedded", None) == there
    configure(f"base_url = '{FILE}'\n")
    assert unstarted(None, None) == Endpoint(FILE, FILE, None)
    assert unstarted("embedded", None) == there
    assert unstarted("public", "") == Endpoint(PUBLIC_ORIGIN, PUBLIC_ORIGIN, "")


# Providers


def test_configured_providers_answer_and_no_server_is_started(configure: Callable[[str], None]) -> None:
    configure(f"providers = ['flowgpt', 'local']\n[provider.local]\ntype = 'openai'\nbase_url = '{FILE}'\n")

    with answering(None, None, "", tell=nobody) as there:
        assert (there.name, there.options) == ("flowgpt, local", {"proxy": ""})
        assert isinstance(there.provider, Fallback)
    with answering("local", None, None, tell=nobody) as there:
        assert there.name == "local"
    with answering("flowgpt", None, None, tell=nobody) as there:
        assert (there.name, there.provider) == ("flowgpt", FlowGpt)


def test_an_address_as_argument_is_flowgpt_there_and_goes_with_no_provider(configure: Callable[[str], None]) -> None:
    configure("providers = ['nobody']\n")

    with answering(None, ARGUMENT, None, tell=nobody) as there:
        assert there == (ARGUMENT, FlowGpt, {"base_url": ARGUMENT, "proxy": None})
    with pytest.raises(InvalidRequestError, match="give one of them"), answering("a", ARGUMENT, None, tell=nobody):
        pass
