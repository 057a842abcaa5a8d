"""What the tests of stages share: a stage run to its end, texts put together, and texts cut everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowgpt.formats.pieces import Again, End, Failure, Piece, Stage


def passed(stage: Stage, batches: Sequence[Sequence[Piece]]) -> list[Piece]:
    """What comes out, until the stage has ended the answer."""
    given: list[Piece] = []
    for batch in batches:
        given += stage(batch)
        if given and isinstance(given[-1], (End, Failure, Again)):
            break
    return given


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same with texts that follow one another put together."""
    told: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and told and isinstance(told[-1], str):
            told[-1] += piece
        elif piece != "":
            told.append(piece)
    return told


def splits(text: str) -> Iterator[list[str]]:
    """Every cut in two, and character by character."""
    for place in range(len(text) + 1):
        yield [text[:place], text[place:]]
    yield list(text)
