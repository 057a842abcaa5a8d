"""A server that speaks FlowGPT's protocol on this machine: to work offline, and to test programs against.

`Server` runs it in a thread, `spawn` as a child process, `run` as the whole job of this process. The names load what
they need when they are first used: the pytest plugin passes here in every test run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .child import spawn
    from .faults import FAULTS
    from .responders import Responder, Upstream, mirror
    from .server import Received
    from .serving import Server, run

__all__ = ["FAULTS", "Received", "Responder", "Server", "Upstream", "mirror", "run", "spawn"]


_ROOMS = {
    "FAULTS": "faults",
    "Received": "server",
    "Responder": "responders",
    "Server": "serving",
    "Upstream": "responders",
    "mirror": "responders",
    "run": "serving",
    "spawn": "child",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
