"""The limit of length."""

from __future__ import annotations

from collections.abc import Sequence

from ..estimate import CHARACTERS_PER_TOKEN, size
from ..pieces import End, Piece, Stage


def stage(max_tokens: int) -> Stage:
    """End the answer after `max_tokens` by estimate: CHARACTERS_PER_TOKEN characters each, of texts and of arguments.

    The last text is cut; a tool call that does not fit is left out. An answer of just this length has not been cut.
    """
    left = max_tokens * CHARACTERS_PER_TOKEN

    def until_full(pieces: Sequence[Piece]) -> list[Piece]:
        nonlocal left
        given: list[Piece] = []
        for piece in pieces:
            count = size(piece)
            if count > left:
                given += [piece[:left]] if isinstance(piece, str) and left else []
                given.append(End("length"))
                break
            left -= count
            given.append(piece)
        return given

    return until_full
