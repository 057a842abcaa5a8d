"""Addresses: an origin, an API's and a proxy's, read by one narrow grammar that leaves other parsers no choice. Pure.

What may hold credentials is a `Secret` from the first cut on, and no message shows it.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from .errors import InvalidRequestError
from .protocol.request import PUBLIC_ORIGIN


class Secret(str):
    """A string whose `repr` is ***, and so also in tracebacks with locals; it reads as itself everywhere else."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's address. `url` has no credentials, and `repr` doesn't show them."""

    scheme: str
    host: str
    port: int
    username: Secret | None = None
    password: Secret | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def authorization(self) -> Secret | None:
        """The Proxy-Authorization value (Basic), or None without credentials."""
        if self.username is None:
            return None
        pair = str(self.username) + ":" + str(self.password or "")
        return Secret("Basic " + base64.b64encode(pair.encode()).decode())

    def __repr__(self) -> str:
        return f"<Proxy {self.url}{', with credentials' if self.username is not None else ''}>"


def parse_origin(value: object) -> str:
    """An http or https origin, normalised: `scheme://host[:port]`; the word `public` is FlowGPT's own.

    Raises: InvalidRequestError (bad_base_url), naming the part that is wrong (M2).
    """
    return _origin(value if isinstance(value, str) else "")


@functools.lru_cache(maxsize=64)  # calls ask for the same few; what raises is not kept, and so no secret is
def _origin(value: str) -> str:
    if value == "public":
        return PUBLIC_ORIGIN
    origin, path = _http(value)
    if path not in ("", "/"):
        raise _bad("base_url", "bad_base_url", "it must be an origin such as https://example.com: no path or query")
    return origin


def parse_api_url(value: object) -> str:
    """Where an API is: an http or https origin with a path, normalised; `/v1` for an origin alone.

    Raises: InvalidRequestError (bad_base_url), naming the part that is wrong (M2).
    """
    origin, path = _http(value if isinstance(value, str) else "")
    path = Secret(path.removesuffix("/"))
    if not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*", path):
        raise _bad("base_url", "bad_base_url", "its path may have only letters, digits and -._~, and no query")
    return origin + (path or "/v1")


def _http(value: str) -> tuple[str, Secret]:
    """The origin of an http or https URL, and all that follows. Raises: InvalidRequestError (bad_base_url)."""
    url = _split(value)
    if isinstance(url, str):
        raise _bad("base_url", "bad_base_url", url)
    if url.scheme not in ("http", "https"):
        raise _bad("base_url", "bad_base_url", f"the scheme must be http or https, not {url.scheme!r}")
    if url.userinfo is not None:
        raise _bad("base_url", "bad_base_url", "it must not have a user name or password: use api_key")
    default = {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{url.host}" + ("" if url.port in (None, default) else f":{url.port}"), url.rest


def parse_proxy(value: object) -> Proxy | None:
    """A proxy URL: http, https or socks5, with credentials or without; "" is no proxy.

    Raises: InvalidRequestError (bad_proxy); the message never has the credentials (A16, K2).
    """
    if value == "":
        return None
    if isinstance(value, Proxy):
        return value
    url = _split(value)
    if isinstance(url, str):
        raise _bad("proxy", "bad_proxy", url)
    scheme = "socks5" if url.scheme == "socks5h" else url.scheme  # names are always resolved by a SOCKS proxy
    if scheme not in ("http", "https", "socks5"):
        raise _bad("proxy", "bad_proxy", f"the scheme must be http, https or socks5, not {scheme!r}")
    if url.rest not in ("", "/"):
        raise _bad("proxy", "bad_proxy", "it must have no path or query")
    port = url.port or {"http": 80, "https": 443, "socks5": 1080}[scheme]
    if not url.userinfo:
        return Proxy(scheme, url.host, port)
    username, password = (Secret(unquote(part)) for part in url.userinfo.partition(":")[::2])
    if not (username + password).isprintable():
        raise InvalidRequestError("proxy's user name or password has a control character", code="header_injection")
    return Proxy(scheme, url.host, port, username, password)


def _bad(name: str, code: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} is no usable address: {why}", code=code)


class _Url(NamedTuple):
    """A URL, cut into its parts; what may hold a secret is wrapped."""

    scheme: str
    userinfo: Secret | None
    host: str
    port: int | None
    rest: Secret


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:([^/?#]*)@)?(\[[^/?#@]*\]|[^/?#@:\[\]]*)(?::([^/?#]*))?([/?#].*)?")


def _split(value: object) -> _Url | str:
    """Cut a URL by a narrow grammar that leaves parsers no choice, or say what is wrong with it.

    It raises nothing: a traceback through here would show what is not wrapped yet.
    """
    if not isinstance(value, str) or not value:
        return "it must be a string such as https://example.com"
    if not all("!" <= char <= "~" for char in value) or "\\" in value:
        return "it has a space, a control character, a backslash or a letter outside ASCII"
    parts = _URL.fullmatch(value)
    if parts is None:
        return "it must have the form scheme://host:port"
    scheme, userinfo, host, port, rest = parts.groups()
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        return "the port must be 1 to 65535"
    found = _host(host.lower())
    if found is None:
        return "the host is neither a name nor an IP address in its usual form"
    return _Url(
        scheme.lower(),
        None if userinfo is None else Secret(userinfo),
        found,
        int(port) if port else None,
        Secret(rest or ""),
    )


def _host(host: str) -> str | None:
    """The host, normalised; None for what one parser might take for a name and another for an address."""
    try:
        if host.startswith("["):
            address = ipaddress.IPv6Address(host[1:-1])
            return None if "%" in host or address.ipv4_mapped else f"[{address}]"
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]):  # what ends in a number is an address
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        return None
    name = r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*"
    return host if len(host) <= 253 and re.fullmatch(name, host) else None
