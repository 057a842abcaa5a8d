"""A streamed chat completion as a client reads it, on top of server-sent events."""

from __future__ import annotations

from collections.abc import Sequence

from flowgpt.errors import FlowGPTError
from flowgpt.formats.openai.chat_reply import ReplyDecoder

SECRET = "sk-hush"  # the inputs have it; no message may


def parse(data: bytes) -> object:
    """Decode a whole body."""
    decoder = ReplyDecoder(SECRET)
    return decoder.feed(data), decoder.close()


def check(data: bytes, ways: Sequence[Sequence[bytes]]) -> None:
    """The same for each way to cut it, no surrogate, and no message that is long or tells the key."""
    whole = _outcome([data])
    for pieces in ways:
        assert _outcome(pieces) == whole


def _outcome(pieces: Sequence[bytes]) -> object:
    decoder = ReplyDecoder(SECRET)
    batches = [decoder.feed(piece) for piece in pieces] + [decoder.close()]
    text = "".join(text for batch in batches for text in batch.texts)
    text.encode()
    failures = [batch.failure for batch in batches if batch.failure is not None]
    assert len(failures) <= 1
    told = None
    for failure in failures:
        assert isinstance(failure, FlowGPTError)
        failure.message.encode()
        assert len(failure.message) < 2000
        assert SECRET not in failure.message
        told = type(failure), failure.code, failure.message
    return text, told, decoder.proven, decoder.events, decoder.unknown_events
