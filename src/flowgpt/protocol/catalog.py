"""The models FlowGPT is known to have, as data with a date. Ids come and go: nothing here decides what may be asked.

Source: docs/protocol.md#models.
"""

from __future__ import annotations

AS_OF = "2024-04"
"""When this list was true, as far as public clients show."""

DEFAULT_MODEL = "gpt-3.5-turbo"

MODELS = (
    "gpt-3.5-turbo",
    "gpt-3.5-long",
    "gpt-4-turbo",
    "google-gemini",
    "claude-instant",
    "claude-v1",
    "claude-v2",
    "llama2-13b",
    "mythalion-13b",
    "pygmalion-13b",
    "chronos-hermes-13b",
    "Mixtral-8x7B",
    "Dolphin-2.6-8x7B",
)

ALIASES = {"gemini": "google-gemini", "gemini-pro": "google-gemini"}
