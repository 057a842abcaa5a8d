"""The environment's proxies, and which origins are this machine."""

from __future__ import annotations

import pytest

from flowgpt.config import Options, environment_proxy
from tests.conftest import PROXY_PASSWORD, PROXY_USER

FAR, NEAR = "http://far.test", "https://far.test"


@pytest.mark.parametrize(
    ("variables", "origin", "found"),
    [
        ({}, FAR, None),
        ({"HTTP_PROXY": "http://p:1"}, FAR, "http://p:1"),
        ({"http_proxy": "http://p:1"}, FAR, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, NEAR, None),
        ({"HTTPS_PROXY": "http://p:1"}, NEAR, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, FAR, None),
        ({"ALL_PROXY": "socks5://p:1"}, FAR, "socks5://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": "http://q:1"}, NEAR, "http://q:1"),
        ({"ALL_PROXY": "p:1"}, FAR, "http://p:1"),
        ({"HTTP_PROXY": ""}, FAR, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "far.test"}, FAR, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": ".test"}, FAR, None),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "far.test:81"}, FAR, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "ar.test,other"}, FAR, "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, FAR, None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.8.8.8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://localhost:8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://[::1]:8", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1.far.test", "http://p:1"),
        ({"NO_PROXY": "x"}, FAR, None),
    ],
)
def test_a17_the_environments_proxy_counts_less_no_proxy_and_loopback(
    variables: dict[str, str], origin: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = environment_proxy(origin)
    assert (proxy.url if proxy else None) == found
    assert Options.resolve(base_url=origin).proxy == proxy
    monkeypatch.setenv("FLOWGPT_PROXY", "http://ours:1")
    ours = Options.resolve(base_url=origin).proxy
    assert ours is not None
    assert ours.url == "http://ours:1", "ours goes before, and to loopback too"


def test_a17_the_environments_proxy_has_credentials_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://{PROXY_USER}:{PROXY_PASSWORD}@p:1")
    proxy = Options.resolve(base_url=FAR).proxy
    assert proxy is not None
    assert (proxy.username, proxy.password) == (PROXY_USER, PROXY_PASSWORD)
