"""Stop sequences and the limit of length, as functions from pieces to pieces; and `Search`, which both stages that look
for strings in a cut text are made of. No dialect in here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from .chat import CHARACTERS_PER_TOKEN
from .pieces import End, Piece, Stage, ToolCall


class Search:
    """The first of some strings, none empty, in a text that comes in pieces. Its time is linear, whatever is cut where.

    The first is the one that ends first; of several that end together, the longest. After a find it begins anew.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = sequences
        self._first = re.compile("[" + re.escape("".join(sequence[0] for sequence in sequences)) + "]")
        self._borders: list[list[int]] = [[0] for _ in sequences]  # Knuth, Morris and Pratt's, as far as was needed
        self._matched = [0] * len(sequences)
        self._held: deque[str] = deque()
        self._offset = 0  # how much of the first held text has left
        self._length = 0

    def feed(self, text: str, start: int = 0) -> tuple[list[str], str | None, int]:
        """Go on with `text` from `start`: what surely stands before a find, the find, and where the rest begins."""
        place, found = start, None
        while place < len(text) and found is None:
            if not any(self._matched):
                first = self._first.search(text, place)
                place = first.start() if first else len(text)
                if first is None:
                    break
            found = self._step(text[place])
            place += 1
        if place > start:
            self._held.append(text[start:place])
            self._length += place - start
        if found is None:
            return self._release(self._length - max(self._matched)), None, place
        before = self._release(self._length - len(found))
        self.rest()
        return before, found, place

    def rest(self) -> list[str]:
        """What was held back, since nothing more comes."""
        held = self._release(self._length)
        self._matched = [0] * len(self._sequences)
        return held

    def _step(self, character: str) -> str | None:
        """Take one character more; the longest sequence that ends with it."""
        found = None
        for which, sequence in enumerate(self._sequences):
            borders = self._borders[which]
            matched = _longer(sequence, borders, self._matched[which], character)
            self._matched[which] = matched
            if matched > len(borders):
                borders.append(_longer(sequence, borders, borders[-1], character))
            if matched == len(sequence) and (found is None or matched > len(found)):
                found = sequence
        return found

    def _release(self, count: int) -> list[str]:
        released = []
        self._length -= count
        while count:
            text = self._held[0]
            end = min(self._offset + count, len(text))
            released.append(text[self._offset : end])
            count -= end - self._offset
            self._offset = end
            if end == len(text):
                self._held.popleft()
                self._offset = 0
        return released


def _longer(sequence: str, borders: Sequence[int], matched: int, character: str) -> int:
    """How much of the sequence's beginning is matched after one character more."""
    while matched and sequence[matched] != character:
        matched = borders[matched - 1]
    return matched + (sequence[matched] == character)


def stop(sequences: Sequence[str]) -> Stage:
    """End the answer before the first of these sequences, none empty; nothing of it is given out.

    What may still become one is held back. A sequence does not reach over a tool call.
    """
    search = Search(sequences)

    def stage(pieces: Sequence[Piece]) -> list[Piece]:
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

    return stage


def length(max_tokens: int) -> Stage:
    """End the answer after `max_tokens` by estimate: CHARACTERS_PER_TOKEN characters each, of texts and of arguments.

    The last text is cut; a tool call that does not fit is left out. An answer of just this length has not been cut.
    """
    left = max_tokens * CHARACTERS_PER_TOKEN

    def stage(pieces: Sequence[Piece]) -> list[Piece]:
        nonlocal left
        given: list[Piece] = []
        for piece in pieces:
            text = piece.arguments if isinstance(piece, ToolCall) else piece
            size = len(text) if isinstance(text, str) else 0
            if size > left:
                given += [piece[:left]] if isinstance(piece, str) and left else []
                given.append(End("length"))
                break
            left -= size
            given.append(piece)
        return given

    return stage
