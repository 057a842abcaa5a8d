"""FlowGPT from Python: `FlowGpt`, an async generator of text, with what makes it dependable around it.

Unofficial; see README.md for status and terms. Importing this package reads nothing, writes nothing, and loads no
third-party module but msgspec.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ChallengeError,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    ProxyError,
    QuotaExceededError,
    RateLimitError,
    ServiceUnavailableError,
    StoreError,
    StreamInterruptedError,
)
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .client import AsyncClient, Client
    from .config import Timeouts
    from .providers.fallback import Fallback
    from .providers.flowgpt import FlowGpt
    from .providers.openai import OpenAICompatible

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "ChallengeError",
    "Client",
    "Fallback",
    "FlowGPTError",
    "FlowGpt",
    "InternalServerError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NotFoundError",
    "OpenAICompatible",
    "PermissionDeniedError",
    "ProtocolError",
    "ProxyError",
    "QuotaExceededError",
    "RateLimitError",
    "ServiceUnavailableError",
    "StoreError",
    "StreamInterruptedError",
    "Timeouts",
]

_ROOMS = {
    "AsyncClient": "client",
    "Client": "client",
    "Fallback": "providers.fallback",
    "FlowGpt": "providers.flowgpt",
    "OpenAICompatible": "providers.openai",
    "Timeouts": "config",
}
"""What is loaded when it is first used: the terminal passes here before it can tell Ctrl-C."""


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
    return value
