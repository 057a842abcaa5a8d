"""embedded/responders.py: the mirror's words, and an OpenAI-compatible upstream that is scripted byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from flowgpt import FlowGPTError, InvalidRequestError
from flowgpt.embedded import Server, Upstream, mirror
from flowgpt.embedded.responders import reflection
from flowgpt.protocol.request import ChatRequest, Prompt, Turn
from tests.conftest import API_KEY, faces
from tests.embedded.wire import BOUND_S, CHUNKS, HEAD, LAST, Answer, ask, body, chunk, request

ASKED = ChatRequest("gpt-4", Prompt("Why?", (Turn("user", "Hi"), Turn("assistant", "Hello")), "Be brief."), 0.5)


async def all_of(texts: AsyncGenerator[str, None]) -> list[str]:
    async with contextlib.aclosing(texts):
        return [text async for text in texts]


# --- the mirror -------------------------------------------------------------------------------------------------------

REFLECTION = """\
This is flowgpt's embedded server on your own machine. No model answers here; this is what it received:
model: gpt-4
temperature: 0.5
system prompt: Be brief.
earlier turns: 2
question: Why?
"""


def test_the_mirror_says_what_it_is_and_what_it_received() -> None:
    assert "".join(asyncio.run(all_of(mirror(ASKED)))) == REFLECTION


def test_the_mirror_streams_word_by_word() -> None:
    words = asyncio.run(all_of(mirror(ASKED)))

    assert words[:3] == ["This ", "is ", "flowgpt's "]
    assert all(len(word.split()) == 1 for word in words)


@pytest.mark.parametrize("question", ["", " ", "\n\n a  b \t", "x" * 100_000, "é\u2028😀 " * 50, " " * 1000])
def test_the_mirrors_pieces_are_small_and_lose_nothing(question: str) -> None:
    asked = ChatRequest("m", Prompt(question))
    words = asyncio.run(all_of(mirror(asked)))

    assert "".join(words) == reflection(asked)
    assert reflection(asked).endswith(f"question: {question}\n")
    assert max(map(len, words)) <= 128


def test_no_system_prompt_is_said_so() -> None:
    assert "system prompt: (none)\nearlier turns: 0\n" in reflection(ChatRequest("m", Prompt("Hi")))


# --- the upstream -----------------------------------------------------------------------------------------------------

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def delta(text: str | None, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    return chunk(b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n")


FIRST = chunk(b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n')
HEL, LO, STOP = delta("Hel"), delta("lo"), delta(None, "stop")
DONE = chunk(b"data: [DONE]\n\n")

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Heard:
    """What the scripted upstream heard: the head in lower case, and the body."""

    head = ""
    body: Any = None
    gone: asyncio.Event


async def speaking(script: bytes | Script, use: Callable[[str, Heard], Awaitable[Any]]) -> tuple[Any, Heard]:
    """Run `use` on the base URL of a raw server that says these bytes to every request, then closes."""
    heard = Heard()
    heard.gone = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(heard.head.partition("content-length: ")[2].partition("\r\n")[0])
        heard.body = json.loads(await reader.readexactly(length))
        if isinstance(script, bytes):
            writer.write(script)
            await writer.drain()
        else:
            await script(reader, writer)
        writer.close()
        heard.gone.set()

    async with asyncio.timeout(BOUND_S), await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await use(f"http://127.0.0.1:{port}/v1", heard), heard


def answered(script: bytes | Script, **settings: Any) -> tuple[list[str], Heard]:
    """The upstream's texts as the responder gives them."""

    async def use(base_url: str, heard: Heard) -> list[str]:
        return await all_of(Upstream(base_url, **settings)(ASKED))

    return asyncio.run(speaking(script, use))


def through_the_server(script: bytes) -> Answer:
    """The answer that a client of the embedded server gets, over both sockets."""

    async def use(base_url: str, heard: Heard) -> Answer:
        with Server(Upstream(base_url)) as server:
            return await asyncio.to_thread(ask, server.base_url)

    answer: Answer = asyncio.run(speaking(script, use))[0]
    return answer


def test_the_upstream_is_asked_as_openai_is() -> None:
    texts, heard = answered(STREAM_HEAD + FIRST + HEL + LO + STOP + DONE + LAST, model="llama3", api_key=API_KEY)

    assert texts == ["Hel", "lo"]
    assert heard.head.startswith("post /v1/chat/completions http/1.1\r\n")
    assert f"authorization: bearer {API_KEY}\r\n" in heard.head
    assert "accept-encoding: identity\r\n" in heard.head
    assert heard.body == {
        "model": "llama3",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Why?"},
        ],
        "temperature": 0.5,
        "stream": True,
    }


def test_without_key_and_model_none_is_sent_and_the_asked_one_is() -> None:
    _, heard = answered(STREAM_HEAD + HEL + DONE + LAST)

    assert "authorization" not in heard.head
    assert heard.body["model"] == "gpt-4"


@pytest.mark.parametrize(
    "stream",
    [
        HEL + LO + DONE,
        HEL + LO + STOP,
        HEL + delta("lo", "length"),
        chunk(b": keep-alive\n\n") + HEL + chunk(b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n') + LO + STOP,
        HEL + delta(None) + chunk(b'data: {"choices":[{"delta":{"content":null}}]}\n\n') + LO + DONE,
        chunk(b"".join(piece.split(b"\r\n")[1].replace(b"\n", b"\r\n") for piece in (HEL, LO, STOP))),
    ],
    ids=["DONE", "stop", "length", "comments and usage", "no content", "CRLF in one chunk"],
)
def test_a_finished_stream_gives_its_texts(stream: bytes) -> None:
    assert answered(STREAM_HEAD + stream + LAST)[0] == ["Hel", "lo"]


def test_the_upstreams_texts_travel_through_the_server() -> None:
    answer = through_the_server(STREAM_HEAD + FIRST + HEL + LO + delta(" é") + STOP + DONE + LAST)

    assert (answer.undated, answer.ending) == (HEAD + b"".join(CHUNKS) + LAST, "FIN")


def error(status: str, body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            error("404 Not Found", b'{"error":{"message":"model \'gpt-4\' not found"}}'),
            "answered 404: model 'gpt-4' not found",
        ),
        (error("500 Oops", b'{"error":"out of memory"}'), "answered 500: out of memory"),
        (error("502 Bad Gateway", b"<html>", "text/html"), "answered 502"),
        (error("200 OK", b'{"choices":[]}'), "answered application/json, not an event stream"),
        (error("307 Elsewhere", b""), "answered 307"),
        (STREAM_HEAD + chunk(b"data: {oops\n\n") + LAST, "sent an event that is no JSON object"),
        (STREAM_HEAD + chunk(b"data: 5\n\n") + LAST, "sent an event that is no JSON object"),
        (STREAM_HEAD + chunk(b'data: {"error":{"message":"too long"}}\n\n') + LAST, "failed: too long"),
        (STREAM_HEAD + LAST, "ended its answer without finishing it"),
        (STREAM_HEAD, "broke off its answer"),
        (b"", "failed: ServerDisconnectedError"),
        (b"not http\r\n\r\n", "failed: ClientResponseError"),
    ],
)
def test_an_upstream_that_fails_before_its_first_text_is_502_and_named(script: bytes, words: str) -> None:
    answer = through_the_server(script)

    assert answer.status == 502
    upstream, _, cause = answer.json["error"].removeprefix("the upstream ").partition(" ")
    assert upstream.startswith("http://127.0.0.1:")
    assert upstream.endswith("/v1")
    assert cause == words


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        LAST,
        chunk(b"data: {oops\n\n") + LAST,
        chunk(b'data: {"error":"overloaded"}\n\n') + LAST,
        chunk(b'data: {"choices":[{"delta":{"cont'),
        b"zz\r\n",
    ],
    ids=["FIN", "unfinished", "no JSON", "error event", "cut in a line", "bad chunk"],
)
def test_c3_an_upstream_that_fails_after_a_text_cuts_the_stream(rest: bytes) -> None:
    """To C6: what came is delivered, and the body has no proper end."""

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + HEL)
        await writer.drain()
        await first.wait()  # until the text is at the client: aiohttp drops what it holds when a body is cut
        writer.write(rest)
        await writer.drain()

    first = asyncio.Event()

    async def use(base_url: str, heard: Heard) -> bytes:
        with Server(Upstream(base_url)) as server:
            host, _, port = server.base_url.removeprefix("http://").rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request())
            data = await reader.readuntil(CHUNKS[0])
            first.set()
            data += await reader.read(-1)
            writer.close()
            await writer.wait_closed()
            return data

    data = asyncio.run(speaking(slowly, use))[0]
    assert Answer(data, "FIN").undated == HEAD + CHUNKS[0]


@pytest.mark.parametrize(("rest", "code"), [(b"", "stream_interrupted"), (b"zz\r\n", "stream_interrupted")])
def test_c6_a_broken_upstream_is_a_typed_error_at_once(rest: bytes, code: str) -> None:
    """Aiohttp tells nobody of a bad chunk that comes after the head, and leaves the reader waiting."""

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + HEL)
        await first.wait()
        writer.write(rest)

    async def use(base_url: str, heard: Heard) -> list[str]:
        texts = []
        with pytest.raises(FlowGPTError, match="broke off its answer") as caught:  # noqa: PT012
            async for text in Upstream(base_url)(ASKED):
                texts.append(text)
                first.set()
        assert caught.value.code == code
        return texts

    first = asyncio.Event()
    assert asyncio.run(speaking(broken, use))[0] == ["Hel"]


def test_a4_an_upstream_that_is_not_there_is_502_and_says_so() -> None:
    with Server() as closed:
        base_url = closed.base_url
    with Server(Upstream(base_url + "/v1/")) as server:
        answer = ask(server.base_url)

    assert answer.status == 502
    assert answer.json["error"].startswith(f"cannot reach the upstream {base_url}/v1: ")


@pytest.mark.parametrize("script", [b"", error("401 No", f'{{"error":{{"message":"bad key {API_KEY}"}}}}'.encode())])
def test_no_failure_shows_the_key(script: bytes) -> None:
    """Neither words nor traceback: the fixture `canary` looks at every error's frames."""
    with pytest.raises(FlowGPTError) as caught:
        answered(script, api_key=API_KEY)

    assert API_KEY not in str(caught.value)
    assert API_KEY not in repr(Upstream("http://127.0.0.1:1/v1", api_key=API_KEY))


def test_a_client_that_leaves_closes_the_upstream_at_once() -> None:
    async def lingering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + HEL)
        assert await reader.read() == b""  # until the other side has closed

    async def use(base_url: str, heard: Heard) -> None:
        with Server(Upstream(base_url)) as server:
            host, _, port = server.base_url.removeprefix("http://").rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request())
            await reader.readuntil(CHUNKS[0])
            assert not heard.gone.is_set()
            writer.close()
            await heard.gone.wait()
            await asyncio.to_thread(server.wait_until_idle)

    assert asyncio.run(speaking(lingering, use))[1].gone.is_set()


def test_an_upstream_that_stands_still_holds_nobody_else() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(base_url: str, heard: Heard) -> int:
        with Server(Upstream(base_url)) as server:
            host, _, port = server.base_url.removeprefix("http://").rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(request())
            await asyncio.to_thread(server.wait_until_open, 1)
            answer = await asyncio.to_thread(ask, server.base_url, request(data=body(fault="empty")))
            writer.close()
            await asyncio.to_thread(server.wait_until_idle)
            return answer.status

    assert asyncio.run(speaking(silent, use))[0] == 200


@pytest.mark.parametrize(
    "base_url",
    [
        "", "127.0.0.1:11434", "ftp://host/v1", "http:///v1", "http://user:pw@host/v1", "http://host:99999/v1",
        "http://host/v1?x=1", "http://host/v1#x", "http://host:0/v1", "http://host/v1\r\nx: y", "http://[::1/v1",
    ],
)  # fmt: skip
def test_a_bad_upstream_address_is_refused_without_repeating_it(base_url: str) -> None:
    with pytest.raises(InvalidRequestError, match="the upstream must be an http or https address") as caught:
        Upstream(base_url)
    assert "pw" not in str(caught.value)


def test_k1_a_cancelled_request_does_not_show_the_key() -> None:
    """The traceback of the cancellation, with all locals, passes through the HTTP client's frames."""

    async def cancelled() -> BaseException:
        reached = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert f"Authorization: Bearer {API_KEY}\r\n".encode() in head
            reached.set()
            await reader.read(-1)
            writer.close()

        async with asyncio.timeout(BOUND_S), await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            texts = Upstream(f"http://127.0.0.1:{port}/v1", api_key=API_KEY)(ChatRequest("m", Prompt("Hello")))
            asking = asyncio.ensure_future(anext(texts))
            await reached.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await asking
            return caught.value

    shown = list(faces(asyncio.run(cancelled())))

    assert [place for place, text in shown if API_KEY in text] == []
    assert any("aiohttp" in place and "'***'" in text for place, text in shown)


@pytest.mark.parametrize("api_key", ["a\nb", "é"])
def test_a_key_that_no_header_may_have_is_refused(api_key: str) -> None:
    with pytest.raises(InvalidRequestError, match="key has characters"):
        Upstream("http://127.0.0.1:1/v1", api_key=api_key)
