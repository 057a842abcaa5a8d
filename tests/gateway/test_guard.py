"""What a page in a browser may reach: tables of Host, Origin and fetch metadata, and the headers of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.gateway import guard
from flowgpt.gateway.failures import Refusal
from flowgpt.gateway.settings import Settings

EXAMPLES = settings(max_examples=100)

HERE = "127.0.0.1:8080"
APP = "https://app.example"
SETTINGS = Settings(allow_hosts=("gateway.example", "Upper.Example."), allow_origins=(APP, "app://obsidian.md", "null"))


def scope(*lines: str, method: str = "GET", host: str | None = HERE, **more: Any) -> dict[str, Any]:
    pairs = [*([f"Host: {host}"] if host is not None else []), *lines]
    headers = [tuple(line.encode("latin-1").split(b":", 1)) for line in pairs]
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "headers": [(name.lower(), value.strip()) for name, value in headers],
    } | more


def check(asked: dict[str, Any], bound: Sequence[str] = ("192.0.2.7", "::2")) -> Sequence[tuple[str, str]] | None:
    fields = guard.fields(asked["headers"])
    headers = guard.check(asked, fields, hosts=guard.hosts(bound, SETTINGS), settings=SETTINGS)
    if asked["method"] == "POST":
        guard.check_json(fields)
    return headers


def status(asked: dict[str, Any]) -> int:
    """200 for what may pass."""
    try:
        check(asked)
    except Refusal as refusal:
        return refusal.problem.status
    return 200


# --- Host -----------------------------------------------------------------------------------------------------------

HOSTS = {
    "127.0.0.1": 200,
    "127.0.0.1:8080": 200,
    "127.0.0.1:1": 200,
    "127.8.8.8": 200,
    "localhost": 200,
    "LOCALHOST:3000": 200,
    "localhost.": 200,
    "localhost.:8080": 200,
    "[::1]": 200,
    "[::1]:8080": 200,
    "[0:0::1]": 200,
    "192.0.2.7:8080": 200,
    "[::2]:8080": 200,
    "gateway.example": 200,
    "Gateway.Example.:443": 200,
    "upper.example": 200,
    "evil.example": 421,
    "evil.example:8080": 421,
    "localhost.evil.example": 421,
    "evil-localhost": 421,
    "127.0.0.1.evil.example": 421,
    "127.0.0.1.nip.io": 421,
    "sub.gateway.example": 421,
    "gateway.example.evil.example": 421,
    "192.0.2.8": 421,
    "0.0.0.0": 421,
    "128.0.0.1": 421,
    "[::]": 421,
    "[::3]": 421,
    "": 400,
    ":8080": 400,
    "localhost:": 400,
    "localhost:0": 400,
    "localhost:99999": 400,
    "localhost:80:80": 400,
    "localhost/": 400,
    "localhost#": 400,
    "localhost?": 400,
    "localhost\\evil": 400,
    "evil@localhost": 400,
    "localhost, evil.example": 400,
    "localhost evil": 400,
    "localhost..": 400,
    "*": 400,
    "0x7f.1": 400,
    "127.1": 400,
    "2130706433": 400,
    "127.0.0.01": 400,
    "[::ffff:127.0.0.1]": 400,
    "[::1%lo]": 400,
    "[::1": 400,
    "l\xf6calhost": 400,
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "HEAD"])
def test_l1_only_hosts_of_ours_are_answered_for(host: str, method: str) -> None:
    assert status(scope(host=host, method=method)) == HOSTS[host]


@pytest.mark.parametrize(
    "lines", [[], ["Host: localhost", "Host: localhost"], ["Host: localhost", "Host: evil.example"]]
)
def test_l1_without_a_host_or_with_two_there_is_no_answer(lines: list[str]) -> None:
    assert status(scope(*lines, host=None)) == 400


@pytest.mark.parametrize(
    ("server", "host", "expected"),
    [
        (("198.51.100.4", 80), "198.51.100.4", 200),  # bound to 0.0.0.0: the address the connection came to
        (("198.51.100.4", 80), "198.51.100.5", 421),
        (("198.51.100.4", 80), "evil.example", 421),
        (("2001:db8::1", 80), "[2001:DB8:0::1]:80", 200),
        (("evil.example", 80), "evil.example", 421),  # a name proves nothing: it may be the Host itself
        (("/run/flowgpt.sock", None), "localhost", 200),
        (("/run/flowgpt.sock", None), "evil.example", 421),
        (None, "localhost", 200),
        (None, "198.51.100.4", 421),
    ],
)
def test_l1_an_address_is_ours_when_the_connection_came_to_it_a_name_never_is(
    server: Any, host: str, expected: int
) -> None:
    assert status(scope(host=host, server=server)) == expected


@EXAMPLES
@given(host=st.text(st.characters(max_codepoint=255)) | st.from_regex(r"[a-z0-9.\[\]:@/-]{1,30}", fullmatch=True))
def test_l1_whatever_passes_is_ours_to_the_letter(host: str) -> None:
    asked = scope(host=None)
    asked["headers"] = [(b"host", host.encode("latin-1"))]
    if status(asked) == 200:
        name = host.strip().rpartition(":")[0] if host.strip()[-1].isdigit() and ":" in host else host.strip()
        assert name.strip("[]").startswith(("127.", "localhost", "0:", "::"))


# --- Origin ---------------------------------------------------------------------------------------------------------

ORIGINS = {
    "http://127.0.0.1:8080": 200,
    "HTTP://127.0.0.1:8080": 200,
    APP: 200,
    "app://obsidian.md": 200,
    "null": 403,
    "": 403,
    "*": 403,
    "http://127.0.0.1": 403,
    "http://127.0.0.1:8081": 403,
    "https://127.0.0.1:8080": 403,
    "http://localhost:8080": 403,
    "http://127.0.0.2:8080": 403,
    "http://127.0.0.1:8080.evil.example": 403,
    "http://evil.example": 403,
    "http://localhost.evil.example": 403,
    "http://127.0.0.1.evil.example": 403,
    "http://127.0.0.1:8080@evil.example": 403,
    "http://evil.example#http://127.0.0.1:8080": 403,
    "http://evil.example/127.0.0.1:8080": 403,
    "127.0.0.1:8080": 403,
    "//127.0.0.1:8080": 403,
    "file://": 403,
    "https://app.example.evil.example": 403,
    "https://evilapp.example": 403,
    "https://app.example:8443": 403,
    "https://app.example:443": 403,
    "https://app.example.": 403,
    "https://APP.example": 403,
    "http://app.example": 403,
    "https://app.example/": 403,
    "https://app.example https://evil.example": 403,
    "app://obsidian.md.evil": 403,
    "chrome-extension://abcdefghijklmnop": 403,
    "http://[::1]:8080": 403,
    "http://gateway.example": 403,
    "\xff": 403,
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_l3_only_this_origin_and_configured_ones_may_ask(origin: str) -> None:
    assert status(scope(f"Origin: {origin}")) == ORIGINS[origin]
    assert status(scope(f"Origin: {origin}", "Content-Type: application/json", method="POST")) == ORIGINS[origin]


@pytest.mark.parametrize(
    ("host", "scheme", "origin"),
    [
        ("localhost", "http", "http://localhost"),
        ("localhost:80", "http", "http://localhost"),
        ("localhost", "https", "https://localhost:443"),
        ("LOCALHOST.:3000", "http", "http://localhost:3000"),
        ("[::1]:3000", "http", "http://[::1]:3000"),
        ("gateway.example", "https", "https://gateway.example"),
    ],
)
def test_l3_the_same_origin_is_the_same_however_it_is_written(host: str, scheme: str, origin: str) -> None:
    assert status(scope(f"Origin: {origin}", host=host, scheme=scheme)) == 200


@pytest.mark.parametrize("second", ["http://127.0.0.1:8080", APP, "http://evil.example"])
def test_l3_two_origins_are_none(second: str) -> None:
    for first in ("http://127.0.0.1:8080", APP):
        asked = scope(f"Origin: {first}", f"Origin: {second}")
        assert status(asked) == 403
        assert cors(asked) == {}


@pytest.mark.parametrize(
    ("site", "origin", "expected"),
    [
        ("cross-site", None, 403),
        ("cross-site", APP, 200),
        ("cross-site", "http://evil.example", 403),
        ("same-site", None, 200),
        ("same-origin", None, 200),
        ("none", None, 200),
        ("junk", None, 200),
    ],
)
def test_l4_a_cross_site_request_needs_an_origin_that_is_configured(
    site: str, origin: str | None, expected: int
) -> None:
    lines = [f"Sec-Fetch-Site: {site}", *([f"Origin: {origin}"] if origin else [])]
    assert status(scope(*lines)) == expected
    assert status(scope(*lines, "Sec-Fetch-Site: none")) == expected


# --- content type ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Content-Type: application/json"], 200),
        (["Content-Type: Application/JSON; charset=utf-8"], 200),
        (["Content-Type: application/json ;charset=utf-8"], 200),
        ([], 415),
        (["Content-Type: "], 415),
        (["Content-Type: text/plain"], 415),
        (["Content-Type: text/plain; application/json"], 415),
        (["Content-Type: application/x-www-form-urlencoded"], 415),
        (["Content-Type: multipart/form-data; boundary=application/json"], 415),
        (["Content-Type: application/jsonp"], 415),
        (["Content-Type: application/json, text/plain"], 415),
        (["Content-Type: text/plain", "Content-Type: application/json"], 415),
        (["Content-Type: application/json", "Content-Type: application/json"], 415),
    ],
)
def test_l2_what_is_posted_is_json_and_says_so(lines: list[str], expected: int) -> None:
    assert status(scope(*lines, method="POST")) == expected
    assert status(scope(*lines, method="GET")) == 200


def test_a_refusal_says_which_and_how_to_allow_it() -> None:
    for asked, code, words in [
        (scope(host="evil.example"), "host_not_allowed", "--allow-host"),
        (scope(host="a b"), "invalid_host", "'a b'"),
        (scope("Origin: http://evil.example"), "origin_not_allowed", "--allow-origin"),
        (scope("Sec-Fetch-Site: cross-site"), "cross_site_request", "--allow-origin"),
        (scope(method="POST"), "unsupported_media_type", "not none"),
    ]:
        with pytest.raises(Refusal) as caught:
            check(asked)
        assert caught.value.problem.code == code
        assert words in caught.value.problem.message


@pytest.mark.parametrize("value", ["x" * 10_000, "\x1b[31m\xff\x00"])
def test_k4_a_message_shows_little_of_what_was_sent_and_escapes_it(value: str) -> None:
    for asked in (scope(host=value), scope(f"Origin: {value}"), scope(f"Content-Type: {value}", method="POST")):
        with pytest.raises(Refusal) as caught:
            check(asked)
        assert len(caught.value.problem.message) < 300
        assert caught.value.problem.message.isascii()


# --- CORS -----------------------------------------------------------------------------------------------------------


def cors(asked: dict[str, Any]) -> dict[bytes, bytes]:
    """The headers of an answer that are of CORS."""
    told = guard.answer_headers(guard.fields(asked["headers"]), SETTINGS)
    assert len(dict(told)) == len(told)
    return {name: value for name, value in told if name.startswith(b"access-control") or name == b"vary"}


def test_l3_an_allowed_origin_may_read_the_answer_and_no_credentials_are_asked_for() -> None:
    told = cors(scope(f"Origin: {APP}"))
    assert told.keys() == {b"access-control-allow-origin", b"access-control-expose-headers", b"vary"}
    assert told[b"access-control-allow-origin"] == APP.encode()
    assert told[b"vary"] == b"origin"
    assert b"retry-after" in told[b"access-control-expose-headers"]


@pytest.mark.parametrize("origin", [None, *(origin for origin in ORIGINS if origin not in (APP, "app://obsidian.md"))])
def test_l3_nobody_else_gets_a_header_of_cors(origin: str | None) -> None:
    assert cors(scope(*([] if origin is None else [f"Origin: {origin}"]))) == {}


def preflight(*lines: str, origin: str = APP) -> dict[str, str] | None:
    asked = [f"Origin: {origin}", "Access-Control-Request-Method: POST", "Sec-Fetch-Site: cross-site", *lines]
    told = check(scope(*asked, method="OPTIONS"))
    return None if told is None else dict(told)


def test_a_preflight_of_an_allowed_origin_gets_the_headers_that_it_asks_for() -> None:
    asked = "authorization, content-type,X-Stainless-Lang ,anthropic-version"
    assert preflight(f"Access-Control-Request-Headers: {asked}") == {
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type, x-stainless-lang, anthropic-version",
        "access-control-max-age": "600",
    }


@pytest.mark.parametrize("names", ["", ",", "a b", "a:b", "é", "x\tset-cookie: 1", '"quoted"', "(a)"])
def test_a_preflight_mirrors_names_and_nothing_else(names: str) -> None:
    told = preflight(f"Access-Control-Request-Headers: {names}")
    assert told is not None
    assert "access-control-allow-headers" not in told


def test_l4_a_preflight_from_elsewhere_is_refused_and_none_opens_the_private_network() -> None:
    for origin in ("http://evil.example", "null"):
        with pytest.raises(Refusal) as caught:
            preflight(origin=origin)
        assert caught.value.problem.status == 403
    told = preflight("Access-Control-Request-Private-Network: true")
    assert told is not None
    assert not any("private" in name or "credentials" in name for name in told)


def test_options_that_are_no_preflight_go_to_the_routes() -> None:
    assert check(scope(method="OPTIONS")) is None
    assert check(scope(f"Origin: {APP}", method="OPTIONS")) is None
    assert check(scope("Origin: http://127.0.0.1:8080", "Access-Control-Request-Method: GET", method="OPTIONS")) is None


# --- every answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [[], [f"Origin: {APP}"], ["Origin: null"], ["Host: evil.example"]])
def test_l10_l13_l14_every_answer_is_unframed_unsniffed_and_unstored(lines: list[str]) -> None:
    told = dict(guard.answer_headers(guard.fields(scope(*lines)["headers"]), SETTINGS))
    assert told[b"x-frame-options"] == b"DENY"
    assert told[b"content-security-policy"] == b"frame-ancestors 'none'"
    assert told[b"x-content-type-options"] == b"nosniff"
    assert told[b"cache-control"] == b"no-store"
