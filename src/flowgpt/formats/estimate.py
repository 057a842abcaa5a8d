"""The estimate of tokens, from the characters of a prompt and of an answer. No dialect in here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .pieces import Piece, ToolCall

CHARACTERS_PER_TOKEN = 4
"""The rule of thumb for English text. FlowGPT reports no usage and its models' tokenizers are unknown."""


def tokens(characters: int) -> int:
    """How many tokens these characters are, rounded up: right in magnitude, never an account."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def size(piece: Piece) -> int:
    """How many characters of an answer a piece is: a text's, or those of a call's arguments."""
    if isinstance(piece, str):
        return len(piece)
    return len(piece.arguments) if isinstance(piece, ToolCall) else 0


def characters(messages: Iterable[Any]) -> int:
    """How many characters the messages' texts have. What is no message counts nothing: judging is the provider's."""
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    parts = [part for content in contents if isinstance(content, (list, tuple)) for part in content]
    texts = contents + [part.get("text") for part in parts if isinstance(part, Mapping)]
    return sum(len(text) for text in texts if isinstance(text, str))
