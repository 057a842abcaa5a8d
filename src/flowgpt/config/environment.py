"""What the environment says besides our own variables: its proxies; and which origins are this machine."""

from __future__ import annotations

import functools
import ipaddress
import os
from urllib.parse import urlsplit

from ..addresses import Proxy, Secret, parse_proxy
from ..errors import InvalidRequestError
from .checks import EMBEDDED

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def environment_proxy(origin: str) -> Proxy | None:
    """The proxy that HTTPS_PROXY/HTTP_PROXY (by the origin's scheme) or ALL_PROXY name, less NO_PROXY and loopback."""
    url = _environment_proxy_url(origin)
    try:
        return parse_proxy(url)
    except InvalidRequestError as error:
        variable = urlsplit(origin).scheme.upper() + "_PROXY or ALL_PROXY"
        raise InvalidRequestError(f"{variable}: {error}", code=error.code, hint=error.hint) from None


def _environment_proxy_url(origin: str) -> Secret:
    """What the environment says of it; "" is none."""
    if is_loopback(origin) or not any(name in os.environ for name in _PROXY_VARIABLES):
        return Secret()
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed; late: 25 ms, which few need

    address = urlsplit(origin)
    proxies = getproxies_environment()
    chosen = proxies.get(address.scheme) or proxies.get("all") or ""
    if not chosen or proxy_bypass_environment(address.netloc, proxies):
        return Secret()
    return Secret(chosen if "://" in chosen else "http://" + chosen)


@functools.lru_cache(maxsize=64)  # calls ask for the same few
def is_loopback(origin: str) -> bool:
    """Whether the origin is this machine."""
    host = urlsplit(origin).hostname or ""
    try:
        return origin == EMBEDDED or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def environment(**more: str) -> dict[str, str]:
    """The environment for a program of ours, with these variables besides."""
    return {**os.environ, **more}
