"""The device id of this installation."""

from __future__ import annotations

import contextlib
import functools
import secrets
import string
from pathlib import Path

from ..protocol.signing import DEVICE_ID
from .file import home


def device_id() -> str:
    """This installation's x-flow-device-id: made once, kept in `home()/device-id`; delete the file to reset it.

    A home that cannot be written is no failure: the id then lasts as long as the process.
    """
    return _device_id(home())


@functools.cache
def _device_id(folder: Path) -> str:
    path = folder / "device-id"
    with contextlib.suppress(OSError, ValueError):
        kept = path.read_text("ascii").strip() if path.is_file() else ""
        if DEVICE_ID.fullmatch(kept):
            return kept
    made = "f-" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(19))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(made + "\n", "ascii")
        path.chmod(0o600)
    return made
