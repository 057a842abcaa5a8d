"""docs/chat.svg: a chat in a real terminal as a picture. `python -m tests.picture > docs/chat.svg` makes it anew."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import AsyncGenerator

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from flowgpt.embedded import Server
from flowgpt.protocol.request import ChatRequest
from tests.terminal import Terminal

COLUMNS, LINES = 90, 25

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" class="rich-terminal" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px; \
line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
<rect fill="#0c0c0c" rx="8" width="100%" height="100%"/>
<g transform="translate({terminal_x}, {terminal_y})"><g transform="translate(0, -32)">\
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></g>
</svg>
"""
"""No font and nothing else is fetched from anywhere."""

ANSWER = """A **ring buffer** keeps the last *n* things and forgets the rest:

```python
from collections import deque

last = deque(maxlen=3)
for number in range(10):
    last.append(number)
print(last)  # 7, 8 and 9
```

| operation | time |
|-----------|-----:|
| append    | O(1) |
| search    | O(n) |
"""


async def respond(request: ChatRequest) -> AsyncGenerator[str, None]:
    """A made-up answer: no model has written it."""
    for piece in re.findall(r"\S+\s*", ANSWER):
        yield piece


def session() -> Terminal:
    """A chat that has just answered; to be closed."""
    terminal = Terminal("chat", columns=COLUMNS, lines=LINES)
    terminal.wait("saved · /help")
    terminal.type("How do I keep the last three numbers?\r")
    terminal.wait("search", "\n\n>", "saved · /help")
    terminal.type("/model gpt-4-turbo\r")
    terminal.wait("model: gpt-4-turbo\n>", "gpt-4-turbo · saved")
    terminal.type("And the largest?")
    terminal.wait("> And the largest?")
    return terminal


def words(terminal: Terminal) -> str:
    """What the picture shows of it: addresses differ from time to time."""
    return re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:8000", terminal.display)


def svg(terminal: Terminal) -> str:
    """The picture."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for row in range(LINES):
        line = Text()
        for column in range(COLUMNS):
            cell = terminal.screen.buffer[row][column]
            line.append(cell.data, style(cell))
        line.rstrip()
        shown = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:8000", line.plain)
        console.print(line if shown == line.plain else Text(shown), soft_wrap=True)
    return console.export_svg(code_format=FORMAT, unique_id="chat", title="")


def style(cell: pyte.screens.Char) -> Style:
    """A cell's colours, as rich has them."""
    names = {"default": None, "brown": "yellow"}
    front, back = (names.get(color, color) for color in (cell.fg, cell.bg))
    named = [
        None
        if color is None
        else f"#{color}"
        if re.fullmatch("[0-9a-f]{6}", color)
        else re.sub("^bright", "bright_", color)
        for color in (front, back)
    ]
    return Style(
        color=named[0],
        bgcolor=named[1],
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def main() -> None:
    """Write the picture to stdout."""
    with tempfile.TemporaryDirectory() as home, Server(respond) as server:
        os.environ |= {"FLOWGPT_HOME": home, "FLOWGPT_BASE_URL": server.base_url}
        with session() as terminal:
            sys.stdout.write(svg(terminal))


if __name__ == "__main__":
    main()
