"""What a call is made with: the one table of options, and where their values come from.

Argument > environment > configuration file > default, resolved once for each call. The environment, the file and the
device id are read here and nowhere else; importing this package reads nothing. Secrets never show in a `repr`.
"""

from __future__ import annotations

from .checks import EMBEDDED, LIMIT_TIMEOUT_S, Timeouts, conceal
from .device import device_id
from .environment import environment, environment_proxy, is_loopback
from .file import home, path
from .options import OPTIONS, TEMPERATURE, Options, configuration
from .tables import History, gateway_table, history, history_table, provider_names, provider_tables

__all__ = [
    "EMBEDDED",
    "LIMIT_TIMEOUT_S",
    "OPTIONS",
    "TEMPERATURE",
    "History",
    "Options",
    "Timeouts",
    "conceal",
    "configuration",
    "device_id",
    "environment",
    "environment_proxy",
    "gateway_table",
    "history",
    "history_table",
    "home",
    "is_loopback",
    "path",
    "provider_names",
    "provider_tables",
]
