"""formats/openai/chat_reply.py: streams as servers write them, every way to cut them, and what is no stream.

Provenance of the shapes: Ollama ollama/ollama#4357; vLLM vllm-project/vllm#35705; llama.cpp ggml-org/llama.cpp#14268
and openai-php/client#780; without [DONE] ikawrakow/ik_llama.cpp#467; errors ggml-org/llama.cpp#16109.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowgpt.errors import APIStatusError
from flowgpt.formats.openai.chat_reply import LIMIT_WHOLE_BYTES, ReplyDecoder
from flowgpt.formats.sse import LIMIT_BYTES
from tests.conftest import API_KEY

DONE = b"data: [DONE]\n\n"


def chunk(delta: Any, finish: str | None = None, **more: Any) -> bytes:
    value = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def text(words: str) -> bytes:
    return chunk({"content": words})


OLLAMA = b"".join(
    b'data: {"id":"chatcmpl-693","object":"chat.completion.chunk","created":1715427619,"model":"mistral:latest",'
    b'"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"%b"},'
    b'"finish_reason":%b}]}\n\n' % (words, reason)
    for words, reason in [(b" Hello", b'""'), (b" there", b'""'), (b"!", b"null"), (b"", b'"stop"')]
)
VLLM = b"".join(
    b'data: {"id":"chatcmpl-8b2b","object":"chat.completion.chunk","created":1772423572,"model":"qwen3_8b",'
    b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n' % (delta, reason)
    for delta, reason in [
        (b'{"role":"assistant","content":""}', b"null"),
        (b'{"content":" Hello"}', b"null"),
        (b'{"content":" there!"}', b'"length"'),
    ]
)
LLAMA = b"".join(
    b'data: {"choices":[{"finish_reason":%b,"index":0,"delta":%b}],"created":1750271648,"id":"chatcmpl-PZ5Z",'
    b'"model":"","system_fingerprint":"b1-a414a44","object":"chat.completion.chunk"%b}\n\n' % row
    for row in [
        (b"null", b'{"role":"assistant","content":null}', b""),
        (b"null", b'{"reasoning_content":" it"}', b',"timings":{"cache_n":7,"prompt_ms":251.51}'),
        (b"null", b'{"content":" Hello"}', b""),
        (b"null", b'{"content":" there!"}', b""),
        (b'"stop"', b"{}", b""),
    ]
)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":" Hello there!"},"finish_reason":"stop"}],"usage":{"total_tokens":5}}\n'
)

STREAMS: dict[str, bytes] = {
    "Ollama": OLLAMA + DONE,
    "vLLM": VLLM + USAGE + DONE,
    "llama.cpp": LLAMA + DONE,
    "llama.cpp's fork, without [DONE]": LLAMA,
    "no finish reason": text(" Hello") + text(" there!") + DONE,
    "comments and empty events": b": ping\n\n\ndata:\n\n" + text(" Hello") + b": ping\n\n" + text(" there!") + DONE,
    "CRLF and BOM": b"\xef\xbb\xbf" + (VLLM + DONE).replace(b"\n", b"\r\n"),
    "bytes behind the end": text(" Hello there!") + DONE + b"data: \xff\n\n" + text("not this"),
    "other choices": text(" Hello there!") + b'data: {"choices":[{"index":1,"delta":{"content":"no"}}]}\n\n' + DONE,
    "not streamed": WHOLE,
    "not streamed, after blanks": b"\xef\xbb\xbf \r\n" + WHOLE,
}
"""Each says " Hello there!"."""


Outcome = tuple[list[str], str | None, bool, dict[str, int]]


def decoded(*pieces: bytes, end: str = "close") -> Outcome:
    """Texts, the failure's code, `proven`, and what was there instead of text."""
    decoder, texts = ReplyDecoder(API_KEY), list[str]()
    for piece in pieces:
        batch = decoder.feed(piece)
        texts += batch.texts
        if batch.failure is not None:
            assert decoder.feed(b"data: [DONE]\n\n").texts == []
            return texts, batch.failure.code, decoder.proven, decoder.unknown_events
    batch = decoder.close() if end == "close" else decoder.cut()
    return texts + batch.texts, batch.failure.code if batch.failure else None, decoder.proven, decoder.unknown_events


@pytest.mark.parametrize("name", STREAMS)
def test_the_streams_of_these_servers_are_read(name: str) -> None:
    texts, code, proven, _ = decoded(STREAMS[name])

    assert ("".join(texts), code, proven) == (" Hello there!", None, True)


def test_e1_e5_what_comes_instead_of_text_is_counted_by_name_and_is_no_text() -> None:
    assert decoded(LLAMA)[3] == {"role": 1, "reasoning_content": 1}
    assert decoded(OLLAMA)[3] == {"role": 1}
    names = [chunk({f"name{n} \x1b": 1}) for n in range(30)]
    assert len(decoded(*names, DONE)[3]) == 16
    assert all(name.isprintable() for name in decoded(*names, DONE)[3])


@pytest.mark.parametrize("name", STREAMS)
def test_c4_c5_c9_a_stream_cut_at_any_offset_gives_an_exact_prefix_and_never_a_false_success(name: str) -> None:
    data = STREAMS[name]
    whole = decoded(data)[0]
    ends = set()
    for place in range(len(data)):
        texts, code, proven, _ = decoded(data[:place])
        assert texts == whole[: len(texts)]
        assert (code is None) == (proven and texts == whole)
        sure = decoded(data[:place], end="cut")[0]  # an event that only the proper end ended is not in it
        assert sure == ([] if data is WHOLE or name.startswith("not s") else texts[: len(sure)])
        assert "data:" in name or len(texts) - len(sure) <= 1
        if texts and not proven:
            assert code == "stream_truncated"
        ends.add(code)
    assert ends <= {None, "stream_truncated", "empty_reply", "not_a_stream"}


@pytest.mark.parametrize("name", STREAMS)
def test_c11_d2_d3_d5_single_bytes_and_any_two_parts_give_the_same(name: str) -> None:
    data = STREAMS[name]
    assert decoded(*(data[place : place + 1] for place in range(len(data)))) == decoded(data)
    for place in range(len(data)):
        assert decoded(data[:place], data[place:]) == decoded(data)


FRAGMENTS = st.lists(
    st.sampled_from([text("é"), text("b"), DONE, WHOLE, LLAMA[:200], b": x\n\n", b"data:", b"{", b"}", b"<", b"\n"])
    | st.sampled_from([b"\xc3", b"\xff", b"\xef\xbb\xbf", b"error: {}\n\n", b'data: {"error":"x"}\n\n', b"\r", b" "])
    | st.binary(max_size=4),
    max_size=12,
).map(b"".join)


@settings(max_examples=100)
@given(data=FRAGMENTS, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_c11_no_split_of_any_bytes_changes_what_they_mean(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert decoded(*(data[begin:end] for begin, end in itertools.pairwise(places))) == decoded(data)


@settings(max_examples=100)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=8))
def test_d6_e13_any_text_arrives_exactly(texts: list[str]) -> None:
    frames = [json.dumps({"choices": [{"delta": {"content": one}}]}, ensure_ascii=False).encode() for one in texts]
    assert decoded(*(b"data: " + frame + b"\n\n" for frame in frames), DONE)[:3] == (texts, None, True)


BAD: dict[str, tuple[bytes, str]] = {
    "D1 invalid UTF-8": (b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', "decode_error"),
    "D1 overlong": (b'data: {"choices":[{"delta":{"content":"\xc0\xaf"}}]}\n\n', "decode_error"),
    "D9 a control character in a string": (b'data: {"choices":[{"delta":{"content":"\x01"}}]}\n\n', "bad_event"),
    "D10 no JSON": (b"data: hello\n\n", "bad_event"),
    "D11 an array": (b"data: []\n\n", "bad_event"),
    "D11 null": (b"data: null\n\n", "bad_event"),
    "D12 depth": (b'data: {"choices":' + b"[" * 100_000 + b"\n\n", "bad_event"),
    "D13 NaN": (b'data: {"choices":[{"delta":{"x":NaN}}]}\n\n', "bad_event"),
    "D13 1e400": (b'data: {"choices":[{"delta":{"x":1e400}}]}\n\n', "bad_event"),
    "D19 two objects in one event": (b"data: {}{}\n\n", "bad_event"),
    "E4 content is a number": (chunk({"content": 5}), "bad_event"),
    "E4 content is a list": (chunk({"content": [{"type": "text", "text": "x"}]}), "bad_event"),
    "E4 delta is a string": (chunk("Hello"), "bad_event"),
    "choices is an object": (b'data: {"choices":{}}\n\n', "bad_event"),
    "D7 a line over the limit": (b"data: " + b"x" * LIMIT_BYTES, "line_too_long"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_chunk_ends_the_reply_behind_what_was_good(name: str) -> None:
    data, code = BAD[name]
    assert decoded(text("good") + data + text("not this"))[:2] == (["good"], code)
    assert decoded(text("good"), data)[:2] == (["good"], code)


NO_STREAM: dict[str, tuple[bytes, str]] = {
    "D10 F6 a page": (b"<!doctype html><title>Just a moment...</title>", "not_a_stream"),
    "D10 words": (b"Ollama is running", "not_a_stream"),
    "D10 words, framed": (b"data: Ollama is running\n\n", "not_a_stream"),
    "D10 FlowGPT's events": (b'{"event":"text","data":"a"}\n\n{"event":"text","data":"b"}\n', "not_a_stream"),
    "D18 UTF-16 with a BOM": (text("x").decode().encode("utf-16"), "decode_error"),
    "D18 UTF-16": (text("x").decode().encode("utf-16-le"), "not_a_stream"),
    "E2 other JSON": (b'{"detail":"hello"}', "not_a_stream"),
    "E2 other JSON, framed": (b'data: {"detail":"hello"}\n\n', "not_a_stream"),
    "E11 nothing": (b"", "empty_reply"),
    "E11 comments": (b": ping\n\n: ping\n\n", "empty_reply"),
    "E11 the end alone": (DONE, "empty_reply"),
    "E11 no text": (chunk({"role": "assistant", "content": ""}) + chunk({}, "stop") + DONE, "empty_reply"),
    "E11 no text in a whole answer": (WHOLE.replace(b" Hello there!", b""), "empty_reply"),
    "half a whole answer": (WHOLE[:50], "stream_truncated"),
    "a whole answer over the limit": (b'{"' + b"x" * LIMIT_WHOLE_BYTES, "response_too_large"),
}


@pytest.mark.parametrize("name", NO_STREAM)
def test_what_is_no_reply_is_an_error(name: str) -> None:
    data, code = NO_STREAM[name]
    assert decoded(data)[:2] == ([], code)


@pytest.mark.parametrize("end", ["", "\n", "\r", "\r\n", "\ndata:"])
def test_the_body_s_end_ends_its_last_event_too(end: str) -> None:
    last = text("b").rstrip() + end.encode()
    assert decoded(text("a"), last)[:3] == (["a", "b"], "stream_truncated", False)
    assert decoded(text("a"), chunk({}, "stop").rstrip() + end.encode())[:3] == (["a"], None, True)
    assert decoded(text("a"), DONE.rstrip() + end.encode())[:3] == (["a"], None, True)
    assert decoded(text("a"), b'data: {"error": {"code": 429}}' + end.encode())[:2] == (["a"], "rate_limited")
    assert decoded(text("a"), last, end="cut")[:2] == (["a"], None)


def test_e7_the_error_of_an_empty_reply_names_what_it_has_instead() -> None:
    decoder = ReplyDecoder()
    decoder.feed(chunk({"tool_calls": [{}]}, "tool_calls") + DONE)
    failure = decoder.close().failure
    assert failure is not None
    assert failure.message == "the reply has no text; it has: tool_calls ×1"


@pytest.mark.parametrize("escape", ["\\ud83d", "\\uDE00", "\\ud83d\\ud83d", "\\\\\\ud83d"])
def test_d16_a_lone_surrogate_becomes_the_replacement_character(escape: str) -> None:
    (words,) = decoded(b'data: {"choices":[{"delta":{"content":"a' + escape.encode() + b'b"}}]}\n\n' + DONE)[0]
    assert words == json.loads(f'"a{escape}b"').encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert "\ufffd" in words


def test_d16_a_pair_and_an_escaped_backslash_stay_beside_a_lone_surrogate() -> None:
    data = rb'data: {"choices":[{"delta":{"content":"\ud83d\ude00 \\ud83d \udc00"}}]}' + b"\n\n" + DONE
    assert decoded(data)[0] == ["😀 \\ud83d \ufffd"]


REPORTED = {
    "OpenAI, quota": ({"error": {"message": "m", "code": "insufficient_quota", "type": "x"}}, "quota_exceeded"),
    "OpenAI, rate": ({"error": {"message": "m", "code": None, "type": "rate_limit_error"}}, "rate_limited"),
    "llama.cpp": ({"error": {"code": 500, "message": "m", "type": "server_error"}}, "server_error"),
    "llama.cpp, loading": (
        {"error": {"code": 503, "message": "m", "type": "unavailable_error"}},
        "service_unavailable",
    ),
    "vLLM": ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "bad_request"),
    "a status as a string": ({"error": {"code": "422", "message": "m"}}, "bad_request"),
    "a key": ({"error": {"code": "invalid_api_key", "message": "m"}}, "authentication_failed"),
    "a model": ({"error": {"code": "model_not_found", "message": "m"}}, "not_found"),
    "not allowed": ({"error": {"code": 403, "message": "m"}}, "permission_denied"),
    "a string": ({"error": "m"}, "server_error"),
    "with choices": ({"choices": [{"index": 0, "delta": {"content": "x"}}], "error": {"message": "m"}}, "server_error"),
    "of no known kind": ({"error": {"message": "m", "code": [1], "type": {"a": 1}}}, "server_error"),
}


@pytest.mark.parametrize("name", REPORTED)
@pytest.mark.parametrize("frame", ["data: %b\n\n", "%b", "error: %b\n\n", "event: error\ndata: %b\n\n"])
def test_an_error_in_the_answer_is_the_error(name: str, frame: str) -> None:
    value, code = REPORTED[name]
    decoder = ReplyDecoder()
    batch = decoder.feed(frame.encode() % json.dumps(value).encode())
    batch.extend(decoder.close() if batch.failure is None else type(batch)(failure=batch.failure))
    failure = batch.failure

    assert isinstance(failure, APIStatusError)
    assert (failure.code, failure.status_code, batch.texts) == (code, 200, [])
    assert failure.message == "the service reports an error: m"
    assert failure.retry_class in ("ambiguous", "never")


def test_an_error_in_the_middle_ends_the_reply_even_if_done_follows() -> None:
    """Until 2025-09 llama.cpp wrote a failure so; whoever drops the line takes what is left for whole."""
    data = text("part") + b'error: {"code":500,"message":"boom","type":"server_error"}\n\n' + DONE
    assert decoded(data)[:2] == (["part"], "server_error")


def test_k1_foreign_words_are_shown_without_the_key_and_on_one_line() -> None:
    for data in (
        b'data: {"error":{"message":"key ' + API_KEY.encode() + b' is\\n\\u001b[31mwrong"}}\n\n',
        b"data: no JSON, " + API_KEY.encode() + b"\n\n",
    ):
        failure = ReplyDecoder(API_KEY).feed(data).failure
        assert failure is not None
        assert "***" in failure.message
        assert API_KEY not in failure.message
        assert failure.message.isprintable()


def test_c2_only_chunks_are_signs_of_life() -> None:
    decoder = ReplyDecoder()
    decoder.feed(b": ping\n\ndata:\n\n\n\n")
    assert decoder.events == 0
    decoder.feed(chunk({"reasoning_content": "hm"}))
    assert decoder.events == 1


def test_the_tail_is_what_was_cut() -> None:
    decoder = ReplyDecoder()
    decoder.feed(text("a") + b'data: {"choi')
    assert decoder.tail == b'data: {"choi'
    failure = decoder.close().failure
    assert failure is not None
    assert (failure.code, getattr(failure, "tail", None)) == ("stream_truncated", b'data: {"choi')
