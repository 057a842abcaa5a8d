"""Who answers, the gateway, and what is kept of conversations: the tables besides the options."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowgpt.config import History, Options, gateway_table, history, provider_names, provider_tables
from flowgpt.errors import InvalidRequestError


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


def test_all_is_kept_for_ever_where_nothing_is_said(file: Path) -> None:
    assert history() == History(save=True, retention_days=None)
    file.write_text("[history]\n")
    assert history() == History(save=True, retention_days=None)


def test_the_table_of_the_history_says_otherwise_and_a_call_takes_no_notice_of_it(file: Path) -> None:
    file.write_text("[history]\nsave = false\nretention_days = 0.5\n")
    assert history() == History(save=False, retention_days=0.5)
    assert Options.resolve() == Options()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("history = false", "history must be a table, not False"),
        ("[history]\nsave = 1", r"history.save: save must be true or false, not 1"),
        ("[history]\nkeep = true", r"history has no key 'keep'; the keys are save, retention_days"),
        *(
            (f"[history]\nretention_days = {days}", r"history.retention_days: .* positive number of days")
            for days in ("0", "-1", "nan", "inf", "'1'", "true", "1e300", "[1]")
        ),
    ],
)
def test_i22_a_wrong_history_is_named_with_file_and_key(text: str, words: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(InvalidRequestError, match=f"^{file}: {words}"):
        history()
