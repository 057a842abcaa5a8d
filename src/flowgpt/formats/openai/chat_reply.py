"""A streamed chat completion as a client reads it: bytes to batches. No sockets, no clock; what is asked is elsewhere.

Sources: OpenAI's OpenAPI description, CreateChatCompletionStreamResponse; and, where servers differ from it, what their
trackers tell: the end without [DONE] (ikawrakow/ik_llama.cpp#467), `finish_reason` "" for null (ollama/ollama#4357),
the last text beside the finish reason (vllm-project/vllm#35705), errors as `{"error": …}` or `{"object": "error"}`.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, NamedTuple

import msgspec

from ...errors import (
    RETRY_CLASSES,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    FlowGPTError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
)
from ...messages import Batch
from .. import sse

LIMIT_WHOLE_BYTES = sse.LIMIT_BYTES
"""The longest answer taken from a server that does not stream."""

LIMIT_NAMES = 16
BLANK = b" \t\r\n\xef\xbb\xbf"
"""What may stand before the body's first word: blanks, and a BOM."""

ESCAPES = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
"""Every escape of a JSON text; the group is a surrogate without its other half."""


class _Choice(msgspec.Struct):
    index: int = 0
    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """A chunk, a whole completion, or an error in either of its two forms."""

    choices: list[_Choice] | None = None
    error: Any = None
    object: Any = None
    message: Any = None
    type: Any = None
    code: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class ReplyDecoder:
    """Decode a reply's body, however its bytes are cut: `feed` what comes, then `close` at the proper end or `cut`.

    A batch with a `failure` holds what was good before it, and is the last one. `proven`: [DONE] or a finish reason
    has come; without, an end is a cut. `done`: [DONE] has, and nothing counts any more. `events`: chunks so far, those
    without text too; `unknown_events`: what these had instead of text, by name. `secret`: what no message may repeat,
    though the server might.
    """

    def __init__(self, secret: str | None = None) -> None:
        self.events = 0
        self.unknown_events: dict[str, int] = {}
        self.proven = self.done = False
        self._secret = secret
        self._sse = sse.Decoder()
        self._first = b""  # the body's first byte that is not blank: it tells what the body is
        self._whole = bytearray()  # of a server that does not stream
        self._character = b""  # the beginning of one that was cut
        self._completion = self._texts = self._failed = False

    @property
    def tail(self) -> bytes:
        """The bytes of the event that has no end yet."""
        return bytes(self._whole) + self._sse.tail + self._character

    def feed(self, data: bytes) -> Batch:
        """Decode the events that `data` completes (raw body bytes, b"" is allowed); the batch may be empty."""
        batch = Batch()
        if self.done or self._failed:
            return batch
        data, fault = self._characters(data)
        self._first = self._first or data.lstrip(BLANK)[:1]
        if self._first == b"{":
            self._whole += data if self._whole else data.lstrip(BLANK)
            if len(self._whole) > LIMIT_WHOLE_BYTES:
                batch.failure = ProtocolError(
                    f"the answer is no stream, and has more than {LIMIT_WHOLE_BYTES} bytes", code="response_too_large"
                )
        elif self._first == b"<":
            batch.failure = ProtocolError("the answer is a page, not a stream", code="not_a_stream")
        else:
            self._events(data, batch)
        if not self.done:
            batch.failure = batch.failure or fault
        self._failed = batch.failure is not None
        return batch

    def close(self) -> Batch:
        """The body has ended properly: decode an answer that was not streamed, and judge the whole.

        The `failure` is a StreamInterruptedError for an end that nothing proves, a ProtocolError when there was no
        text or no stream.
        """
        batch = Batch()
        if self._failed:
            return batch
        if self._whole:
            batch.failure = self._chunk(self._whole.decode(), batch)
            if batch.failure is None:
                self.proven = self._completion
            elif not self._whole.rstrip().endswith(b"}"):
                batch.failure = self._truncated()
        elif self.tail and not self.done:
            self._last_event(batch)
        batch.failure = batch.failure or self._verdict()
        self._failed = batch.failure is not None
        return batch

    def cut(self) -> Batch:
        """The connection broke; nothing was held back. `tail` has the event that was cut."""
        return Batch()

    def _characters(self, data: bytes) -> tuple[bytes, ProtocolError | None]:
        """What may be decoded now: up to the end of a character, or to the first byte that is not UTF-8 (D1)."""
        data, fault = self._character + data, None
        try:
            whole = codecs.utf_8_decode(data, "strict", False)[1]
        except UnicodeDecodeError as error:
            whole, fault = error.start, ProtocolError("the reply is not UTF-8", code="decode_error")
        self._character = data[whole:]
        return data[:whole], fault

    def _events(self, data: bytes, batch: Batch) -> None:
        """Put into the batch what these bytes of an event stream complete."""
        events: list[sse.SSEvent] = []
        fault: ProtocolError | None = None
        try:
            events = self._sse.feed(data)
            self._sse.feed(b"")  # a fault behind these events is told here
        except ProtocolError as error:
            fault = error.with_traceback(None)
        for event in events:
            if event.data.strip() == "[DONE]":
                self.proven = self.done = True
                return
            if event.event == "error":
                batch.failure = self._chunk('{"error":' + event.data + "}", batch) or self._refusal(None)
            elif event.data:  # an event without data only keeps the connection alive
                batch.failure = self._chunk(event.data, batch)
            if batch.failure is not None:
                return
        batch.failure = fault

    def _last_event(self, batch: Batch) -> None:
        """Put into the batch an event that the body's end ended: not all servers write the blank line behind it."""
        events, cut = self.events, self._verdict()
        self._events(b"\n\n", batch)
        if self.events == events and not self.done and not isinstance(batch.failure, APIStatusError):
            batch.failure = cut

    def _chunk(self, text: str, batch: Batch) -> FlowGPTError | None:
        """Put the text of a chunk into the batch, or say what is wrong with it."""
        chunk = _parsed(text)
        if chunk is None:
            code = "bad_event" if self.events else "not_a_stream"
            return ProtocolError(f"an event of the answer is no chunk of a completion: {self._shown(text)}", code=code)
        if chunk.error is not None or chunk.object == "error":
            return self._refusal(chunk.error if chunk.error is not None else msgspec.structs.asdict(chunk))
        self.events += 1
        self._completion = self._completion or chunk.choices is not None
        for choice in chunk.choices or ():
            delta = choice.delta or choice.message or {}
            said = delta.get("content")
            if not isinstance(said, str | None):
                return ProtocolError("a chunk's content is not a string", code="bad_event")
            if choice.index != 0:
                continue
            if said:
                batch.texts.append(said)
                self._texts = True
            else:
                self._count([name for name, value in delta.items() if value])
            self.proven = self.proven or bool(choice.finish_reason)
        return None

    def _count(self, names: list[str]) -> None:
        for name in (ascii(name[:40]) if not name.isidentifier() else name[:40] for name in names):
            if name in self.unknown_events or len(self.unknown_events) < LIMIT_NAMES:
                self.unknown_events[name] = self.unknown_events.get(name, 0) + 1

    def _refusal(self, error: Any) -> APIStatusError:
        """A failure that the server reports in the answer. The request was taken, so that no retry is surely safe."""
        if isinstance(error, dict) and error.get("error"):  # an event `error` with the usual object
            error = error["error"]
        facts = error if isinstance(error, dict) else {"message": error}
        keys = [str(facts.get(name)).lower() for name in ("code", "type")]
        keys += [key[0] + "xx" for key in keys if re.fullmatch("4[0-9][0-9]", key)]
        kind = next((KINDS[key] for key in keys if key in KINDS), FAILED)
        said = facts.get("message")
        return kind.error(
            "the service reports an error" + (f": {self._shown(said, 500)}" if isinstance(said, str) and said else ""),
            code=kind.code,
            status_code=200,
            retry_class="ambiguous" if kind.code in RETRY_CLASSES else "never",
        )

    def _verdict(self) -> FlowGPTError | None:
        """What is wrong with the answer as a whole, now that it has ended."""
        if not self.proven and (self._texts or (self.tail and b"data:".startswith(self.tail[:5]))):
            return self._truncated()
        if self._texts:
            return None
        if self._completion or self.proven or self._first in (b"", b":"):  # a colon: comments, to keep it alive
            instead = ", ".join(f"{name} ×{count}" for name, count in self.unknown_events.items())
            return ProtocolError(
                "the reply has no text" + (f"; it has: {instead}" if instead else ""),
                code="empty_reply",
                hint="ask in other words, or ask another model",
            )
        return ProtocolError("the answer is no completion, and no stream of one", code="not_a_stream")

    def _truncated(self) -> StreamInterruptedError:
        return StreamInterruptedError("the reply ended before its end", code="stream_truncated", tail=self.tail)

    def _shown(self, text: str, length: int = 64) -> str:
        """Foreign text as a message may show it: one line, no control characters, not the secret."""
        if self._secret and self._secret.strip():
            text = text.replace(str(self._secret), "***")
        text = " ".join(text[: 4 * length].split())
        text = "".join(char if char.isprintable() else "\ufffd" for char in text)
        return text if len(text) <= length else text[: length - 1] + "…"


def _parsed(text: str) -> _Chunk | None:
    """The chunk of this JSON, with U+FFFD for each lone surrogate (D16), or None for anything else."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        return _decode(ESCAPES.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], text))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


class Kind(NamedTuple):
    """What a reported error means."""

    error: type[APIStatusError]
    code: str


FAILED = Kind(InternalServerError, "server_error")
KINDS = {
    word: Kind(error, code)
    for error, code, words in (
        (BadRequestError, "bad_request", "4xx invalid_request_error context_length_exceeded badrequesterror"),
        (BadRequestError, "bad_request", "exceed_context_size_error"),
        (AuthenticationError, "authentication_failed", "401 authentication_error invalid_api_key"),
        (QuotaExceededError, "quota_exceeded", "402 insufficient_quota quota_exceeded"),
        (PermissionDeniedError, "permission_denied", "403 permission_error"),
        (NotFoundError, "not_found", "404 not_found_error model_not_found notfounderror"),
        (RateLimitError, "rate_limited", "429 rate_limit_error rate_limit_exceeded"),
        (InternalServerError, "service_unavailable", "503 unavailable_error overloaded_error"),
    )
    for word in words.split()
}
"""By an error's `code` or `type`, in lower case: HTTP statuses, OpenAI's words, llama.cpp's, vLLM's. Else FAILED."""
