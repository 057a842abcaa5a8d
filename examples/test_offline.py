"""How a program that uses FlowGPT is tested offline: the fixture `flowgpt_server` comes with the package."""

from typing import Any

import pytest

import flowgpt


def ask(question: str, **options: Any) -> str:
    """The program under test."""
    return "".join(flowgpt.FlowGpt.create_completion("", [{"role": "user", "content": question}], **options))


def test_the_question_arrives(flowgpt_server: Any) -> None:
    assert "Ahoy" in ask("Ahoy", base_url=flowgpt_server.base_url)
    assert flowgpt_server.requests[0].path == "/v3/chat-anonymous"


def test_a_rate_limit_is_told(flowgpt_server: Any) -> None:
    flowgpt_server.fault("rate_limit:60")
    with pytest.raises(flowgpt.RateLimitError) as caught:
        ask("Ahoy", base_url=flowgpt_server.base_url, max_retries=0)
    assert caught.value.retry_after_s == 60
