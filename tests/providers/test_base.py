"""The contract, used like a stranger uses it: few lines of provider, and every form of an answer."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, ClassVar

import pytest

from flowgpt import AsyncClient, Client, ModelNotFoundError
from flowgpt.messages import Message
from flowgpt.providers import base
from flowgpt.providers.base import AsyncGeneratorProvider, AsyncResult, Messages, ProviderModelMixin
from flowgpt.reply import Reply, TextSource

ASK: list[Message] = [{"role": "user", "content": "What?"}]


class Stranger(AsyncGeneratorProvider, ProviderModelMixin):
    """All that a provider's author writes."""

    default_model = "echo-1"
    models: ClassVar = ["echo-1", "echo-2"]
    model_aliases: ClassVar = {"echo": "echo-2"}

    @classmethod
    async def create_async_generator(  # type: ignore[override]  # as others write it: no type says it is one already
        cls, model: str, messages: Messages, proxy: str | None = None, temperature: float = 0.7, **options: Any
    ) -> AsyncResult:
        yield cls.get_model(model)
        yield f": {messages[-1]['content']}"


class Streamer(AsyncGeneratorProvider):
    """The other way: it has `stream`, and no list of models."""

    @classmethod
    def stream(cls, model: str = "", messages: Messages = (), **options: Any) -> Reply:
        async def texts() -> AsyncResult:
            yield f"{model} {options['temperature']} "
            yield str(options.get("word"))

        return Reply(TextSource(texts()), model=model)


def test_a_stranger_writes_at_most_15_lines() -> None:
    source = inspect.getsource(Stranger).splitlines()

    assert len([line for line in source if line.strip() and '"""' not in line]) <= 15


def test_a_bare_generator_gets_every_form_of_an_answer() -> None:
    async def ask() -> None:
        assert [text async for text in Stranger.create_async_generator("echo", ASK)] == ["echo-2", ": What?"]
        assert await Stranger.create_async("echo-1", ASK) == "echo-1: What?"
        async with Stranger.stream(messages=ASK) as reply:
            assert [text async for text in reply] == ["echo-1", ": What?"]
        assert (reply.text, reply.verdict) == ("echo-1: What?", "complete")
        assert list(Stranger.create_completion("echo", ASK)) == ["echo-2", ": What?"]  # inside a running loop
        completion = await AsyncClient(provider=Stranger).chat.completions.create(messages=ASK)
        assert completion.choices[0].message.content == "echo-1: What?"

    asyncio.run(ask())
    assert list(Stranger.create_completion(messages=ASK)) == ["echo-1", ": What?"]
    listed = Client(provider=Stranger).models.list()
    assert [(model.id, model.owned_by, model.created) for model in listed] == [
        ("echo-1", "stranger", 0),
        ("echo-2", "stranger", 0),
        ("echo", "stranger", 0),
    ]


def test_a_bare_generators_reply_says_which_model_answers_and_an_unknown_one_is_refused() -> None:
    assert [Stranger.stream(name, ASK).model for name in ("", "echo", "echo-2")] == ["echo-1", "echo-2", "echo-2"]
    assert Stranger.stream("other", ASK, allow_unknown_model=True).model == "other"
    assert Stranger.stream("other", ASK, extra_models=["other"]).model == "other"
    with pytest.raises(ModelNotFoundError, match="'ecko' is not in Stranger's list; the nearest: echo"):
        Stranger.stream("ecko", ASK)


def test_a_stream_gets_every_other_form_of_an_answer() -> None:
    async def ask() -> None:
        texts = Streamer.create_async_generator("m", ASK, None, 0.5, word="w")
        assert [text async for text in texts] == ["m 0.5 ", "w"]
        assert await Streamer.create_async("m", ASK, word="w") == "m 0.7 w"

    asyncio.run(ask())
    assert list(Streamer.create_completion("m", ASK)) == ["m 0.7 ", "None"]


def test_a_provider_with_neither_says_so() -> None:
    class Empty(AsyncGeneratorProvider):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines neither stream nor create_async_generator"):
        Empty.stream()
    with pytest.raises(NotImplementedError):
        Empty.create_async_generator()


def test_what_a_provider_has_not_said_is_modest() -> None:
    assert AsyncGeneratorProvider.url == ""
    assert AsyncGeneratorProvider.working is True
    assert AsyncGeneratorProvider.supports_message_history is False
    assert AsyncGeneratorProvider.supports_system_message is False
    assert (ProviderModelMixin.default_model, ProviderModelMixin.models, ProviderModelMixin.model_aliases) == (
        "",
        [],
        {},
    )


def test_the_contract_exports_its_words() -> None:
    assert base.__all__ == ["AsyncGeneratorProvider", "AsyncResult", "Messages", "Provider", "ProviderModelMixin"]
    assert all(hasattr(base, name) for name in base.__all__)


def test_the_parameters_are_those_of_the_call() -> None:
    class Narrow(AsyncGeneratorProvider):
        @classmethod
        async def create_async_generator(cls, model: str, messages: Messages) -> AsyncResult:  # type: ignore[override]
            yield ""

    assert list(Narrow.get_parameters()) == ["model", "messages"]
    assert Narrow.params == "model, messages"
    assert Narrow().params == Narrow.params


# Models


@pytest.mark.parametrize(
    ("asked", "known"), [("", "echo-1"), ("echo-1", "echo-1"), ("echo-2", "echo-2"), ("echo", "echo-2")]
)
def test_a_model_is_an_id_an_alias_or_the_default(asked: str, known: str) -> None:
    assert Stranger.get_model(asked) == known


def test_a_provider_without_a_list_takes_every_id() -> None:
    assert ProviderModelMixin.get_model("anything") == "anything"


def test_an_unknown_model_names_the_nearest_and_how_to_use_it_anyway() -> None:
    with pytest.raises(ModelNotFoundError) as unknown:
        Stranger.get_model("echo-3")

    assert str(unknown.value) == "model 'echo-3' is not in Stranger's list; the nearest: echo-2, echo-1, echo"
    assert "allow_unknown_model=True" in (unknown.value.hint or "")
    assert "extra_models" in (unknown.value.hint or "")
    assert unknown.value.code == "model_not_found"
    assert Stranger.get_model("echo-3", allow_unknown_model=True) == "echo-3"
    assert Stranger.get_model("echo-3", extra_models=["echo-3"]) == "echo-3"


@pytest.mark.parametrize("model", ["\r\nX: 1", "../x", "m" * 1_000_000, "🙂", "\0", "\x1b[31m", "gpt\ud800"])
def test_j1_a_strange_id_is_refused_in_one_short_plain_line(model: str) -> None:
    with pytest.raises(ModelNotFoundError) as unknown:
        Stranger.get_model(model)

    assert str(unknown.value).isprintable()
    assert str(unknown.value).replace("…", "").isascii()
    assert len(str(unknown.value)) < 400


def test_the_lists_given_are_copies() -> None:
    Stranger.get_models().append("mine")

    assert Stranger.get_models() == Stranger.models == ["echo-1", "echo-2"]
