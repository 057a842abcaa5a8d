"""Fenced blocks of Markdown, by CommonMark 0.31.2, "Fenced code blocks": find the first, and make one. Pure.

What stands in lists and quotations is not looked into: a fence is indented by three spaces at most.
"""

from __future__ import annotations

import re

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_OPENING = re.compile(r"( {0,3})(?:(`{3,})[^`\r\n]*|(~{3,})[^\r\n]*)(?:\r\n|\r|\n)?")
_CLOSING = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*(?:\r\n|\r|\n)?")


def first_block(text: str) -> str | None:
    """What is in the first fenced block, with its line ends; one that is not closed goes to the end. None: no block."""
    lines = _LINE.finditer(text)
    opening = next(filter(None, (_OPENING.fullmatch(line[0]) for line in lines)), None)
    if opening is None:
        return None
    indentation, fence = len(opening[1]), opening[2] or opening[3]
    kept = []
    for line in lines:
        closing = _CLOSING.fullmatch(line[0])
        if closing and closing[1].startswith(fence):
            break
        spaces = len(line[0]) - len(line[0].lstrip(" "))
        kept.append(line[0][min(indentation, spaces) :])
    return "".join(kept)


def fenced(text: str, info: str) -> str:
    """The text as a block that ends where the text does, whatever is in it. `info`: one line without backticks."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{info}\n{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{fence}"
