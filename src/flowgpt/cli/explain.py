"""`flowgpt explain`: the request of a question as it would be sent, also as a curl command. Nothing is sent.

The request is the provider's own, so it cannot differ from a call's. What is the user's alone is shown as ***.
"""

from __future__ import annotations

import json
import shlex
import time
from typing import Any
from urllib.parse import urlsplit

import click

from ..providers.flowgpt import FlowGpt
from ..transport import Call
from . import ask, asking, streams
from .endpoint import unstarted

MASK = "***"
MASKED = frozenset({"Authorization", "Proxy-Authorization", "x-flow-device-id", "x-signature"})
"""Headers of the user alone. A signature counts, since a short key could be guessed from it."""

UNMASKED = frozenset({"Bearer null"})
"""What is no secret: the Authorization of all who have no key."""

CURLS_OWN = frozenset({"Host", "Accept", "Content-Length", "Proxy-Authorization"})
"""Headers that curl makes itself, of URL, body and proxy."""

ASKED = frozenset({"question", "model", "system", "temperature", "base_url", "proxy"}) | {
    "files",
    "template",
    "values",
    "latest",
    "cid",
}
"""What of `flowgpt ask` makes the request."""


def shown(call: Call) -> dict[str, Any]:
    """The request of a call as people may see it: `method`, `url`, `proxy`, `headers`, `body` (a string, as sent)."""
    sent = {"Host": urlsplit(call.url).netloc, **call.sent_headers(time.time())}
    sent |= {"Accept": "*/*"} | ({"Content-Length": str(len(call.body))} if call.body else {})
    proxy = call.options.proxy
    credentials = f"{MASK}@" if proxy and proxy.authorization else ""
    return {
        "method": call.method,
        "url": call.url,
        "proxy": proxy and proxy.url.replace("//", f"//{credentials}", 1),
        "headers": {name: _masked(name, value) for name, value in sent.items()},
        "body": call.body.decode(),
    }


def _masked(name: str, value: str) -> str:
    if name not in MASKED or value in UNMASKED:
        return value
    scheme, space, _ = value.partition(" ")
    return scheme + space + MASK if space else MASK


def as_curl(request: dict[str, Any]) -> str:
    """The same request as a command for a POSIX shell; its *** are for the reader to fill in."""
    parts = [f"curl --no-buffer {shlex.quote(request['url'])}"]
    if request["proxy"]:
        parts.append(f"--proxy {shlex.quote(request['proxy'].replace('socks5:', 'socks5h:', 1))}")  # names go to it
    lines = (f"{name}: {value}" for name, value in request["headers"].items() if name not in CURLS_OWN)
    parts += [f"--header {shlex.quote(line)}" for line in lines]
    parts += [f"--data-raw {shlex.quote(request['body'])}"] if request["body"] else []
    return " \\\n  ".join(parts)


def _explain(
    question: tuple[str, ...], base_url: str | None, proxy: str | None, as_json: bool, quiet: bool, **how: Any
) -> None:
    asked = asking.question(question, **how)
    there = unstarted(base_url, proxy)
    given = {} if asked.temperature is None else {"temperature": asked.temperature}
    call, _ = FlowGpt.call(asked.model, asked.messages, base_url=there.base_url, proxy=there.proxy, **given)
    request = shown(call)
    if as_json:
        streams.write(json.dumps(request | {"curl": as_curl(request)}) + "\n")
    else:
        head = [f"{request['method']} {request['url']}", *(f"{n}: {value}" for n, value in request["headers"].items())]
        text = "\n".join([*head, "", request["body"], "", as_curl(request)])
        streams.write(streams.plain(text) + "\n")
    if not quiet:
        way = f" It would go through {request['proxy']}." if request["proxy"] else ""
        streams.note(
            f"flowgpt: nothing was sent. {MASK} is yours alone; a signature holds for one timestamp and nonce.{way}"
        )
        streams.note("hint: to ask a question that begins with this word: flowgpt ask explain ...")


command = click.Command(
    "explain",
    callback=_explain,
    params=[
        *(row for row in ask.command.params if row.name in ASKED),
        click.Option(["--json", "as_json"], is_flag=True, help="one JSON object"),
        click.Option(["-q", "--quiet"], is_flag=True, help="no notes on stderr"),
    ],
    help="""Show the request of a question, exactly as it would be sent, and as a curl command.

    Nothing is sent. What is yours alone (key, signature, device id) is shown as ***.""",
)
