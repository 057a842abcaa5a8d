"""The decoder alone, without a socket: CPU per text, beside msgspec line by line and `json.loads` line by line."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable

import msgspec

from flowgpt.messages import Event
from flowgpt.protocol.events import Decoder, encode

from .clients import texts
from .figures import Table, expect
from .floors.request import decode

COUNT = 50_000
READ_BYTES = 64 * 1024


def run() -> list[Table]:
    """Raises: WrongResult."""
    table = Table(f"CPU per text, µs: {COUNT:,} texts in reads of {READ_BYTES // 1024} KiB")
    expected = texts(COUNT)
    body = b"".join(encode(Event("text", text)) for text in expected)
    reads = [body[place : place + READ_BYTES] for place in range(0, len(body), READ_BYTES)]

    def ours() -> list[str]:
        decoder = Decoder()
        return [text for data in reads for text in decoder.feed(data).texts] + decoder.close().texts

    def by_line(read: Callable[[bytes], str]) -> list[str]:
        found, rest = [], b""
        for data in reads:
            *lines, rest = (rest + data).split(b"\n")
            found += [read(line) for line in lines if line]
        return found

    def sample(run: Callable[[], list[str]]) -> dict[str, float]:
        began_s = time.process_time()
        found = run()
        spent_s = time.process_time() - began_s
        expect(found == expected, True, "the decoded texts are those that were encoded")
        return {"µs": spent_s / COUNT * 1e6}

    variants: dict[str, Callable[[], list[str]]] = {
        "flowgpt": ours,
        "floor: msgspec, typed": lambda: by_line(lambda line: decode(line).data),
        "msgspec, untyped": lambda: by_line(lambda line: msgspec.json.decode(line)["data"]),
        "json.loads": lambda: by_line(lambda line: json.loads(line)["data"]),
    }
    table.measure({name: functools.partial(sample, variant) for name, variant in variants.items()})
    for name in list(variants)[1:]:
        table.ratio("µs", "flowgpt", name)
    return [table]
