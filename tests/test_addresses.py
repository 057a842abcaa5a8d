"""Which addresses are taken, and as what: origins and proxies, alone and as options of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.addresses import parse_api_url, parse_origin, parse_proxy
from flowgpt.config import Options
from flowgpt.errors import InvalidRequestError
from flowgpt.protocol.request import PUBLIC_ORIGIN

EXAMPLES = settings(max_examples=100)

T = TypeVar("T")


def taken(parse: Callable[[object], T], value: str, *codes: str) -> T | None:
    """What is parsed, or None for what is refused with one of these codes."""
    try:
        return parse(value)
    except InvalidRequestError as error:
        if error.code not in codes:
            raise
        return None


def option(name: str) -> Callable[[object], Any]:
    """The same address, as an option of a call: wrapped first if it has credentials."""
    return lambda value: getattr(Options.resolve(**{name: value}), name)


# --- origins --------------------------------------------------------------------------------------------------------

GOOD_ORIGINS = {
    "public": PUBLIC_ORIGIN,
    "http://example.com": "http://example.com",
    "HTTPS://Example.COM/": "https://example.com",
    "https://example.com:443": "https://example.com",
    "http://example.com:80/": "http://example.com",
    "http://example.com:443": "http://example.com:443",
    "http://127.0.0.1:8080": "http://127.0.0.1:8080",
    "http://localhost:1": "http://localhost:1",
    "http://[::1]:8080": "http://[::1]:8080",
    "http://[0:0::1]": "http://[::1]",
    "http://[2001:DB8::1]": "http://[2001:db8::1]",
    "http://db1": "http://db1",  # hexadecimal digits are no number by themselves
    "http://cafe.fade.be2": "http://cafe.fade.be2",
    "http://my_service:3000": "http://my_service:3000",
    "http://xn--mnchen-3ya.de": "http://xn--mnchen-3ya.de",
    "http://example.com:08080": "http://example.com:8080",
}
BAD_ORIGINS = """
example.com|/relative|//example.com|http:/example.com|http:example.com|http://|https://|:80|http://:80|://x|
ftp://example.com|ws://example.com|file:///etc/passwd|javascript:alert(1)|data:text/html,x|socks5://example.com|
http+unix://x|http://user@example.com|http://user:pw@example.com|http://@example.com|http://:@example.com|
http://example.com@evil.test|http://example.com/path|http://example.com//|http://example.com/?q|http://example.com?q|
http://example.com#f|http://example.com/#|http://example.com/..|http://example.com:0|http://example.com:65536|
http://example.com:99999999|http://example.com:|http://example.com:x|http://example.com:-1|http://example.com:+1|
http://example.com:80:80|http://0177.0.0.1|http://0177.1|http://127.1|http://2130706433|http://0x7f000001|
http://0x7f.1|http://0x|http://127.0.0.01|http://127.0.0.256|http://1.2.3|http://1.2.3.4.5|http://a.1|
http://[::ffff:127.0.0.1]|http://[::ffff:7f00:1]|http://[fe80::1%25eth0]|http://[fe80::1%eth0]|http://[::1|http://::1|
http://[]|http://[127.0.0.1]|http://[::1]x|http://[v1.x]|http://example.com.|http://.example.com|http://exa..mple.com|
http://-example.com|http://exam ple.com|http://exämple.com|http://example.com\\evil.test|\\\\example.com|
http:\\\\example.com|http://example%2ecom|http://ex*mple.com|http://example.com&evil| http://example.com|
http://example。com|HTTP://１２７.0.0.1
""".replace("\n", "").split("|")
LONG = ["http://" + "a" * 64 + ".com", "http://" + ".".join(["a" * 60] * 5), "http://x" * 5000]
CONTROLS = [
    "http://example.com\n",
    "http://example.com\r\nX: y",
    "http://exam\tple.com",
    "http://example.com\0",
    "\x1bx",
]


@pytest.mark.parametrize("value", GOOD_ORIGINS)
def test_m2_an_origin_is_taken_and_written_in_one_way(value: str) -> None:
    assert parse_origin(value) == GOOD_ORIGINS[value]
    assert parse_origin(GOOD_ORIGINS[value]) == GOOD_ORIGINS[value]
    assert option("base_url")(value) == GOOD_ORIGINS[value]


@pytest.mark.parametrize("take", [parse_origin, option("base_url")], ids=["parsed", "option"])
@pytest.mark.parametrize("value", BAD_ORIGINS + LONG + CONTROLS)
def test_m2_what_parsers_could_read_in_two_ways_is_refused(value: str, take: Callable[[object], object]) -> None:
    with pytest.raises(InvalidRequestError, match="base_url") as caught:
        take(value)
    assert caught.value.code == "bad_base_url"
    assert "evil" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_m2_there_are_sixty_and_more_of_them() -> None:
    assert len(set(BAD_ORIGINS)) >= 60


@EXAMPLES
@given(st.text(alphabet=st.sampled_from("htps:/[]@.%#?\\0123456789abcxé\x00\n-_"), max_size=30).map("http://".__add__))
def test_m2_whatever_is_taken_means_the_same_to_other_parsers(value: str) -> None:
    """The client sends with yarl's, and Python's own is a third opinion."""
    from urllib.parse import urlsplit

    from yarl import URL

    origin = taken(parse_origin, value, "bad_base_url")
    if origin is None:
        return
    ours = origin.partition("://")[2]
    sent, other = URL(origin + "/v3/chat", encoded=True), urlsplit(origin)
    assert sent.host is not None
    host = f"[{sent.host}]" if ":" in sent.host else sent.host
    assert host + (f":{sent.explicit_port}" if sent.explicit_port else "") == ours == other.netloc
    assert (sent.user, sent.password, sent.path) == (None, None, "/v3/chat")


# --- APIs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("HTTPS://Example.COM:443/", "https://example.com/v1"),
        ("http://[::1]:8080/v1/", "http://[::1]:8080/v1"),
        ("https://example.com/openai/deployments/x-1.5_~", "https://example.com/openai/deployments/x-1.5_~"),
        ("http://example.com/.well-known/...", "http://example.com/.well-known/..."),
    ],
)
def test_an_apis_address_is_an_origin_with_a_path(value: str, url: str) -> None:
    assert parse_api_url(value) == url
    assert parse_api_url(url) == url


@pytest.mark.parametrize("value", [value for value in BAD_ORIGINS if value != "http://example.com/path"])
def test_m2_what_is_no_origin_is_no_apis_address_either(value: str) -> None:
    assert taken(parse_api_url, value, "bad_base_url") is None


@pytest.mark.parametrize(
    "path", ["//", "/a//b", "/.", "/..", "/a/../b", "/a/./", "/%2e", "/a?b", "/a#b", "/a;b", "/a:b", "?a"]
)
def test_m2_an_apis_path_leaves_parsers_no_choice(path: str) -> None:
    assert taken(parse_api_url, "http://example.com" + path, "bad_base_url") is None


# --- proxies --------------------------------------------------------------------------------------------------------

GOOD_PROXIES: dict[str, tuple[str, str, int, str | None, str | None]] = {
    "http://h": ("http", "h", 80, None, None),
    "https://h/": ("https", "h", 443, None, None),
    "SOCKS5://H": ("socks5", "h", 1080, None, None),
    "socks5h://h:9": ("socks5", "h", 9, None, None),
    "http://[::1]:8080": ("http", "[::1]", 8080, None, None),
    "http://u@h": ("http", "h", 80, "u", ""),
    "http://u:@h": ("http", "h", 80, "u", ""),
    "http://:p@h": ("http", "h", 80, "", "p"),
    "http://@h": ("http", "h", 80, None, None),
    "http://u:p@h:1": ("http", "h", 1, "u", "p"),
    "http://u:p:q@h:1": ("http", "h", 1, "u", "p:q"),
    "http://u:p@q@h:1": ("http", "h", 1, "u", "p@q"),
    "http://u%40x:p%3A%2F%25@h:1": ("http", "h", 1, "u@x", "p:/%"),
    "http://%C3%A9:%E2%82%AC@h:1": ("http", "h", 1, "é", "€"),
}
BAD_PROXIES = [
    "h:1",
    "ftp://u:pw@h",
    "socks4://u:pw@h",
    "http://u:pw@h:99999",
    "http://u:pw@h:0",
    "http://u:pw@h:",
    "http://u:pw@",
    "http://u:p/w@h",
    "http://u:p#w@h",
    "http://u:p?w@h",
    "http://u:pw@h/path",
    "http://u:pw@h?q",
    "http://u:pw @h",
    "http://u:pw\\@h",
    "http://u:pwé@h",
    "http://u:pw@0177.1",
    "http://u:pw%0d%0a@h",
    "http://u:pw%00@h",
]


@pytest.mark.parametrize("value", GOOD_PROXIES)
def test_a16_a_proxy_is_taken_with_its_credentials_decoded(value: str) -> None:
    scheme, host, port, username, password = GOOD_PROXIES[value]
    proxy = parse_proxy(value)
    assert proxy is not None
    assert (proxy.scheme, proxy.host, proxy.port, proxy.username, proxy.password) == (
        scheme,
        host,
        port,
        username,
        password,
    )
    assert "@" not in proxy.url + repr(proxy)
    assert parse_proxy(proxy) is proxy


@pytest.mark.parametrize("take", [parse_proxy, option("proxy")], ids=["parsed", "option"])
@pytest.mark.parametrize("value", BAD_PROXIES)
def test_a16_a_bad_proxy_is_refused_before_anything_is_sent_and_its_credentials_are_masked(
    value: str, take: Callable[[object], object]
) -> None:
    with pytest.raises(InvalidRequestError, match="proxy") as caught:
        take(value)
    assert caught.value.code in ("bad_proxy", "header_injection")
    assert "pw" not in str(caught.value)


@EXAMPLES
@given(username=st.text(max_size=10), password=st.text(max_size=10))
def test_a16_credentials_of_any_letters_come_back_as_they_were(username: str, password: str) -> None:
    from urllib.parse import quote

    value = f"http://{quote(username, safe='', errors='replace')}:{quote(password, safe='', errors='replace')}@h"
    proxy = taken(parse_proxy, value, "header_injection")
    if proxy is None:
        assert not (username + password).isprintable()
        return
    if (username + password).encode(errors="replace").decode() == username + password and username + password:
        assert (proxy.username, proxy.password) == (username, password)
        assert proxy.authorization is not None


@EXAMPLES
@given(st.text(alphabet=st.sampled_from("htpsock5:/[]@.%#?\\09abcé\x00\n "), max_size=30))
def test_a16_odd_proxies_are_refused_or_taken_and_never_anything_else(value: str) -> None:
    for text in (value, "http://" + value):
        proxy = taken(parse_proxy, text, "bad_proxy", "header_injection")
        assert proxy is None or proxy.url == f"{proxy.scheme}://{proxy.host}:{proxy.port}"
