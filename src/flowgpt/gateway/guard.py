"""What a browser may be made to do to a gateway on its user's machine, refused before any route is looked at.

DNS rebinding by the Host; other sites' pages by Origin, Sec-Fetch-Site and content type; and what every answer carries.
Pure: a request's head and the settings in, a Refusal or headers out. Sources: the Fetch standard (CORS), RFC 9110.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..addresses import parse_origin
from ..errors import InvalidRequestError
from .failures import Refusal
from .settings import Settings

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)

EXPOSED = b"retry-after, x-request-id, x-should-retry, x-flowgpt-ignored, x-flowgpt-emulated, openai-processing-ms"
"""What a page's program may read of an answer."""

LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")

Headers = Sequence[tuple[bytes, bytes]]


def hosts(bound_hosts: Sequence[str], settings: Settings) -> frozenset[str]:
    """The names that are answered to besides loopback's, in the form of `urlsplit(...).hostname`."""
    return frozenset(name for name in map(_name, [*bound_hosts, *settings.allow_hosts]) if name)


def check(scope: Mapping[str, Any], *, hosts: Collection[str], settings: Settings) -> Sequence[tuple[str, str]] | None:
    """Let an ASGI request pass: None. Or the headers that answer a CORS preflight, with status 204.

    Raises: Refusal: 400 for a broken Host, 421 for a foreign one (RFC 9110: not a host that is answered for here), 403
    for another site's page.
    """
    headers: Headers = scope["headers"]
    here = _check_host(scope, hosts)
    asked = _values(headers, b"origin")
    allowed = _allowed_origin(headers, settings)
    if asked and not allowed and [_origin(value) for value in asked] != [here]:
        raise Refusal(403, "origin_not_allowed", f"pages of {_shown(asked)} may not ask here (--allow-origin)")
    if not allowed and "cross-site" in _values(headers, b"sec-fetch-site"):
        raise Refusal(403, "cross_site_request", "another site's page may not ask here (--allow-origin)")
    if scope["method"] == "OPTIONS" and allowed and _values(headers, b"access-control-request-method"):
        return _preflight(headers)
    return None


def answer_headers(headers: Headers, settings: Settings) -> list[tuple[bytes, bytes]]:
    """What every answer to a request with these headers carries; of CORS only what an allowed origin needs."""
    origin = _allowed_origin(headers, settings)
    if not origin:
        return [*SECURITY]
    cors = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED),
        (b"vary", b"origin"),
    ]
    return [*SECURITY, *cors]


# --- Host --------------------------------------------------------------------------------------------------------


def _check_host(scope: Mapping[str, Any], names: Collection[str]) -> str:
    """The origin that was asked, when its host is one of ours. Raises: Refusal."""
    hosts = _values(scope["headers"], b"host")
    origin = _origin(f"{scope.get('scheme', 'http')}://{hosts[0]}") if len(hosts) == 1 else None
    if origin is None or re.search(r"[/?#]", hosts[0]):
        raise Refusal(400, "invalid_host", f"one Host header with a name or an address is needed, not {_shown(hosts)}")
    host = urlsplit(origin).hostname or ""
    if not (_is_local(host, scope.get("server")) or host in names):
        raise Refusal(421, "host_not_allowed", f"this gateway does not answer for the host {host!a} (--allow-host)")
    return origin


def _is_local(host: str, server: Any) -> bool:
    """Loopback; or the very address that the connection came to, which no name can be rebound to."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
        return address == ipaddress.IPv6Address("::1") or address in LOOPBACK or address == _address(server)
    except ValueError:
        return False


def _address(server: Any) -> object:
    try:
        return ipaddress.ip_address(server[0])
    except (TypeError, ValueError):  # a Unix socket's path, or nothing
        return None


def _name(written: str) -> str | None:
    """A configured host in the form of `urlsplit(...).hostname`. IPv6 with or without brackets."""
    host = f"[{written}]" if written.count(":") > 1 and not written.startswith("[") else written
    origin = _origin(f"http://{host}")
    return urlsplit(origin).hostname if origin else None


# --- Origin ------------------------------------------------------------------------------------------------------


def _allowed_origin(headers: Headers, settings: Settings) -> str | None:
    """The request's origin, when it is configured, to the letter. `null` is many sites, and never allowed."""
    origins = _values(headers, b"origin")
    return origins[0] if len(origins) == 1 and origins[0] in settings.allow_origins and origins[0] != "null" else None


def _origin(text: str) -> str | None:
    """An origin in one form: small letters, no default port, no dot at the end. None for what is none."""
    host = re.sub(r"\.(?=(:\d+)?$)", "", text)
    try:
        return parse_origin(host)
    except InvalidRequestError:
        return None


def _preflight(headers: Headers) -> list[tuple[str, str]]:
    """Any header that has a name: SDKs send their own. Nothing of private networks (L4), nothing of credentials."""
    asked = ",".join(_values(headers, b"access-control-request-headers")).split(",")
    names = [name.strip().lower() for name in asked if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name.strip(), re.ASCII)]
    return [
        ("access-control-allow-methods", "GET, POST, DELETE"),
        *([("access-control-allow-headers", ", ".join(names))] if names else []),
        ("access-control-max-age", "600"),
    ]


# --- the rest ----------------------------------------------------------------------------------------------------


def check_json(headers: Headers) -> None:
    """Let a POST of JSON pass: a page can send other types to any site without asking (L2). Raises: Refusal 415."""
    types = _values(headers, b"content-type")
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "unsupported_media_type", f"the content type must be application/json, not {_shown(types)}")


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]


def _shown(values: Sequence[str]) -> str:
    return ", ".join(f"{value[:100]!a}" for value in values[:3]) or "none"
