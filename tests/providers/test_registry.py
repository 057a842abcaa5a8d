"""Names to providers: built in, brought by a package that is really there, and made by the configuration file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowgpt import AsyncClient, Client, Fallback, FlowGpt, FlowGPTError, InvalidRequestError, OpenAICompatible
from flowgpt.config import home
from flowgpt.messages import Message
from flowgpt.providers import registry
from flowgpt.providers.registry import Configured, chosen, named, one
from tests.conftest import API_KEY
from tests.upstream import CHUNKED, LAST, Upstream, answer, chunk, reply

ASK: list[Message] = [{"role": "user", "content": "What is it?"}]
SAID = CHUNKED + chunk(b'data: {"choices":[{"delta":{"content":"local"}}]}\n\n') + chunk(b"data: [DONE]\n\n") + LAST


@pytest.fixture
def configure() -> Callable[[str], Path]:
    """Write the configuration file."""

    def write(toml: str) -> Path:
        home().mkdir(parents=True, exist_ok=True)
        path = home() / "config.toml"
        path.write_text(toml, "utf-8")
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a distribution: a module, and entry points."""

    def install(module: str, code: str, points: str) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        package = tmp_path / f"{module}-1.0.dist-info"
        package.mkdir()
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (package / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry._entry_points.cache_clear()

    yield install
    registry._entry_points.cache_clear()


def ask(**options: Any) -> tuple[str | None, str]:
    """What a client without a provider of its own is answered, and by whom."""
    with Client(max_retries=0) as client:
        told = client.chat.completions.create(messages=ASK, **options)
        return told.choices[0].message.content, told.model


def test_nothing_configured_is_flowgpt() -> None:
    assert (one(named()), named()) == (FlowGpt, {"flowgpt": FlowGpt})


def test_the_file_says_who_answers_and_the_next_one_steps_in(configure: Callable[[str], Path]) -> None:
    with Upstream([answer(500)]) as first, Upstream([SAID]) as second:
        configure(
            'providers = ["there", "local"]\n'
            f'[provider.there]\ntype = "flowgpt"\nbase_url = "{first.url}"\n'
            f'[provider.local]\ntype = "openai"\nbase_url = "{second.url}/v1"\nmodel = "llama3"\n'
            f'api_key = "{API_KEY}"\n'
        )

        assert ask() == ("local", "llama3")
        assert (first.requests[0].target, second.requests[0].target) == ("/v3/chat-anonymous", "/v1/chat/completions")
        assert second.requests[0].headers["authorization"] == f"Bearer {API_KEY}"


def test_who_is_given_answers_and_a_base_url_is_flowgpt_there(configure: Callable[[str], Path]) -> None:
    configure('providers = ["local"]\n[provider.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1"\nmodel = "a"')
    given = OpenAICompatible("http://127.0.0.1:2", model="b")

    assert chosen(given, {"base_url": "http://127.0.0.1:3"}) is given
    assert chosen(None, {"base_url": "http://127.0.0.1:3"}) is FlowGpt
    assert all(
        isinstance(chosen(None, options), OpenAICompatible) for options in ({}, {"base_url": None}, {"base_url": ""})
    )


def test_an_argument_base_url_is_flowgpt_there_whoever_is_configured(configure: Callable[[str], Path]) -> None:
    configure(
        'providers = ["local"]\n[provider.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1"\nmodel = "m"\n'
    )
    with Upstream([reply("flowgpt")]) as there:
        assert ask(base_url=there.url) == ("flowgpt", "gpt-3.5-turbo")
        with Client(base_url=there.url) as client:
            told = client.chat.completions.create(messages=ASK)
            assert told.choices[0].message.content == "flowgpt"
            assert repr(client) == "<Client open, provider=FlowGpt>"
            assert "gemini" in [model.id for model in client.models.list()]
    assert repr(Client()) == "<Client open, provider=as configured>"


def test_the_class_itself_is_not_touched_by_it(configure: Callable[[str], Path]) -> None:
    with Upstream([reply("flowgpt")]) as there:
        configure(f'base_url = "{there.url}"\nproviders = ["nobody"]\n')

        assert asyncio.run(FlowGpt.create_async(messages=ASK)) == "flowgpt"


def test_the_variable_goes_before_the_file(configure: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    configure('providers = ["nobody"]\n[provider.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1"\n')
    monkeypatch.setenv("FLOWGPT_PROVIDER", "flowgpt, local")

    found = named()

    assert [*found] == ["flowgpt", "local"]
    assert isinstance(one(named()), Fallback)
    assert isinstance(one(named("local")), OpenAICompatible)
    assert one(named("flowgpt")) is FlowGpt


WRONG = [
    ('providers = ["flowgtp"]', "providers: there is no provider 'flowgtp'; did you mean 'flowgpt'?"),
    ('providers = ["zzz"]', "providers: there is no provider 'zzz'; there are flowgpt, openai"),
    ('providers = ["locla"]\n[provider.local]\ntype = "openai"', "no provider 'locla'; did you mean 'local'?"),
    ('providers = ["x"]\n[provider.x]\ntype = "openia"', "provider.x: there is no provider 'openia'"),
    ('providers = ["openai"]', "base_url is missing"),
    ('providers = ["x"]\n[provider.x]\ntype = "openai"', "provider.x: base_url is missing"),
    ('providers = ["x"]\n[provider.x]\ntype = "openai"\nbase_ulr = "h"', "no key 'base_ulr'; did you mean 'base_url'?"),
    ('providers = ["x"]\n[provider.x]\ntype = "openai"\nbase_url = "ftp://h"', "provider.x: base_url is no usable"),
    ('providers = ["x"]\n[provider.x]\ntype = "flowgpt"\ntimeout = -1', "provider.x: timeout"),
    ('providers = ["x"]\n[provider.x]\ntype = "flowgpt"\nmodels = []', "provider.x: there is no key 'models'"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_i22_what_is_wrong_is_named_with_file_and_key(text: str, words: str, configure: Callable[[str], Path]) -> None:
    path = configure(text)
    with pytest.raises(InvalidRequestError) as caught:
        one(named())
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


# Options of a provider


def test_its_own_options_count_and_a_calls_go_before_them(configure: Callable[[str], Path]) -> None:
    with Upstream([reply("a")]) as there:
        configure(
            f'providers = ["x"]\n[provider.x]\ntype = "flowgpt"\nbase_url = "{there.url}"\n'
            'model = "gemini"\ntemperature = 0.1\nextra_body = {a = 1}\n'
        )
        assert ask() == ("a", "google-gemini")
        assert ask(model="claude-v2", temperature=0.2) == ("a", "claude-v2")
    bodies = [request.body for request in there.requests]
    assert [b'"temperature":0.1' in bodies[0], b'"temperature":0.2' in bodies[1]] == [True, True]
    assert all(b'"a":1' in body for body in bodies)


def test_k1_no_key_of_another_address_is_sent_to_its_own(
    configure: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWGPT_API_KEY", API_KEY)
    with Upstream([reply("a")]) as there:
        configure(f'providers = ["x"]\n[provider.x]\ntype = "flowgpt"\nbase_url = "{there.url}"\n')

        assert ask() == ask(api_key=API_KEY)
    assert {request.headers["authorization"] for request in there.requests} == {"Bearer null"}


def test_it_has_the_models_and_the_health_of_what_it_is_made_of() -> None:
    there = Configured("there", FlowGpt, {"base_url": "http://127.0.0.1:1"})

    assert (there.get_models(), there.model_aliases) == (FlowGpt.get_models(), FlowGpt.model_aliases)
    assert (there.working, there.health(timeout=3)) == (True, FlowGpt.health(base_url="http://127.0.0.1:1"))
    with pytest.raises(AttributeError):
        there.nothing  # noqa: B018
    assert [model.owned_by for model in Client(provider=there).models.list()][:1] == ["there"]


# What packages bring

BROUGHT = """
from flowgpt.providers.base import AsyncGeneratorProvider, ProviderModelMixin

class Echo(AsyncGeneratorProvider, ProviderModelMixin):
    default_model = "echo-1"
    models = ["echo-1"]

    @classmethod
    async def create_async_generator(cls, model, messages, proxy=None, temperature=0.7, **options):
        yield f"{messages[-1]['content']} {options.get('mood')}"
"""


def test_a_package_brings_a_provider_and_the_file_gives_it_options(
    install: Callable[..., None], configure: Callable[[str], Path]
) -> None:
    install("flowgpt_echo", BROUGHT, "echo = flowgpt_echo:Echo")
    configure('providers = ["echo"]')
    assert ask()[0] == "What is it? None"
    configure('providers = ["mine"]\n[provider.mine]\ntype = "echo"\nmood = "calm"\n')
    assert ask()[0] == "What is it? calm"

    async def both() -> None:
        async with AsyncClient() as client:
            told = await client.chat.completions.create(messages=ASK)
            assert told.choices[0].message.content == "What is it? calm"

    asyncio.run(both())


BROKEN = {
    "import nothing_of_this_name": "ModuleNotFoundError: No module named 'nothing_of_this_name'",
    "Other = 1": "AttributeError: module '{module}' has no attribute 'Echo'",
    "raise SystemError('no')": "SystemError: no",
    "class Echo: ...": "it has no method `stream`",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_package_is_named_and_what_is_wrong_with_it(install: Callable[..., None], code: str) -> None:
    module = f"flowgpt_broken_{[*BROKEN].index(code)}"
    install(module, code, f"broken = {module}:Echo")

    with pytest.raises(InvalidRequestError) as caught:
        one(named("broken"))
    assert str(caught.value) == (
        f"provider: provider 'broken' ({module}:Echo) of {module} cannot be used: {BROKEN[code].format(module=module)}"
    )
    assert caught.value.hint == f"update or remove {module}"


def test_a_package_that_is_broken_hurts_nobody_who_does_not_ask_for_it(install: Callable[..., None]) -> None:
    install("flowgpt_exits", "raise SystemExit(3)", "exits = flowgpt_exits:Echo")

    assert one(named("flowgpt")) is FlowGpt
    with pytest.raises(InvalidRequestError, match="'exit'; did you mean 'exits'"):
        one(named("exit"))


def test_every_failure_to_find_a_provider_is_typed() -> None:
    with pytest.raises(FlowGPTError, match="there is no provider ''"):
        one(named("flowgpt,"))
