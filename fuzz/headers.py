"""Heads and the small grammars in them: one `name: value` a line, each read by whom it is meant for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from flowgpt.addresses import parse_api_url, parse_origin, parse_proxy
from flowgpt.errors import FlowGPTError, InvalidRequestError, ModelNotFoundError
from flowgpt.gateway import guard
from flowgpt.gateway.auth import Auth, digest
from flowgpt.gateway.failures import Refusal
from flowgpt.gateway.settings import Settings
from flowgpt.limits.retry import http_date, retry_after_s
from flowgpt.providers.flowgpt import FlowGpt
from flowgpt.store import Store

KEY = "sk-hush"
ORIGIN = "https://app.example"
SETTINGS = Settings(allow_hosts=("box.example",), allow_origins=(ORIGIN,))
HOSTS = guard.hosts(("192.0.2.7",), SETTINGS)


class Keys:
    """A store of one key."""

    def keys(self) -> Mapping[str, str]:
        return {digest(KEY): "ada"}


AUTH = Auth(cast(Store, Keys()), insecure_no_auth=False)


def parse(data: bytes) -> object:
    """Read a head and what is in it."""
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(b":") for line in data.split(b"\n"))]
    values = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    _enter(headers, values)
    for name, read in GRAMMARS.items():
        if name in values:
            read(values[name], values)
    return None


def stretch(data: bytes, size: int) -> bytes:
    """The same head with each value repeated."""
    lines = (line.partition(b":") for line in data.split(b"\n"))
    return b"\n".join(name + colon + value.strip() * (size // len(data)) for name, colon, value in lines)


def check(data: bytes, ways: Sequence[Sequence[bytes]]) -> None:
    """Typed refusals only, and what is taken is what was meant."""
    parse(data)


def _enter(headers: Sequence[tuple[bytes, bytes]], values: Mapping[str, str]) -> None:
    """The gateway's door, in its order: host and origin, content type, key."""
    scope = {"headers": headers, "method": values.get("method", "POST"), "scheme": "http", "server": ("192.0.2.7", 80)}
    fields = guard.fields(headers)
    for name, value in guard.answer_headers(fields, SETTINGS):
        assert name.islower()
        assert b"\n" not in value
        assert b"\r" not in value
    try:
        preflight = guard.check(scope, fields, hosts=HOSTS, settings=SETTINGS)
        if preflight is not None:
            assert all(value.isascii() and value.isprintable() for _, value in preflight)
        guard.check_json(fields)
        assert AUTH.owner(fields, values.get("query", "").encode("latin-1")) == "ada"
        assert any(KEY.encode() in value for _, value in headers)
    except Refusal as refused:
        assert 400 <= refused.problem.status < 500
        elsewhere = [name + value for name, value in headers if name.lower() not in (b"authorization", b"x-api-key")]
        assert KEY not in refused.problem.message or KEY.encode() in b"".join(elsewhere)
        refused.problem.message.encode()
        assert len(refused.problem.message) < 1000


def _retry_after(value: str, values: Mapping[str, str]) -> None:
    seconds = retry_after_s(value, date=values.get("date"))
    assert seconds is None or 0 < seconds < math.inf


def _date(value: str, values: Mapping[str, str]) -> None:
    read = http_date(value)
    assert read is None or read.tzinfo is not None
    if read is not None:
        assert math.isfinite(read.timestamp())


def _origin(value: str, values: Mapping[str, str]) -> None:
    for take in (parse_origin, parse_api_url):
        try:
            taken = take(value)
        except InvalidRequestError as refused:
            _no_secret(refused, value)
        else:
            assert take(taken) == taken


def _proxy(value: str, values: Mapping[str, str]) -> None:
    try:
        proxy = parse_proxy(value)
    except InvalidRequestError as refused:
        _no_secret(refused, value)
        return
    if proxy is None:
        assert not value
        return
    bare = parse_proxy(proxy.url)
    assert bare is not None
    assert bare.url == proxy.url
    assert KEY not in repr(proxy)
    assert (proxy.authorization or "").isascii()


def _no_secret(refused: FlowGPTError, value: str) -> None:
    assert f":{KEY}@" not in value or KEY not in refused.message
    refused.message.encode()
    assert len(refused.message) < 1000


def _model(value: str, values: Mapping[str, str]) -> None:
    try:
        known = FlowGpt.get_model(value)
        assert known in FlowGpt.models
    except ModelNotFoundError as refused:
        refused.message.encode()
        assert len(refused.message) < 1000


GRAMMARS: Mapping[str, Callable[[str, Mapping[str, str]], None]] = {
    "retry-after": _retry_after,
    "date": _date,
    "base-url": _origin,
    "proxy": _proxy,
    "model": _model,
}
