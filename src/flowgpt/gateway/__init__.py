"""FlowGPT for every program that speaks OpenAI's or Anthropic's API: an ASGI application, to be served or mounted.

Nothing in here knows FlowGPT's protocol, or sends a request of its own: answers come from a provider.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import Gateway, create_app
    from .settings import Settings

__all__ = ["Gateway", "Settings", "create_app"]

_ROOMS = {"Gateway": "app", "Settings": "settings", "create_app": "app"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: `flowgpt keys` needs one room of this package, and no web server."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
