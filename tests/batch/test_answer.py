"""A reply as a chat completion, whole or ended before; and as nothing when it is cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowgpt.batch.answer import completion
from flowgpt.embedded import Server
from flowgpt.errors import StreamInterruptedError
from flowgpt.formats.openai.chat import ChatCompletion
from flowgpt.formats.pieces import Ask, Turn
from flowgpt.messages import Message
from flowgpt.providers.flowgpt import FlowGpt

MESSAGES: list[Message] = [{"role": "user", "content": "What?"}]


def answer(fault: str | None = None, **asked: Any) -> ChatCompletion:
    async def main() -> ChatCompletion:
        with Server(fault=fault) as server:
            reply = FlowGpt.stream("gemini", MESSAGES, base_url=server.base_url, max_retries=0)
            ask = Ask(model="gemini", turns=[Turn(role="user", text="What?")], **asked)
            got = await completion(reply, ask, MESSAGES)
            await asyncio.to_thread(server.wait_until_idle)
            return got

    return asyncio.run(main())


def test_an_answer_is_read_to_its_end() -> None:
    got = answer()

    assert (got.model, got.choices[0].finish_reason, got.usage.prompt_tokens) == ("google-gemini", "stop", 2)
    assert (got.choices[0].message.content or "").endswith("question: What?\n")


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        ({"stop": (" server",)}, "This is flowgpt's embedded", "stop"),
        ({"max_tokens": 2}, "This is ", "length"),
        ({"stop": (" server",), "max_tokens": 1}, "This", "length"),
    ],
)
def test_stop_and_max_tokens_end_it(asked: dict[str, Any], text: str, reason: str) -> None:
    got = answer(**asked).choices[0]

    assert (got.message.content, got.finish_reason) == (text, reason)


def test_an_answer_that_is_ended_is_not_read_on() -> None:
    got = answer("endless", max_tokens=50).choices[0]

    assert (len(got.message.content or ""), got.finish_reason) == (200, "length")


def test_an_end_that_nothing_proves_is_not_called_one() -> None:
    assert answer("close_delimited").choices[0].finish_reason is None


def test_an_answer_that_is_cut_is_none() -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        answer("cut_at_line:2")

    assert caught.value.partial_text
