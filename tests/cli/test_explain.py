"""`flowgpt explain`: the very request of a question, redacted, also as curl; and nothing leaves."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from typing import Any

import pytest

from flowgpt import config
from tests.cli.conftest import Invoke, Write
from tests.conftest import API_KEY, PROXY_PASSWORD, PROXY_USER
from tests.upstream import Request, Upstream, reply

ASKED = ("-m", "gemini", "-s", "Be brief; it's ‮late", "--temperature", "0.25", "Why is it so?\n\"'$(x)` \\")
MASKED = {"authorization", "proxy-authorization", "x-flow-device-id", "x-signature"}
FRESH = {"x-nonce", "x-timestamp", "x-signature"}
"""What is another for each send."""


def explained(invoke: Invoke, *args: str) -> dict[str, Any]:
    result = invoke("explain", "--json", *args)
    assert result.exit_code == 0, result.stderr
    request: dict[str, Any] = json.loads(result.stdout)
    return request


def sent(invoke: Invoke, upstream: Upstream, *args: str) -> Request:
    """What the same question sends."""
    assert invoke("ask", *args).exit_code == 0
    return upstream.requests[-1]


def test_of_a_character_the_request_for_it_is_shown(invoke: Invoke) -> None:
    with Upstream([reply("a")]) as upstream:
        way = ("--base-url", upstream.url, "-m", "character:ada", "Who?")
        request = explained(invoke, *way)
        assert upstream.connections == 0
        invoke("ask", *way)
        heard = upstream.requests[0]

    headers = {name.lower(): value for name, value in request["headers"].items()}
    assert (request["method"], request["url"], request["body"]) == ("GET", f"{upstream.url}/prompt/ada/", "")
    assert (headers, heard.method, heard.body) == (heard.headers, "GET", b"")
    assert "--data-raw" not in request["curl"]


@pytest.mark.parametrize("key", [None, API_KEY])
@pytest.mark.parametrize("proxied", [False, True])
def test_what_is_shown_is_what_is_sent_byte_for_byte(
    key: str | None, proxied: bool, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("FLOWGPT_API_KEY", key)
    with Upstream([reply("a")]) as upstream:
        way: tuple[str, ...] = ("--base-url", upstream.url)
        if proxied:
            proxy = upstream.url.replace("//", f"//{PROXY_USER}:{PROXY_PASSWORD}@")
            way = ("--base-url", "http://nowhere.invalid", "--proxy", proxy)
        request = explained(invoke, *way, *ASKED)
        assert upstream.connections == 0
        heard = sent(invoke, upstream, *way, *ASKED)

    headers = {name.lower(): value for name, value in request["headers"].items()}
    assert request["body"].encode() == heard.body
    assert request["method"] == heard.method
    assert request["url"] == (heard.target if proxied else upstream.url + heard.target)
    assert headers.keys() == heard.headers.keys()
    for name in headers.keys() - MASKED - FRESH:
        assert headers[name] == heard.headers[name]
    assert headers["authorization"] == ("Bearer ***" if key else heard.headers["authorization"])
    assert request["proxy"] == (upstream.url.replace("//", "//***@") if proxied else None)


def test_k1_k2_no_secret_is_shown_in_any_form(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canaries are looked for in what pytest captures, too."""
    monkeypatch.setenv("FLOWGPT_API_KEY", API_KEY)
    monkeypatch.setenv("FLOWGPT_PROXY", f"socks5://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:9")
    for form in ([], ["--json"]):
        result = invoke("explain", "--base-url", "public", *form, "why?")
        for secret in (API_KEY, PROXY_USER, PROXY_PASSWORD, config.device_id()):
            assert secret not in result.output + result.stderr
        assert "Bearer ***" in result.stdout
        assert re.search(r"x-signature\W+\*\*\*", result.stdout)
        assert "socks5://***@127.0.0.1:9" in result.stdout + result.stderr


def test_a_shell_gives_curl_the_same(invoke: Invoke) -> None:
    request = explained(invoke, "--base-url", "http://127.0.0.1:1", *ASKED)
    shell = "curl() { printf '%s\\0' \"$@\"; }\n"
    ran = subprocess.run(["sh", "-c", shell + request["curl"]], capture_output=True, check=True)
    words = ran.stdout.decode().split("\0")[:-1]

    headers = dict(value.split(": ", 1) for name, value in itertools.pairwise(words) if name == "--header")
    assert words[:2] == ["--no-buffer", request["url"]]
    assert words[-2:] == ["--data-raw", request["body"]]
    assert headers == {name: request["headers"][name] for name in headers}
    assert request["headers"].keys() - headers.keys() == {"Host", "Accept", "Content-Length"}


def test_as_text_it_has_the_request_and_the_command_and_says_what_they_are_worth(invoke: Invoke) -> None:
    result = invoke("explain", "--base-url", "http://127.0.0.1:1", "why?")

    head, body, curl = result.stdout.rstrip("\n").split("\n\n")
    assert head.startswith("POST http://127.0.0.1:1/v3/chat-anonymous\nHost: 127.0.0.1:1\nAuthorization: Bearer null\n")
    assert json.loads(body)["question"] == "why?"
    assert curl.startswith("curl --no-buffer http://127.0.0.1:1/v3/chat-anonymous \\\n  --header ")
    assert "nothing was sent" in result.stderr
    assert "one timestamp and nonce" in result.stderr
    assert invoke("explain", "-q", "why?").stderr == ""


def test_no_text_commands_the_terminal(invoke: Invoke) -> None:
    assert "‮" not in invoke("explain", "a ‮ b").stdout
    assert "‮" in explained(invoke, "a ‮ b")["body"]


def test_with_nothing_configured_it_is_the_embedded_server_s_request_and_none_is_started(invoke: Invoke) -> None:
    assert explained(invoke, "why?")["url"] == "http://127.0.0.1:8000/v3/chat-anonymous"


def test_what_is_configured_counts(invoke: Invoke, configure: Write) -> None:
    configure("base_url = 'http://127.0.0.1:7'\nmodel = 'gemini'\ngreeting = 'Hello!'\n")
    request = explained(invoke, "why?")

    body = json.loads(request["body"])
    assert request["url"].startswith("http://127.0.0.1:7/")
    assert (body["model"], body["history"]) == ("google-gemini", [{"role": "assistant", "content": "Hello!"}])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "There is no question"),
        (["-m", "nope", "why?"], "model 'nope' is not in "),
        (["--base-url", "ftp://127.0.0.1", "why?"], "'ftp'"),
    ],
)
def test_what_cannot_be_asked_cannot_be_explained(args: list[str], words: str, invoke: Invoke) -> None:
    result = invoke("explain", *args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
