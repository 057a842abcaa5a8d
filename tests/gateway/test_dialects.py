"""gateway/dialects.py: whatever JSON is asked in a dialect, it is a question that FlowGPT can be sent, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.errors import InvalidRequestError
from flowgpt.formats import parameters
from flowgpt.gateway import answer
from flowgpt.gateway.dialects import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Dialect
from flowgpt.protocol.request import ChatRequest, decode, encode, prompt_from_messages

DIALECTS = {"chat": CHAT, "completions": COMPLETIONS, "responses": RESPONSES, "messages": MESSAGES}

WORDS = st.sampled_from(
    [
        *("role", "content", "type", "text", "name", "input", "user", "assistant", "tool", "function", "auto"),
        *("function_call", "function_call_output", "call_id", "tool_calls", "tool_call_id", "arguments", "output"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SPOKEN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS | VALUES})
BODIES = st.builds(
    dict[str, Any],
    st.dictionaries(
        st.sampled_from(sorted({name for d in DIALECTS.values() for name in parameters.rows(d.request)})), VALUES
    ),
    model=st.just("m"),
    max_tokens=st.just(5),
    prompt=TEXTS | VALUES,
    input=TEXTS | st.lists(SPOKEN, max_size=3) | VALUES,
    messages=st.lists(SPOKEN, max_size=4) | VALUES,
)


def sent(dialect: Dialect, body: bytes) -> ChatRequest:
    """What FlowGPT would be sent. Raises: InvalidRequestError."""
    ask = dialect.ask(parameters.read(body, dialect.request).values)
    return ChatRequest(ask.model, prompt_from_messages(answer.messages(ask)), prompt_id="x")


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=40)
@given(body=BODIES)
def test_whatever_is_asked_arrives_as_it_was_meant_or_is_refused(name: str, body: dict[str, Any]) -> None:
    try:
        request = sent(DIALECTS[name], json.dumps(body).encode())
    except InvalidRequestError as refused:
        request, words = None, refused.message
    if request is None:
        assert words.encode()
        return
    assert decode(encode(request), signed_in=False) == request


def deeper(calls: int, work: Callable[[], object]) -> object:
    return deeper(calls - 1, work) if calls else work()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("messages", '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[%s]}'),
        ("responses", '{"model":"m","input":"x","tools":[%s]}'),
    ],
)
def test_i4_a_schema_that_can_just_be_read_and_is_too_deep_to_be_written_is_refused(name: str, body: str) -> None:
    """Found by fuzzing: a few depths below that which cannot be read, the words for the model could not be made."""
    refused = ""
    for depth in range(1000, 700, -1):
        schema = '{"a":' + "[" * depth + "]" * depth + "}"
        tool = f'{{"type":"custom","name":"f","input_schema":{schema}}}'
        if name == "responses":
            tool = f'{{"type":"function","name":"f","strict":false,"parameters":{schema}}}'
        try:
            ask = DIALECTS[name].ask(parameters.read((body % tool).encode(), DIALECTS[name].request).values)
            assert deeper(5, partial(answer.messages, ask))  # as in the gateway, where others call it
        except InvalidRequestError as error:
            refused = error.message
            error.__traceback__ = error.__context__ = None  # the watch of conftest.py shows all locals: these it cannot
    assert "nested too deeply" in refused
