"""The lines of a batch's input: of a file, and of a pipe that is slow, ends early or breaks."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import random
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from flowgpt.batch.lines import AHEAD, Line, Piped, Read, Seen, lines


@given(st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=8))
def test_lines_are_numbered_and_blank_ones_left_out(texts: list[bytes]) -> None:
    expected = [(number, text) for number, text in enumerate(texts, 1) if text.strip()]

    for end in (b"\n", b"\r\n"):
        assert [*lines(io.BytesIO(end.join(texts)))] == expected
        assert [*lines(io.BytesIO(end.join([*texts, b""])))] == expected


def test_a_bom_before_all_is_left_out_and_no_other() -> None:
    bom = b"\xef\xbb\xbf"

    assert [*lines(io.BytesIO(bom + b"a\n" + bom + b"b"))] == [(1, b"a"), (2, bom + b"b")]


def test_of_a_line_that_is_too_long_a_byte_too_many_comes_and_the_next_one_is_whole() -> None:
    text = b"abcd\n" + b"x" * 200_000 + b"\nefgh\nabcde"

    assert [*lines(io.BytesIO(text), limit=4)] == [(1, b"abcd"), (2, b"xxxxx"), (3, b"efgh"), (4, b"abcde")]


async def all_of(source: AsyncIterator[Line], readers: int = 3) -> list[Line]:
    """What several tasks read of it, each line once."""

    async def read() -> list[Line]:
        return [line async for line in source]

    return sorted(itertools.chain(*await asyncio.gather(*(read() for _ in range(readers)))))


def test_several_tasks_read_a_file() -> None:
    assert asyncio.run(all_of(Read(io.BytesIO(b"a\nb\nc\n")))) == [(1, b"a"), (2, b"b"), (3, b"c")]


def test_several_tasks_read_a_pipe_to_its_end() -> None:
    async def main() -> list[Line]:
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb", 0) as out:
            reading = asyncio.create_task(all_of(Piped(stream)))
            for number in range(1, 2 * AHEAD):
                out.write(b"%d\n" % number)
            out.write(b"last")
            out.close()
            return await reading

    assert asyncio.run(main()) == [(n, b"%d" % n) for n in range(1, 2 * AHEAD)] + [(2 * AHEAD, b"last")]


def test_a_line_of_a_pipe_comes_before_the_next_one_is_written() -> None:
    async def main() -> list[Line]:
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb", 0) as out:
            source, came = Piped(stream), []
            for text in (b"a\n", b"b\n"):
                out.write(text)
                came.append(await anext(source))
            out.close()
            assert await anext(source, None) is None
            return came

    assert asyncio.run(main()) == [(1, b"a"), (2, b"b")]


def test_a_pipe_is_not_read_far_ahead() -> None:
    class Counting(io.RawIOBase):
        """Endless lines, counted."""

        given = 0

        def readable(self) -> bool:
            return True

        def readline(self, _size: int | None = -1) -> bytes:
            self.given += 1
            return b"x\n"

    async def main() -> list[int]:
        stream = Counting()
        source = Piped(stream)  # type: ignore[arg-type]  # it has all that is called
        ahead = []
        for taken in range(1, 200):
            await anext(source)
            ahead.append(stream.given - taken)
        return ahead

    assert max(asyncio.run(main())) <= AHEAD + 1


def test_a_pipe_that_breaks_tells_every_reader() -> None:
    class Broken(io.RawIOBase):
        def readline(self, _size: int | None = -1) -> bytes:
            raise OSError(5, "broken")

    async def main() -> list[str]:
        source = Piped(Broken())  # type: ignore[arg-type]  # it has all that is called
        return [str(one) for one in await asyncio.gather(anext(source), anext(source), return_exceptions=True)]

    assert asyncio.run(main()) == ["[Errno 5] broken"] * 2


def test_a_name_is_new_once() -> None:
    seen, known, chance = Seen(), set[str](), random.Random(1)

    for name in (f"row-{chance.randrange(4000)}" for _ in range(8000)):
        assert seen.add(name) == (name not in known)
        known.add(name)


def test_names_cost_a_few_bytes_each() -> None:
    seen = Seen()
    for number in range(20_000):
        seen.add(f"row-{number}")

    assert len(seen._slots) * seen._slots.itemsize <= 33 * 20_000
