"""LlamaIndex against a real gateway, by `OpenAILike`."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from flowgpt.embedded import Server
from tests.clients.conftest import MODEL, Gateway


@pytest.fixture
def llm(gateway: Gateway) -> Any:
    return OpenAILike(
        model=MODEL,
        api_base=gateway.base_url,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=8000,
        max_retries=0,
    )


def test_a_question_is_answered(llm: Any) -> None:
    assert llm.complete("Say seven.").text == "The model says: Say seven."


def test_a_chat_is_streamed(llm: Any) -> None:
    deltas = [part.delta for part in llm.stream_chat([ChatMessage(role="user", content="Say seven.")])]

    assert "".join(deltas) == "The model says: Say seven."
    assert len(deltas) > 2


async def test_the_async_form_answers_too(llm: Any) -> None:
    answer = await llm.achat([ChatMessage(role="user", content="Say seven.")])

    assert answer.message.content == "The model says: Say seven."


def test_a_tool_is_called(llm: Any) -> None:
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"21 degrees in {city}"

    answer = llm.predict_and_call([FunctionTool.from_defaults(get_weather)], "get_weather for Paris, please")

    assert "21 degrees" in str(answer)


def test_an_unknown_model_is_not_found(gateway: Gateway, upstream: Server) -> None:
    llm = OpenAILike(model="gpt-9", api_base=gateway.base_url, api_key="none", is_chat_model=True)

    with pytest.raises(openai.NotFoundError):
        llm.complete("Hello")
    assert not upstream.requests
