"""Models called `character:ID`: fetched, remembered and asked, over real sockets, in every form of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

import flowgpt
from flowgpt import (
    APITimeoutError,
    AsyncClient,
    ChallengeError,
    Client,
    Fallback,
    FlowGpt,
    FlowGPTError,
    InternalServerError,
    InvalidRequestError,
    ModelNotFoundError,
    OpenAICompatible,
    ProtocolError,
    StreamInterruptedError,
    Timeouts,
)
from flowgpt.embedded import Server
from flowgpt.formats.cards import Card
from flowgpt.messages import Message
from flowgpt.protocol.request import LIMIT_BODY_BYTES
from flowgpt.providers import characters, local_characters
from flowgpt.providers.registry import Configured
from tests.conftest import API_KEY
from tests.upstream import CHUNKED, FIN, HUNG_UP, RST, Gate, Script, Upstream, answer, chunk, head, reply

ASK: list[Message] = [{"role": "user", "content": "Who are you?"}]
ID = "V1StGXR8_Z5jdHi6B-myT"
MODEL = f"character:{ID}"
ADA = {
    "title": "Ada",
    "systemMessage": "You are {{CHAR}}; be kind to {{user}}.",
    "welcomeMessage": "Hello {{User}}!",
    "model": "FlowGPT-Ares",
    "temperature": 0.4,
}


def told(prompt: Any = ADA) -> bytes:
    """A whole response with a character."""
    return answer(200, json.dumps({"prompt": prompt}).encode(), "Content-Type: application/json")


def ask(upstream: Upstream, messages: Any = ASK, *, model: str = MODEL, **options: Any) -> dict[str, Any]:
    """The body of the chat's request that a call makes."""
    list(FlowGpt.create_completion(model, messages, base_url=upstream.url, **options))
    assert upstream.requests[-1].method == "POST"
    body: dict[str, Any] = json.loads(upstream.requests[-1].body)
    return body


def asked(upstream: Upstream) -> list[str]:
    return [f"{request.method} {request.target}" for request in upstream.requests]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([told()], [reply("I am ", "Ada.")]) as upstream:
        yield upstream


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_character_is_fetched_and_then_asked_with_all_that_it_says(upstream: Upstream) -> None:
    body = ask(upstream, [{"role": "system", "content": "Be {{short}}."}, *ASK])

    assert asked(upstream) == [f"GET /prompt/{ID}/", "POST /v3/chat-anonymous"]
    assert body == {
        "model": "FlowGPT-Ares",
        "nsfw": False,
        "question": "Who are you?",
        "history": [{"role": "assistant", "content": "Hello User!"}],
        "system": "You are Ada; be kind to User.\nBe {{short}}.",
        "temperature": 0.4,
        "promptId": ID,
        "documentIds": [],
        "generateImage": False,
        "generateAudio": False,
        "chatFileDocumentIds": [],
    }


def test_the_request_for_a_character_is_unsigned_and_has_no_key(upstream: Upstream) -> None:
    ask(upstream, api_key=API_KEY)

    assert upstream.requests[0].headers == {
        "host": upstream.url.removeprefix("http://"),
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": f"flowgpt-python/{flowgpt.__version__}",
    }
    assert upstream.requests[0].body == b""
    assert upstream.requests[1].headers["authorization"] == f"Bearer {API_KEY}"
    assert len({request.connection for request in upstream.requests}) == 1


def test_what_the_caller_says_goes_before_the_character(upstream: Upstream) -> None:
    body = ask(upstream, temperature=1.5, user_name="Bo {{char}}", prompt_id="mine", greeting="Well?")

    assert (body["temperature"], body["promptId"]) == (1.5, "mine")
    assert body["system"] == "You are Ada; be kind to Bo {{char}}."
    assert body["history"] == [{"role": "assistant", "content": "Well?"}]
    assert ask(upstream, temperature=0.7)["temperature"] == 0.7


def test_a_greeting_that_the_caller_has_shown_is_not_said_again(upstream: Upstream) -> None:
    shown = [{"role": "assistant", "content": "Hello User!"}, *ASK]

    assert ask(upstream, shown)["history"] == [{"role": "assistant", "content": "Hello User!"}]


def test_a_character_that_says_nothing_is_asked_as_the_default_model() -> None:
    with Upstream([told({})], [reply("a")]) as upstream:
        body = ask(upstream)

    assert (body["model"], body["system"], body["history"]) == ("gpt-3.5-turbo", "", [])
    assert (body["temperature"], body["promptId"]) == (0.7, ID)


def test_a_configured_temperature_is_less_than_the_characters(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = flowgpt.config.home()
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'temperature = 1.9\nmodel = "{MODEL}"\nuser_name = "Cy"\n')

    body = ask(upstream, model="")

    assert (body["temperature"], body["system"]) == (0.4, "You are Ada; be kind to Cy.")


@pytest.mark.parametrize(
    "name", [f"character:https://flowgpt.com/chat/{ID}", f"character:https://flowgpt.com/p/{ID}/?a=b"]
)
def test_the_address_of_a_page_is_a_name_too_and_its_host_is_not_asked(upstream: Upstream, name: str) -> None:
    assert ask(upstream, model=name)["promptId"] == ID
    assert FlowGpt.get_model(name) == MODEL


@pytest.mark.parametrize("id_", ["", "..", "../x", "a/b", "%2e%2e", "a\0", "a\nb", "https://evil.invalid/chat/x"])
def test_m5_a_name_that_can_be_no_character_is_refused_before_anything_is_sent(upstream: Upstream, id_: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        FlowGpt.stream(f"character:{id_}", ASK, base_url=upstream.url)

    assert caught.value.code == "character_not_found"
    with pytest.raises(ModelNotFoundError):
        FlowGpt.get_model(f"character:{id_}")
    assert upstream.connections == 0


def test_j2_a_wrong_call_is_refused_at_once_and_messages_are_read_when_it_is_made(upstream: Upstream) -> None:
    for wrong in ([], "Hello", [{"role": "tool", "content": "?"}]):
        with pytest.raises(InvalidRequestError):
            FlowGpt.stream(MODEL, wrong, base_url=upstream.url)  # type: ignore[arg-type]
    messages: list[Any] = [*ASK]
    reply = FlowGpt.stream(MODEL, messages, base_url=upstream.url)
    messages.clear()

    assert asyncio.run(reply.read()) == "I am Ada."


def test_a_question_that_becomes_too_large_with_the_characters_words_is_refused() -> None:
    with Upstream([told({"systemMessage": "x" * 900_000})]) as upstream:
        long: list[Message] = [{"role": "user", "content": "y" * (LIMIT_BODY_BYTES - 800_000)}]
        with pytest.raises(InvalidRequestError) as caught:
            ask(upstream, long)

    assert (caught.value.code, len(upstream.requests)) == ("payload_too_large", 1)


# --- what comes back --------------------------------------------------------------------------------------------------


def test_the_reply_names_the_model_that_answers_as_soon_as_it_is_known(upstream: Upstream) -> None:
    async def go() -> None:
        async with FlowGpt.stream(MODEL, ASK, base_url=upstream.url) as reply:
            assert (reply.model, reply.attempts) == (MODEL, 0)
            assert await reply.read() == "I am Ada."
            assert (reply.model, reply.attempts, reply.verdict) == ("FlowGPT-Ares", 1, "complete")

    asyncio.run(go())


def test_every_form_and_both_clients_ask_a_character(upstream: Upstream) -> None:
    async def go() -> None:
        texts = [text async for text in FlowGpt.create_async_generator(MODEL, ASK, base_url=upstream.url)]
        assert texts == ["I am ", "Ada."]
        assert await FlowGpt.create_async(MODEL, ASK, base_url=upstream.url) == "I am Ada."
        async with AsyncClient(base_url=upstream.url) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            assert {chunk.model async for chunk in stream} == {"FlowGPT-Ares"}
            assert (await client.models.retrieve(MODEL)).id == MODEL

    asyncio.run(go())
    with Client(base_url=upstream.url) as client:
        whole = client.chat.completions.create(model=MODEL, messages=ASK)
        assert (whole.model, whole.choices[0].message.content) == ("FlowGPT-Ares", "I am Ada.")
        with pytest.raises(ModelNotFoundError):
            client.models.retrieve("character:../x")
    assert asked(upstream).count(f"GET /prompt/{ID}/") == 1


def test_an_end_that_proves_nothing_is_unverified() -> None:
    with Upstream([told()], [head(), b'{"event":"text","data":"a"}\n', FIN]) as upstream:
        reply = FlowGpt.stream(MODEL, ASK, base_url=upstream.url)
        assert asyncio.run(reply.read()) == "a"

    assert reply.verdict == "unverified"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_character_is_remembered_for_a_while_and_for_its_origin_alone(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(upstream)
    ask(upstream)
    assert asked(upstream) == [f"GET /prompt/{ID}/", *["POST /v3/chat-anonymous"] * 2]

    with Upstream([told({"title": "Eve", "systemMessage": "{{char}}"})], [reply("a")]) as other:
        assert ask(other)["system"] == "Eve"
    monkeypatch.setattr(characters, "LIMIT_AGE_S", -1.0)
    upstream.scripts = ([told({"systemMessage": "new"})], [reply("a")])
    upstream.requests.clear()
    assert ask(upstream)["system"] == "new"


def test_no_more_characters_are_remembered_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(characters, "LIMIT_KNOWN", 2)
    with Server(characters={name: {} for name in "abc"}) as server:
        for name in ("a", "b", "a", "c", "a", "b"):
            list(FlowGpt.create_completion(f"character:{name}", ASK, base_url=server.base_url))
        fetched = [request.path for request in server.requests if request.method == "GET"]

    assert fetched == ["/prompt/a/", "/prompt/b/", "/prompt/c/", "/prompt/b/"]


def test_a_failure_is_not_remembered() -> None:
    with Upstream([answer(404)], [told()], [reply("a")]) as upstream:
        with pytest.raises(ModelNotFoundError):
            ask(upstream)
        assert ask(upstream)["promptId"] == ID


# --- failures ---------------------------------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><title>Just a moment...</title>"
FAILURES: dict[str, tuple[Script, type[FlowGPTError], str]] = {
    "F7 404": ([answer(404, b'{"error": "no"}')], ModelNotFoundError, "character_not_found"),
    "F7 410": ([answer(410)], ModelNotFoundError, "character_not_found"),
    "F5 a browser check": ([answer(403, PAGE, "Content-Type: text/html")], ChallengeError, "challenge"),
    "F6 a page with 200": ([answer(200, PAGE)], ProtocolError, "bad_character"),
    "C17 a redirect": (
        [answer(301, b"", "Location: https://evil.invalid/")],
        ProtocolError,
        "redirect_refused",
    ),
    "500": ([answer(500)], InternalServerError, "server_error"),
    "no character": ([answer(200, b'{"data": {}}')], ProtocolError, "bad_character"),
    "another encoding": ([answer(200, b'{"prompt": {"title": "\xff"}}')], ProtocolError, "decode_error"),
    "C3 a reset": ([CHUNKED, chunk(b'{"prompt": {'), RST], StreamInterruptedError, "stream_interrupted"),
    "C7 less than was announced": (
        [head("200 OK", "Content-Length: 99"), b'{"prompt": {}}', FIN],
        StreamInterruptedError,
        "stream_interrupted",
    ),
    "C9 the connection's end in the middle": (
        [head(), b'{"prompt": {"title": "A', FIN],
        StreamInterruptedError,
        "stream_truncated",
    ),
    "C12 compressed": ([answer(200, b"x", "Content-Encoding: gzip")], ProtocolError, "compression_refused"),
    "C15 more than the limit": (
        [CHUNKED, chunk(b" " * 1024 * 1024), chunk(b" "), HUNG_UP],
        ProtocolError,
        "response_too_large",
    ),
}


@pytest.mark.parametrize(("script", "kind", "code"), FAILURES.values(), ids=FAILURES)
def test_a_character_that_cannot_be_had_is_a_typed_failure(script: Script, kind: type[FlowGPTError], code: str) -> None:
    with Upstream(script) as upstream, pytest.raises(kind) as caught:
        list(FlowGpt.create_completion(MODEL, ASK, base_url=upstream.url, max_retries=0))

    assert (type(caught.value), caught.value.code, caught.value.attempts) == (kind, code, 1)
    assert len(upstream.requests) == 1


def test_a_missing_character_is_named_and_its_service_is_not() -> None:
    with Upstream([answer(404)]) as upstream, pytest.raises(ModelNotFoundError) as caught:
        ask(upstream)

    assert caught.value.message == f"there is no character {ID}"
    assert "the address" in str(caught.value.hint)


def test_f23_a_failure_that_may_pass_is_tried_again_for_each_request_by_itself() -> None:
    again = answer(503, b"", "Retry-After: 0.001")
    with Upstream([again], [told()], [again], [reply("a")]) as upstream:
        reply_ = FlowGpt.stream(MODEL, ASK, base_url=upstream.url, max_retries=1)
        assert asyncio.run(reply_.read()) == "a"

    assert [request.method for request in upstream.requests] == ["GET", "GET", "POST", "POST"]
    assert reply_.attempts == 2


def test_c1_a_character_that_never_ends_is_given_up_in_time() -> None:
    limits: Any = dict.fromkeys(Timeouts.__dataclass_fields__) | {"first_event_s": 0.05}
    with (
        Upstream([CHUNKED, chunk(b'{"prompt":'), HUNG_UP]) as upstream,
        pytest.raises(APITimeoutError) as caught,
    ):
        ask(upstream, timeout=Timeouts(**limits), max_retries=0)

    assert caught.value.code == "first_event_timeout"


def test_the_timeout_is_that_of_both_requests_together() -> None:
    """The chat hangs; had it the whole time for itself, its deadline would lie behind the character's."""
    limits: Any = dict.fromkeys(Timeouts.__dataclass_fields__) | {"total_s": 0.3}
    with Upstream([told()], [HUNG_UP]) as upstream:

        async def go() -> None:
            reply = FlowGpt.stream(MODEL, ASK, base_url=upstream.url, timeout=Timeouts(**limits))
            source: Any = reply._source
            first = source._stream
            with pytest.raises(APITimeoutError, match=r"longer than 0\.3 s"):
                await reply.read()
            assert source._stream is not first
            assert source._stream.deadline_s == first.deadline_s

        asyncio.run(go())


def test_h1_who_leaves_while_the_character_is_fetched_leaves_nothing_open() -> None:
    gate = Gate()
    with Upstream([gate, HUNG_UP]) as upstream:

        async def go() -> None:
            reply = FlowGpt.stream(MODEL, ASK, base_url=upstream.url)
            reading = asyncio.create_task(reply.read())
            await gate.reached()
            gate.open()
            reply.close()
            with pytest.raises(InvalidRequestError, match="closed before its end"):
                await reading
            await upstream.hung_up()

            reply = FlowGpt.stream(MODEL, ASK, base_url=upstream.url)
            reading = asyncio.create_task(reply.read())
            await upstream.until(lambda: len(upstream.requests) == 2)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await upstream.hung_up(2)

        asyncio.run(go())
        assert asked(upstream) == [f"GET /prompt/{ID}/"] * 2


# --- wrappers ---------------------------------------------------------------------------------------------------------


def test_a_configured_provider_and_a_fallback_ask_characters_of_who_has_some(upstream: Upstream) -> None:
    with Upstream([answer(500)]) as other:
        stranger = OpenAICompatible(other.url, model="any")
        wrapped = Fallback([stranger, Fallback([Configured("mine", FlowGpt, {"base_url": upstream.url})])])
        reply_ = wrapped.stream(MODEL, ASK)

        assert asyncio.run(reply_.read()) == "I am Ada."
        assert (reply_.model, wrapped.get_model(MODEL), other.connections) == ("FlowGPT-Ares", MODEL, 0)
        with pytest.raises(ModelNotFoundError):
            Fallback([OpenAICompatible(other.url, models=["one"])]).stream(MODEL, ASK)


def test_no_other_provider_answers_in_a_characters_place() -> None:
    with Upstream([answer(500)]) as down, Upstream([answer(500)]) as other:
        configured = Configured("mine", FlowGpt, {"base_url": down.url, "max_retries": 0})
        both = Fallback([configured, OpenAICompatible(other.url, model="any")])
        with pytest.raises(InternalServerError):
            asyncio.run(both.stream(MODEL, ASK).read())

    assert other.connections == 0


def test_the_next_provider_is_asked_for_a_character_that_the_first_does_not_have(upstream: Upstream) -> None:
    with Upstream([answer(404)]) as without:
        both = Fallback(
            [Configured(str(n), FlowGpt, {"base_url": url}) for n, url in enumerate((without.url, upstream.url))]
        )
        assert asyncio.run(both.stream(MODEL, ASK).read()) == "I am Ada."


# --- of this machine --------------------------------------------------------------------------------------------------


def test_a_card_of_this_machine_goes_first_and_is_no_prompt_of_the_service() -> None:
    local_characters.add(ID, Card({"name": "Ada", "system_prompt": "Be {{char}}.", "first_mes": "Hi {{user}}."}, {}))
    with Upstream([reply("a")]) as upstream:
        body = ask(upstream)
        chosen = FlowGpt.stream(MODEL, ASK, base_url=upstream.url).model

    assert asked(upstream) == ["POST /v3/chat-anonymous"]
    assert (body["system"], body["history"]) == ("Be Ada.", [{"role": "assistant", "content": "Hi User."}])
    assert (body["promptId"], body["model"], chosen) == ("model-gpt-3.5-turbo", "gpt-3.5-turbo", "gpt-3.5-turbo")


def test_i22_a_card_that_is_broken_is_named_and_nothing_is_sent(upstream: Upstream) -> None:
    local_characters.folder().mkdir(parents=True)
    (local_characters.folder() / f"{ID}.json").write_text("{")

    with pytest.raises(InvalidRequestError, match=f"{ID}.json: it is no character card"):
        FlowGpt.stream(MODEL, ASK, base_url=upstream.url)
    assert upstream.connections == 0


def test_what_a_call_would_send_first_can_be_seen(upstream: Upstream) -> None:
    call, model = FlowGpt.call(MODEL, ASK, base_url=upstream.url)
    assert (call.method, call.url, call.body, model) == ("GET", f"{upstream.url}/prompt/{ID}/", b"", MODEL)

    local_characters.add(ID, Card({"name": "Ada"}, {}))
    call, model = FlowGpt.call(MODEL, ASK, base_url=upstream.url)
    assert (call.method, call.url, model) == ("POST", f"{upstream.url}/v3/chat-anonymous", "gpt-3.5-turbo")


def test_a_character_can_be_fetched_to_be_looked_at(upstream: Upstream) -> None:
    character = asyncio.run(characters.fetch(MODEL, base_url=upstream.url))

    assert (character.id, character.title, character.temperature) == (ID, "Ada", 0.4)
    with Upstream([answer(500)]) as down, contextlib.suppress(FlowGPTError):
        with pytest.raises(InternalServerError) as caught:
            asyncio.run(characters.fetch(MODEL, base_url=down.url, max_retries=0))
        assert caught.value.attempts == 1
