"""docs/providers.md: its code is run and its tables are loaded, block by block as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flowgpt import Client, Fallback, FlowGpt
from flowgpt.config import home
from flowgpt.providers import registry
from flowgpt.providers.registry import Configured
from tests.upstream import Upstream, answer

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TOML = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/providers.md", "exec"), names)
    return names


def test_the_first_provider_has_at_most_15_lines_and_answers() -> None:
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]

    assert len(lines) <= 15
    answer = run(PYTHON[0])["answer"]
    assert (answer.choices[0].message.content, answer.model) == ("Is it on? ", "echo-1")


def test_a_server_that_speaks_chat_completions_answers(capsys: pytest.CaptureFixture[str]) -> None:
    said = b'data: {"choices": [{"delta": {"content": "Hi."}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    with Upstream([answer(200, said)]) as upstream:
        run(PYTHON[1].replace("http://127.0.0.1:11434", upstream.url))

    assert capsys.readouterr().out == "Hi.\n"
    assert [request.target for request in upstream.requests] == ["/v1/chat/completions"]


def test_the_fallback_of_the_page_is_one() -> None:
    with run(PYTHON[2])["client"] as client:
        assert {"gpt-4-turbo", "qwen3", "gemini"} <= {model.id for model in client.models.list()}


def test_the_configuration_of_the_page_is_loaded() -> None:
    home().mkdir()
    (home() / "config.toml").write_text(TOML[0], "utf-8")

    found = registry.named()
    assert (found["flowgpt"], [*found]) == (FlowGpt, ["flowgpt", "local"])
    assert isinstance(registry.one(registry.named()), Fallback)
    assert isinstance(registry.one(registry.named("patient")), Configured)
    assert [model.id for model in Client().models.list() if model.owned_by][-4:-2] == ["llama3", "qwen3"]


def test_the_entry_point_of_the_page_is_in_the_group_that_is_read() -> None:
    assert f'[project.entry-points."{registry.GROUP}"]' in TOML[1]
