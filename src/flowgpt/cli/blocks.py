"""Where Markdown that is still being written may be cut: into blocks that no later text changes. Pure.

How a block looks is view.py's; this only finds its end, so that what is finished is shown once and for good.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LIMIT_BLOCK = 8192
"""Characters after which a block is cut wherever it may be: what is not finished is shown again with each text."""

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})\s*([^\s`]*)")
_NESTED = re.compile(r"\s+(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_ITEM = re.compile(r"([-*+]|\d{1,9}[.)])\s")
_INTERRUPTING = re.compile(r"([-*+]|1[.)])\s+\S")
_TABLE = re.compile(r"\s*\|?[\s:]*-[-|:\s]*$")


class Block(NamedTuple):
    """`text`: Markdown, or the lines of a fenced block of code without its fences. `language`: None for Markdown.

    `spaced`: an empty line comes before it.
    """

    text: str
    language: str | None = None
    spaced: bool = False


class Blocks:
    """Text in, finished blocks out. The same text gives the same blocks, however it is split into texts."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._line = ""  # without its newline yet
        self._fence = self._nested = ""
        self._language: str | None = None
        self._blank = False  # an empty line stands after the lines
        self._spaced = False

    @property
    def rest(self) -> Block:
        """What is not finished."""
        if self._language is not None:
            shown = [] if self._closes(self._line) else [self._line]
            return Block("\n".join([*self._lines, *shown]), self._language, self._spaced)
        spaced = self._spaced if self._lines else self._blank
        return Block("\n".join([*self._lines, *[""] * self._blank, self._line]), None, spaced)

    def feed(self, text: str) -> list[Block]:
        """The next text of the answer; the blocks that it finishes."""
        done: list[Block] = []
        first, *others = text.split("\n")
        self._extend(first, done)
        for line in others:
            self._take(self._line, done)
            self._line = ""
            self._extend(line, done)
        return done

    def end(self) -> list[Block]:
        """There is no more text: what is left."""
        done: list[Block] = []
        if self._line:
            self._take(self._line, done)
        self._line = ""
        self._finish(done)
        return done

    def _extend(self, text: str, done: list[Block]) -> None:
        """More of a line; one that is too long becomes several."""
        while len(self._line) + len(text) > LIMIT_BLOCK:
            room = LIMIT_BLOCK - len(self._line)
            line = self._line + text[:room]
            cut = (line.rfind(" ") + 1) or len(line)
            self._take(line[:cut], done)
            self._line, text = line[cut:], text[room:]
        self._line += text

    def _take(self, line: str, done: list[Block]) -> None:
        """A whole line."""
        if self._language is not None:
            if self._closes(line):
                self._finish(done)
                self._language = None
            else:
                self._add(line, done)
        elif self._nested:
            self._add(line, done)
            if line.strip().startswith(self._nested) and not line.strip().strip(self._nested[0]):
                self._nested = ""
        elif not line.strip():
            self._blank = True
            if not self._in_item():
                self._finish(done)
        elif (fence := _FENCE.match(line)) and not (self._in_item() and line[0] == " "):
            self._finish(done)
            self._fence, self._language = fence[1], fence[2]
            self._spaced, self._blank = self._blank, False
        else:
            if self._lines and self._begins(line):
                self._finish(done)
            if not self._lines:
                self._spaced, self._blank = self._blank, False
            nested = _NESTED.match(line) if self._in_item() else None
            self._nested = nested[1] if nested else ""
            self._add(line, done)

    def _in_item(self) -> bool:
        return bool(self._lines) and _ITEM.match(self._lines[0]) is not None

    def _begins(self, line: str) -> bool:
        """Whether a new block begins with this line, whatever stands before it."""
        if self._in_item():
            return bool(_ITEM.match(line) or _HEADING.match(line)) or (self._blank and line[0] not in " \t")
        return bool(_HEADING.match(line) or _HEADING.match(self._lines[-1]) or _INTERRUPTING.match(line))

    def _closes(self, line: str) -> bool:
        """Whether the line ends the block of code."""
        bare = line.strip()
        return bare.startswith(self._fence) and not bare.strip(self._fence[0])

    def _add(self, line: str, done: list[Block]) -> None:
        if self._size + len(line) > LIMIT_BLOCK:
            self._cut(done)
        self._lines += [*[""] * self._blank, line]
        self._size += self._blank + len(line) + 1
        self._blank = False

    def _cut(self, done: list[Block]) -> None:
        """The block is too long: its rest is a block of its own. A table has its head again."""
        head = self._lines[:2]
        tabular = len(head) == 2 and "|" in head[0] and _TABLE.match(head[1])
        self._finish(done)
        if tabular and len(head[0]) + len(head[1]) < LIMIT_BLOCK // 2:
            self._lines, self._size = head, len(head[0]) + len(head[1])

    def _finish(self, done: list[Block]) -> None:
        if self._lines:
            done.append(Block("\n".join(self._lines), self._language, self._spaced))
        self._lines, self._size, self._spaced = [], 0, False
