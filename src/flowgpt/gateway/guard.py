"""What a browser may be made to do to a gateway on its user's machine, refused before any route is looked at.

DNS rebinding by the Host; other sites' pages by Origin, Sec-Fetch-Site and content type; and what every answer carries.
Pure: a request's head and the settings in, a Refusal or headers out. Sources: the Fetch standard (CORS), RFC 9110.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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

LIMIT_HOSTS = 64
"""How many hosts that were let in are remembered: a client writes the same one with each request."""

Fields = Mapping[bytes, Sequence[str]]
"""A request's headers: to each name, in small letters, its values, without the blanks around them."""


def fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The headers of an ASGI request, read once for all who ask for one."""
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.decode("latin-1").strip())
    return found


def hosts(bound_hosts: Sequence[str], settings: Settings) -> frozenset[str]:
    """The names that are answered to besides loopback's, in the form of `urlsplit(...).hostname`."""
    return frozenset(name for name in map(_name, [*bound_hosts, *settings.allow_hosts]) if name)


def check(
    scope: Mapping[str, Any], fields: Fields, *, hosts: frozenset[str], settings: Settings
) -> Sequence[tuple[str, str]] | None:
    """Let an ASGI request pass: None. Or the headers that answer a CORS preflight, with status 204.

    Raises: Refusal: 400 for a broken Host, 421 for a foreign one (RFC 9110: not a host that is answered for here), 403
    for another site's page.
    """
    asked_hosts = fields.get(b"host", ())
    if len(asked_hosts) != 1:
        raise _no_host(asked_hosts)
    server = scope.get("server")
    here = _here(scope.get("scheme", "http"), asked_hosts[0], server[0] if server else None, hosts)
    asked = fields.get(b"origin")
    allowed = _allowed_origin(fields, settings)
    if asked and not allowed and [_origin(value) for value in asked] != [here]:
        raise Refusal(403, "origin_not_allowed", f"pages of {_shown(asked)} may not ask here (--allow-origin)")
    if not allowed and "cross-site" in fields.get(b"sec-fetch-site", ()):
        raise Refusal(403, "cross_site_request", "another site's page may not ask here (--allow-origin)")
    if scope["method"] == "OPTIONS" and allowed and fields.get(b"access-control-request-method"):
        return _preflight(fields)
    return None


def answer_headers(fields: Fields, settings: Settings) -> Sequence[tuple[bytes, bytes]]:
    """What every answer to a request with these headers carries; of CORS only what an allowed origin needs."""
    origin = _allowed_origin(fields, settings)
    if not origin:
        return SECURITY
    return (
        *SECURITY,
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED),
        (b"vary", b"origin"),
    )


# --- Host --------------------------------------------------------------------------------------------------------


@functools.lru_cache(LIMIT_HOSTS)  # of refusals, which are raised, it remembers none
def _here(scheme: str, asked: str, address: str | None, names: Collection[str]) -> str:
    """The origin that was asked, when its host is one of ours. `address`: where the connection came to.

    Raises: Refusal.
    """
    origin = _origin(f"{scheme}://{asked}")
    if origin is None or re.search(r"[/?#]", asked):
        raise _no_host([asked])
    host = urlsplit(origin).hostname or ""
    if not (_is_local(host, address) or host in names):
        raise Refusal(421, "host_not_allowed", f"this gateway does not answer for the host {host!a} (--allow-host)")
    return origin


def _no_host(asked: Sequence[str]) -> Refusal:
    return Refusal(400, "invalid_host", f"one Host header with a name or an address is needed, not {_shown(asked)}")


def _is_local(host: str, here: str | None) -> bool:
    """Loopback; or the very address that the connection came to, which no name can be rebound to."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
        return address == ipaddress.IPv6Address("::1") or address in LOOPBACK or address == _address(here)
    except ValueError:
        return False


def _address(here: str | None) -> object:
    try:
        return ipaddress.ip_address(here or "")
    except ValueError:  # a Unix socket's path, or nothing
        return None


def _name(written: str) -> str | None:
    """A configured host in the form of `urlsplit(...).hostname`. IPv6 with or without brackets."""
    host = f"[{written}]" if written.count(":") > 1 and not written.startswith("[") else written
    origin = _origin(f"http://{host}")
    return urlsplit(origin).hostname if origin else None


# --- Origin ------------------------------------------------------------------------------------------------------


def _allowed_origin(fields: Fields, settings: Settings) -> str | None:
    """The request's origin, when it is configured, to the letter. `null` is many sites, and never allowed."""
    origins = fields.get(b"origin", ())
    return origins[0] if len(origins) == 1 and origins[0] in settings.allow_origins and origins[0] != "null" else None


def _origin(text: str) -> str | None:
    """An origin in one form: small letters, no default port, no dot at the end. None for what is none."""
    host = re.sub(r"\.(?=(:\d+)?$)", "", text)
    try:
        return parse_origin(host)
    except InvalidRequestError:
        return None


def _preflight(fields: Fields) -> list[tuple[str, str]]:
    """Any header that has a name: SDKs send their own. Nothing of private networks (L4), nothing of credentials."""
    asked = ",".join(fields.get(b"access-control-request-headers", ())).split(",")
    names = [name.strip().lower() for name in asked if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name.strip(), re.ASCII)]
    return [
        ("access-control-allow-methods", "GET, POST, DELETE"),
        *([("access-control-allow-headers", ", ".join(names))] if names else []),
        ("access-control-max-age", "600"),
    ]


# --- the rest ----------------------------------------------------------------------------------------------------


def check_json(fields: Fields) -> None:
    """Let a POST of JSON pass: a page can send other types to any site without asking (L2). Raises: Refusal 415."""
    types = fields.get(b"content-type", ())
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "unsupported_media_type", f"the content type must be application/json, not {_shown(types)}")


def _shown(values: Sequence[str]) -> str:
    return ", ".join(f"{value[:100]!a}" for value in values[:3]) or "none"
