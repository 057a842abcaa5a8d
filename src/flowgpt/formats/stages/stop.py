"""Stop sequences."""

from __future__ import annotations

from collections.abc import Sequence

from ..pieces import End, Piece, Stage
from .search import Search


def stage(sequences: Sequence[str]) -> Stage:
    """End the answer before the first of these sequences, none empty; nothing of it is given out.

    What may still become one is held back. A sequence does not reach over a tool call.
    """
    search = Search(sequences)

    def until_found(pieces: Sequence[Piece]) -> list[Piece]:
        given: list[Piece] = []
        for piece in pieces:
            if not isinstance(piece, str):
                given += [*search.rest(), piece]
                continue
            before, found, _ = search.feed(piece)
            given += before
            if found is not None:
                given.append(End("stop_sequence", found))
                break
        return given

    return until_found
