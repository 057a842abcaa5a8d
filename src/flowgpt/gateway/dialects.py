"""The dialects: for each, the request that it reads, the question that this is, its encoder, and its error object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..formats.anthropic import answer as messages_answer
from ..formats.anthropic import request as messages_request
from ..formats.openai import chat, chat_request, chunks, completions, responses_encoder, responses_request
from ..formats.pieces import Ask, Encoder, Facts, Problem


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to ask. `request`: the table of its parameters. `error`: a Problem as its error object."""

    request: type[msgspec.Struct]
    ask: Callable[[Any], Ask]
    encoder: Callable[[Facts, Any], Encoder]
    error: Callable[[Problem], Mapping[str, Any]]


CHAT = Dialect(chat_request.ChatRequest, chat_request.ask, chunks.ChatEncoder, chat.error_object)
COMPLETIONS = Dialect(completions.CompletionRequest, completions.ask, completions.CompletionEncoder, chat.error_object)
RESPONSES = Dialect(
    responses_request.ResponsesRequest, responses_request.ask, responses_encoder.ResponsesEncoder, chat.error_object
)
MESSAGES = Dialect(
    messages_request.MessagesRequest,
    messages_request.ask,
    messages_answer.MessagesEncoder,
    messages_answer.error_object,
)
