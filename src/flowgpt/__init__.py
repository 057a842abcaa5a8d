"""FlowGPT from Python: `FlowGpt`, an async generator of text, with what makes it dependable around it.

Unofficial; see README.md for status and terms. Importing this package reads nothing, writes nothing, and loads no
third-party module but msgspec.
"""

from .client import AsyncClient, Client
from .config import Timeouts
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
from .providers.flowgpt import FlowGpt
from .version import __version__ as __version__

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "ChallengeError",
    "Client",
    "FlowGPTError",
    "FlowGpt",
    "InternalServerError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "NotFoundError",
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
