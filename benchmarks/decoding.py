"""The decoder alone, without a socket: CPU per text, against `json.loads` line by line over the same bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator

from flowgpt.messages import Event
from flowgpt.protocol.events import Decoder, encode

from .figures import expect, in_turn, ratio, show
from .upstream import texts

COUNT = 50_000
READ_BYTES = 64 * 1024


def run() -> None:
    """Print the comparison. Raises: WrongResult."""
    print(f"Decoding: {COUNT:,} texts, in reads of {READ_BYTES // 1024} KiB")
    expected = list(texts(0, COUNT))
    body = b"".join(encode(Event("text", text)) for text in expected)
    reads = [body[place : place + READ_BYTES] for place in range(0, len(body), READ_BYTES)]

    def ours() -> list[str]:
        decoder = Decoder()
        return [text for data in reads for text in decoder.feed(data).texts] + decoder.close().texts

    def split() -> Iterator[list[bytes]]:
        tail = b""
        for data in reads:
            *lines, tail = (tail + data).split(b"\n")
            yield [line for line in lines if line]

    def by_json() -> list[str]:
        return [json.loads(line)["data"] for lines in split() for line in lines]

    def sample(decode: Callable[[], Iterable[object]], result: list[str] | None) -> float:
        started_s = time.process_time()
        found = list(decode())
        spent_s = time.process_time() - started_s
        if result is not None:
            expect(found, result, f"decoding, {decode.__name__}: the texts are not those that were encoded")
        return spent_s / COUNT * 1e6

    samples = in_turn(
        {
            "ours": lambda: sample(ours, expected),
            "json": lambda: sample(by_json, expected),
            "split": lambda: sample(split, None),
        }
    )
    show("flowgpt", samples["ours"], "µs a text")
    show("json.loads", samples["json"], "µs a text")
    show("lines split only", samples["split"], "µs a text")
    ratio("flowgpt ÷ json.loads", samples["ours"], samples["json"])
    ratio("flowgpt ÷ split only", samples["ours"], samples["split"])
