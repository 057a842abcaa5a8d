"""LangChain's own standard suite for chat models, on `ChatOpenAI` against a real gateway.

What FlowGPT cannot do is switched off by the suite's own properties; nothing else is.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.clients.conftest import Gateway


class Standard(ChatModelIntegrationTests):
    """The suite; `use_responses_api` says by which of OpenAI's APIs."""

    use_responses_api = False
    structured_output = "json_schema"

    @pytest.fixture(autouse=True)
    def connect(self, gateway: Gateway) -> None:
        self._base_url = gateway.base_url

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        model: type[BaseChatModel] = ChatOpenAI
        return model

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "google-gemini",  # for gpt-3.5 ChatOpenAI does not ask by JSON schema
            "base_url": self._base_url,
            "api_key": "none",
            "use_responses_api": self.use_responses_api,
            "stream_usage": True,
        }

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": self.structured_output}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "gpt-4-turbo"

    # Images, PDFs and audio are off by default: FlowGPT takes text alone.


class TestChatCompletions(Standard):
    """By chat completions."""


class TestStructuredOutputByTools(Standard):
    """Structured output by a tool call."""

    structured_output = "function_calling"


class TestResponses(Standard):
    """By the Responses API."""

    use_responses_api = True


del Standard
