"""Strings found in a text that is cut anywhere: what the stages that look for some are made of."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence


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
