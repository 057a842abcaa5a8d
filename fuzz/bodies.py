"""The gateway's request bodies: each is read as a request of every dialect, and goes down to FlowGPT's own body."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from flowgpt.errors import InvalidRequestError
from flowgpt.formats import parameters
from flowgpt.formats.anthropic.request import CountTokensRequest
from flowgpt.formats.stages import schema
from flowgpt.gateway import answer, failures
from flowgpt.gateway.dialects import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Dialect
from flowgpt.protocol import request

DIALECTS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
LIMIT_MESSAGE = 1000


def parse(data: bytes) -> object:
    """Read a body as each dialect does, up to what is sent."""
    return [_refusal(dialect, data) for dialect in DIALECTS]


def stretch(data: bytes, size: int) -> bytes:
    """The same body with its lists and texts repeated."""
    try:
        body = json.loads(data)
        assert isinstance(body, dict)
    except (ValueError, RecursionError, AssertionError):
        return data * (size // len(data))
    times = size // len(data)
    long = {name: value * times if isinstance(value, list | str) else value for name, value in body.items()}
    return json.dumps(long).encode()


def check(data: bytes, ways: Sequence[Sequence[bytes]]) -> None:
    """An answerable question or one clear refusal; and what is sent is what the embedded server reads."""
    for dialect in DIALECTS:
        _refusal(dialect, data)
    try:
        parameters.read(data, CountTokensRequest)
    except InvalidRequestError as refused:
        refused.message.encode()
    for signed_in in (False, True):
        try:
            received = request.decode(data, signed_in=signed_in)
        except InvalidRequestError as refused:
            refused.message.encode()
        else:
            assert request.decode(request.encode(received), signed_in=signed_in) == received


def _refusal(dialect: Dialect, data: bytes) -> bytes | None:
    try:
        read = parameters.read(data, dialect.request)
        ask = dialect.ask(read.values)
        schema.rules(ask)
        prompt = request.prompt_from_messages(answer.messages(ask))
        sent = request.ChatRequest(
            ask.model, prompt, 0.7 if ask.temperature is None else ask.temperature, prompt_id="x"
        )
        assert request.decode(request.encode(sent), signed_in=False) == sent
        assert all(name.isascii() and name.isprintable() for name in read.ignored)
    except InvalidRequestError as refused:
        problem = failures.problem(refused)
        assert problem.status in (400, 413)
        assert len(problem.message) <= LIMIT_MESSAGE
        return msgspec.json.encode(dialect.error(problem))
    return None
