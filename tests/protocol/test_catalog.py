"""The catalogue equals the list of the provider's description, word by word."""

from __future__ import annotations

from flowgpt.protocol.catalog import ALIASES, AS_OF, DEFAULT_MODEL, MODELS


def test_the_models_are_those_of_the_description_in_its_order() -> None:
    """Provenance: docs/protocol.md#models, the list of 2024-04."""
    assert MODELS == (
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
    assert AS_OF == "2024-04"


def test_the_default_is_in_the_list() -> None:
    assert DEFAULT_MODEL == "gpt-3.5-turbo"
    assert DEFAULT_MODEL in MODELS


def test_the_aliases_lead_into_the_list_and_hide_no_model() -> None:
    assert ALIASES == {"gemini": "google-gemini", "gemini-pro": "google-gemini"}
    assert set(ALIASES.values()) <= set(MODELS)
    assert not ALIASES.keys() & set(MODELS)
