"""embedded/server.py: what is asked, and what is refused, byte by byte over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from flowgpt import APIConnectionError
from flowgpt.embedded import Received, Server
from flowgpt.embedded.server import LIMIT_NONCES, Nonces
from flowgpt.protocol.request import LIMIT_BODY_BYTES, ChatRequest, Prompt, Turn
from tests.conftest import API_KEY
from tests.embedded.wire import (
    ANONYMOUS,
    BOUND_S,
    CHUNKS,
    HEAD,
    LAST,
    SIGNED_IN,
    Answer,
    ask,
    body,
    connect,
    read_until,
    request,
    signed,
    spoken,
)

ALL = HEAD + b"".join(CHUNKS) + LAST
CREATE = "/conversation/create"
CREATE_BODY = b'{"promptId":"p","location":"CHAT_PAGE","messages":[]}'
JSON_TYPE = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with Server(spoken) as server:
        yield server


@pytest.fixture
def server(served: Server) -> Server:
    served.reset()
    return served


def works(server: Server) -> bool:
    """Whether a good request is answered."""
    return ask(server.base_url).undated == ALL


# --- the good ways ---------------------------------------------------------------------------------------------------


def test_an_anonymous_chat_is_streamed_as_lines_with_blank_lines_between_one_chunk_each(server: Server) -> None:
    answer = ask(server.base_url)

    assert (answer.undated, answer.ending) == (ALL, "FIN")
    assert server.requests[-1].chat == ChatRequest("gpt-3.5-turbo", Prompt("Hello"), prompt_id="model-gpt-3.5-turbo")


def test_a_signed_in_chat_has_its_own_fields(server: Server) -> None:
    data = body(
        signed_in=True,
        model="any-model-at-all",
        history=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        system="s",
        userId="u",
        conversationId="c",
        promptId="x",
    )
    answer = ask(server.base_url, request(SIGNED_IN, data, signed("not-even-a-jwt")))

    assert answer.undated == ALL
    received = server.requests[-1]
    assert (received.method, received.path, received.status) == ("POST", SIGNED_IN, 200)
    assert received.body == data
    assert received.chat == ChatRequest(
        "any-model-at-all",
        Prompt("Hello", (Turn("user", "a"), Turn("assistant", "b")), "s"),
        prompt_id="x",
        signed_in=True,
        user_id="u",
        conversation_id="c",
    )


def test_a_kept_connection_serves_one_chat_after_the_other(server: Server) -> None:
    with connect(server.base_url) as connection:
        for _ in range(3):
            connection.sendall(request(keep=True))
            assert read_until(connection, LAST).count(b'"event":"text"') == 3


def test_the_content_type_may_have_a_charset(server: Server) -> None:
    headers = signed() | {"content-type": "Application/JSON; charset=utf-8"}
    assert ask(server.base_url, request(headers=headers)).undated == ALL


def test_the_built_in_character_has_every_field_that_clients_read(server: Server) -> None:
    answer = ask(server.base_url, request("/prompt/flowgpt-embedded-char/", b"", {}, method="GET"))

    assert answer.status == 200
    prompt = answer.json["prompt"]
    assert set(prompt) >= {
        "title", "language", "description", "coverURL", "thumbnailURL", "type", "nsfw", "exampleConversation",
        "promptTags", "welcomeMessage", "systemMessage", "model", "temperature",
    }  # fmt: skip
    assert prompt["promptTags"][0][3] == "guide"
    assert "{{user}}" in prompt["welcomeMessage"]


def test_characters_of_a_tests_own_are_served_as_they_are_and_no_others() -> None:
    with Server(characters={"ada": {"title": "Ada"}, "bare": {}}) as server:
        served = [ask(server.base_url, request(f"/prompt/{id_}/", b"", {}, method="GET")) for id_ in ("ada", "bare")]
        missing = ask(server.base_url, request("/prompt/flowgpt-embedded-char/", b"", {}, method="GET"))

    assert [answer.json for answer in served] == [{"prompt": {"title": "Ada"}}, {"prompt": {}}]
    assert (missing.status, "there is no such character" in str(missing.json)) == (404, True)


def test_a_conversation_is_created_with_a_fresh_id(server: Server) -> None:
    headers = {"authorization": "Bearer some.jwt.token", **JSON_TYPE}
    ids = [ask(server.base_url, request(CREATE, CREATE_BODY, headers)).json["id"] for _ in range(2)]

    assert all(isinstance(each, str) and each for each in ids)
    assert ids[0] != ids[1]


# --- who may not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (signed() | {"x-signature": "0" * 32}, "header x-signature does not match"),
        (signed() | {"x-nonce": "f" * 32}, "header x-signature does not match"),
        (signed() | {"x-timestamp": "soon"}, "header x-timestamp is not a Unix time"),
        (signed(nonce="0" * 31), "header x-nonce is not 32 lowercase hex digits"),
        (signed() | {"x-flow-device-id": "short"}, "header x-flow-device-id is not"),
        (signed("a-user"), "/v3/chat-anonymous wants the authorization Bearer null"),
        (signed() | {"authorization": "Basic null"}, "header authorization is not a bearer token"),
        (signed(at_s=0), "header x-timestamp is more than 300 s from this server's clock"),
        (signed(at_s=time.time() + 4000), "header x-timestamp is more than 300 s from this server's clock"),
    ],
)
def test_a_bad_signature_or_token_is_401_and_says_which_header(
    server: Server, headers: dict[str, str], words: str
) -> None:
    """G: clock, nonce, signature, token."""
    answer = ask(server.base_url, request(headers=headers))

    assert answer.status == 401
    assert answer.json["error"].startswith(words)
    assert answer.json["message"] == answer.json["error"]
    assert works(server)


@pytest.mark.parametrize("name", ["authorization", "x-timestamp", "x-nonce", "x-signature", "x-flow-device-id"])
def test_each_header_must_be_there(server: Server, name: str) -> None:
    headers = signed()
    del headers[name]
    answer = ask(server.base_url, request(headers=headers))

    assert (answer.status, answer.json["error"]) == (401, f"header {name} is missing")


@pytest.mark.parametrize("offset_s", [-290, 290])
def test_a_clock_that_is_a_little_wrong_is_taken(server: Server, offset_s: int) -> None:
    assert ask(server.base_url, request(headers=signed(at_s=time.time() + offset_s))).undated == ALL


def test_a_nonce_is_good_once(server: Server) -> None:
    headers = signed()
    answers = [ask(server.base_url, request(headers=headers)) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 401]
    assert answers[1].json["error"] == "header x-nonce was used before"


def test_the_signed_in_route_wants_a_user(server: Server) -> None:
    answer = ask(server.base_url, request(SIGNED_IN, body(signed_in=True)))

    assert (answer.status, answer.json["error"]) == (401, "/v3/chat wants a token of a user")


@pytest.mark.parametrize("token", [None, "Bearer null", "Bearer ", "Basic abc"])
def test_a_conversation_wants_a_user(server: Server, token: str | None) -> None:
    headers = JSON_TYPE | ({} if token is None else {"authorization": token})

    assert ask(server.base_url, request(CREATE, CREATE_BODY, headers)).status == 401


def test_nonces_are_forgotten_when_their_time_is_over() -> None:
    nonces = Nonces(keep_s=600)

    assert nonces.use("a", now_s=1000)
    assert not nonces.use("a", now_s=1600)
    assert nonces.use("b", now_s=1601)
    assert len(nonces) == 1
    assert nonces.use("a", now_s=1601)


def test_nonces_are_bounded_in_number() -> None:
    nonces = Nonces(keep_s=600)
    for number in range(LIMIT_NONCES + 10):
        assert nonces.use(str(number), now_s=0)

    assert len(nonces) == LIMIT_NONCES
    assert not nonces.use(str(LIMIT_NONCES), now_s=0)


# --- what is malformed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": 5}, "model must be a string"),
        ({"model": ...}, "model must be a string"),
        ({"question": None}, "question must be a string"),
        ({"history": "no"}, "history must be a list of turns"),
        ({"history": [{"role": "system", "content": "x"}]}, "history[0] must have the role"),
        ({"history": [{"role": "user"}]}, "history[0].content must be a string"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"nsfw": 1}, "nsfw must be true or false"),
        ({"documentIds": [1]}, "documentIds must be a list of strings"),
        ({"chatFileDocumentIds": ...}, "chatFileDocumentIds must be a list of strings"),
        ({"generateAudio": ...}, "generateAudio must be true or false"),
    ],
)
def test_a_bad_field_is_400_and_named(server: Server, change: dict[str, Any], words: str) -> None:
    answer = ask(server.base_url, request(data=body(**change)))

    assert answer.status == 400
    assert answer.json["error"].startswith(words)
    assert works(server)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff", b'"text"', b"[" * 200_000, b'{"model":"\\ud800"}', b"null", b"{}{}", b"\x00"],
    ids=lambda data: ascii(data[:12]),
)
def test_a_body_that_is_no_json_object_is_400(server: Server, data: bytes) -> None:
    answer = ask(server.base_url, request(data=data))

    assert answer.status == 400
    assert "Traceback" not in answer.raw.decode()
    assert works(server)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b'{"location":"CHAT_PAGE","messages":[]}', "promptId must be a string"),
        (b'{"promptId":"p","messages":[]}', "location must be a string"),
        (b'{"promptId":"p","location":"CHAT_PAGE","messages":{}}', "messages must be a list"),
    ],
)
def test_a_bad_conversation_is_400_and_shows_no_token(server: Server, data: bytes, words: str) -> None:
    answer = ask(server.base_url, request(CREATE, data, {"authorization": f"Bearer {API_KEY}", **JSON_TYPE}))

    assert (answer.status, answer.json["error"]) == (400, words)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
@pytest.mark.parametrize("path", [ANONYMOUS, SIGNED_IN, CREATE])
def test_a_body_that_is_not_announced_as_json_is_415(server: Server, path: str, kind: str | None) -> None:
    headers = signed()
    del headers["content-type"]
    if kind is not None:
        headers["content-type"] = kind
    answer = ask(server.base_url, request(path, headers=headers))

    assert (answer.status, answer.json["error"]) == (415, "header content-type must be application/json")


@pytest.mark.parametrize("path", [ANONYMOUS, CREATE])
def test_a_body_that_announces_too_much_is_413_before_it_is_sent(server: Server, path: str) -> None:
    """F11."""
    headers = signed() | {"content-length": str(LIMIT_BODY_BYTES + 1)}
    answer = ask(server.base_url, request(path, b"", headers))

    assert (answer.status, answer.json["error"]) == (413, "the body has more than 8388608 bytes")
    assert "connection: close" in answer.head
    assert works(server)


@pytest.mark.parametrize("path", [ANONYMOUS, CREATE])
def test_a_length_of_thousands_of_digits_is_400(server: Server, path: str) -> None:
    """F11: it is a valid length, but Python reads no number of more than 4300 digits."""
    headers = signed() | {"content-length": "0" * 5000 + str(len(body()))}
    answer = ask(server.base_url, request(path, headers=headers))

    assert (answer.status, answer.json["error"]) == (400, "header content-length must be a number of at most 19 digits")
    assert works(server)


def test_a_chunked_body_is_cut_off_at_the_limit(server: Server) -> None:
    """F11: without a length, it is counted."""
    head = request(headers=signed() | {"content-length": "0"}).partition(b"\r\n\r\n")[0]
    head = head.replace(b"content-length: 0", b"transfer-encoding: chunked") + b"\r\n\r\n"
    piece = b"%x\r\n" % (1024 * 1024) + b" " * (1024 * 1024) + b"\r\n"
    with connect(server.base_url) as connection:
        connection.sendall(head + piece * 8)
        connection.sendall(b"1\r\n \r\n")
        answer = Answer(read_until(connection, b"}"), "open")

    assert answer.status == 413
    assert works(server)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v3/chat-anonymous/", 404),
        ("POST", "/v4/chat", 404),
        ("GET", "/prompt/nobody/", 404),
        ("GET", "/prompt/flowgpt-embedded-char", 404),
        ("GET", "/prompt/../../etc/passwd", 404),
        ("GET", "/prompt/%2e%2e%2f/", 404),
        ("GET", ANONYMOUS, 405),
        ("PUT", SIGNED_IN, 405),
        ("DELETE", "/prompt/flowgpt-embedded-char/", 405),
        ("OPTIONS", CREATE, 405),
    ],
)
def test_another_address_or_method_is_404_or_405_in_json(server: Server, method: str, path: str, status: int) -> None:
    answer = ask(server.base_url, request(path, method=method))

    assert answer.status == status
    assert answer.json["error"] == answer.json["message"]
    assert server.requests[-1].status == status


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\n\r\n",
        b"POST /v3/chat HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v3/chat HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v3/chat HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: ascii(data[:24]),
)
def test_what_is_not_http_is_400_in_json(server: Server, data: bytes) -> None:
    answer = ask(server.base_url, data)

    assert answer.status == 400
    assert answer.json["error"] == "Invalid HTTP request received."
    assert works(server)


def test_a_client_that_leaves_in_its_own_request_harms_nobody(server: Server) -> None:
    with connect(server.base_url) as connection:
        connection.sendall(request()[:-10])

    assert works(server)
    server.wait_until_idle()


# --- responders that fail or linger -----------------------------------------------------------------------------------


async def failing(asked: ChatRequest) -> AsyncGenerator[str, None]:
    """Fails with what the system prompt names, after as many texts as the question says."""
    for _ in range(int(asked.prompt.question)):
        yield "Hel"
    if asked.prompt.system == "typed":
        raise APIConnectionError("the upstream is gone")
    raise RuntimeError("a detail of the inside")


@pytest.mark.parametrize(
    ("system", "status", "words"),
    [("typed", 502, "the upstream is gone"), ("other", 500, "the responder failed: RuntimeError")],
)
def test_a_responder_that_fails_before_its_first_text_is_a_status(system: str, status: int, words: str) -> None:
    with Server(failing) as server:
        answer = ask(server.base_url, request(data=body(question="0", system=system)))

        assert (answer.status, answer.json) == (status, {"error": words, "message": words})
        assert b"inside" not in answer.raw


@pytest.mark.parametrize("system", ["typed", "other"])
def test_a_responder_that_fails_later_is_a_cut_stream(system: str) -> None:
    with Server(failing) as server:
        answer = ask(server.base_url, request(data=body(question="1", system=system)))

        assert (answer.undated, answer.ending) == (HEAD + CHUNKS[0], "FIN")


def test_what_nobody_foresaw_is_500_in_json_and_one_line_in_our_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> AsyncGenerator[str, None]:
        raise RuntimeError("a detail of the inside")

    with Server(broken) as server:
        caplog.set_level("INFO", "flowgpt.embedded")
        answers = [ask(server.base_url) for _ in range(2)]
        server.wait_until_idle()

    for answer in answers:
        assert (answer.status, answer.json["error"]) == (500, "the server failed: RuntimeError")
        assert b"inside" not in answer.raw
    assert [record.name for record in caplog.records] == ["flowgpt.embedded"] * 2
    assert "Traceback" not in caplog.text


def test_a_client_that_leaves_closes_the_responder_at_once() -> None:
    """I: the generator's own clean-up runs, though it would wait for ever."""
    closed = asyncio.Event()

    async def lingering(_: object) -> AsyncGenerator[str, None]:
        try:
            yield "Hel"
            await asyncio.Event().wait()
        finally:
            closed.set()

    with Server(lingering) as server:
        with connect(server.base_url) as connection:
            connection.sendall(request())
            read_until(connection, CHUNKS[0])
            assert server.open_streams == 1
            assert not closed.is_set()
        server.wait_until_idle()

        assert closed.is_set()


# --- what was received ------------------------------------------------------------------------------------------------


def test_the_requests_keep_the_headers_and_their_repr_masks_the_token(server: Server) -> None:
    headers = signed(API_KEY) | {"X-Mixed-Case": "Value"}
    ask(server.base_url, request(SIGNED_IN, body(signed_in=True), headers))
    received = server.requests[-1]

    assert received.headers["authorization"] == f"Bearer {API_KEY}"
    assert received.headers["x-mixed-case"] == "Value"
    assert API_KEY not in repr(received)
    assert API_KEY not in repr(server.requests)
    assert "'authorization': '***'" in repr(received)


def test_a_refused_request_is_kept_with_its_body_and_status(server: Server) -> None:
    ask(server.base_url, request(data=b"{"))
    received = server.requests[-1]

    assert isinstance(received, Received)
    assert (received.body, received.chat, received.status) == (b"{", None, 400)


def test_the_requests_are_bounded(server: Server) -> None:
    assert server.requests.maxlen == 1000


def test_many_streams_at_once_get_their_own_words() -> None:
    """All requests are in flight before any answer is read; nothing is mixed up."""

    async def echo(asked: ChatRequest) -> AsyncGenerator[str, None]:
        for _ in range(20):
            yield asked.prompt.question
            await asyncio.sleep(0)

    async def one(base_url: str, number: int) -> bytes:
        host, _, port = base_url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(data=body(question=f"q{number};")))
        data = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        return data

    async def everyone(base_url: str) -> list[bytes]:
        async with asyncio.timeout(BOUND_S * 3):
            return await asyncio.gather(*(one(base_url, number) for number in range(200)))

    with Server(echo) as server:
        answers = asyncio.run(everyone(server.base_url))

    for number, answer in enumerate(answers):
        lines = [json.loads(line) for line in answer.split(b"\r\n") if line.startswith(b"{")]
        assert lines == [{"event": "text", "data": f"q{number};"}] * 20
