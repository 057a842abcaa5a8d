"""The signed headers of a request, made and checked. Time and nonce come in as arguments; no clock, no randomness.

Source: docs/protocol.md#request-headers. The signature is a checksum, not a secret.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

ANONYMOUS = "null"
"""What stands behind `Bearer` when there is no key: the word, literally."""

NONCE = re.compile(r"[0-9a-f]{32}")
DEVICE_ID = re.compile(r"f-[a-z0-9]{19}|[A-Za-z0-9_-]{21}")


def authorization(api_key: str | None) -> str:
    """The Authorization value: `Bearer <key>`, or `Bearer null` without one."""
    return "Bearer " + (api_key or ANONYMOUS)


def signature(*, timestamp_s: int, nonce: str, authorization: str) -> str:
    """Lowercase hex MD5 of `{timestamp}-{nonce}-{whole Authorization value}`. Body, path and device id are not signed.

    Source: docs/protocol.md#request-headers, two independent clients agree.
    """
    # No local of it, which a traceback might show.
    return hashlib.md5(f"{timestamp_s}-{nonce}-{authorization}".encode(), usedforsecurity=False).hexdigest()


def headers(*, authorization: str, timestamp_s: int, nonce: str, device_id: str) -> dict[str, str]:
    """All protocol headers of one send; `nonce` (32 lowercase hex digits) and `timestamp_s` must be fresh for each."""
    return {
        "Authorization": authorization,
        "Content-Type": "application/json",
        "x-flow-device-id": device_id,
        "x-nonce": nonce,
        "x-signature": signature(timestamp_s=timestamp_s, nonce=nonce, authorization=authorization),
        "x-timestamp": str(timestamp_s),
    }


def fault(headers: Mapping[str, str], *, now_s: float, tolerance_s: float) -> str | None:
    """What is wrong with the signed headers of a request, in words; None when they are right.

    `headers`: names in lower case. Nonce reuse is for the caller to know.
    """
    for name in ("authorization", "x-timestamp", "x-nonce", "x-signature", "x-flow-device-id"):
        if name not in headers:
            return f"header {name} is missing"
    timestamp, nonce, bearer = headers["x-timestamp"], headers["x-nonce"], headers["authorization"]
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        return "header x-timestamp is not a Unix time in whole seconds"
    if not NONCE.fullmatch(nonce):
        return "header x-nonce is not 32 lowercase hex digits"
    if not DEVICE_ID.fullmatch(headers["x-flow-device-id"]):
        return "header x-flow-device-id is not a device id of 21 characters"
    if not re.fullmatch(r"Bearer \S.*", bearer):
        return "header authorization is not a bearer token"
    if abs(now_s - int(timestamp)) > tolerance_s:
        return f"header x-timestamp is more than {tolerance_s:g} s from this server's clock"
    if headers["x-signature"] != signature(timestamp_s=int(timestamp), nonce=nonce, authorization=bearer):
        return "header x-signature does not match"
    return None
