"""How an answer appears while it comes: as Markdown on a terminal that can, as plain text everywhere else.

Finished blocks are written once and for good, so nothing of them is lost from the scrollback; of the unfinished one
only rows that changed are written again. No control character and no address of a model's becomes a command (E14).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.control import Control
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import ControlType, Segment, SegmentLines
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme

from ..conversation import Turn
from . import streams
from .blocks import Block, Blocks
from .keyboard import unechoed

INTERVAL_S = 1 / 12
"""How often the screen changes at most; a text that comes earlier is shown then, if no other comes."""

THEME = Theme({"markdown.code": "bold cyan"})
"""Of the terminal's own colours, and no background: it is as right on a light terminal as on a dark one."""

Add = Callable[[str], None]
Line = list[Segment]


def console(*, plain: bool) -> Console | None:
    """The terminal of stdout, when it shows colours and moves its cursor and nobody wants it plain; else None."""
    there = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, theme=THEME)
    return there if movable() and there.color_system and not there.no_color and not plain else None


def movable() -> bool:
    """Whether stdout is a terminal whose cursor can be moved."""
    return sys.stdout is not None and sys.stdout.isatty() and not Console(file=sys.stdout).is_dumb_terminal


@contextlib.contextmanager
def answer(there: Console | None) -> Iterator[Add]:
    """Where an answer appears: gives what takes each text. However it ends, all of it is shown. Raises: OSError."""
    if there is None:
        with _paper() as add:
            yield add
        return
    screen = Screen(there)
    with unechoed():
        try:
            yield screen.add
        finally:
            screen.close()


def exchange(there: Console | None, turns: Sequence[Turn]) -> None:
    """What was said last: the last question, if there is one, and the answer to it."""
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=0)
    for turn in turns[last:]:
        if turn.role == "user":
            streams.write("> " + streams.plain(turn.text).strip().replace("\n", "\n  ") + "\n")
        else:
            with answer(there) as add:
                add(turn.text)
            mark(turn)


def mark(turn: Turn) -> None:
    """Say of an answer that it is not whole."""
    if turn.verdict == "interrupted":
        streams.note("[interrupted here]")
    elif turn.verdict == "truncated" and turn.text:
        streams.note("[the answer is cut here]")


@contextlib.contextmanager
def _paper() -> Iterator[Add]:
    last = "\n"

    def add(text: str) -> None:
        nonlocal last
        shown = streams.plain(text)
        last = shown[-1:] or last
        streams.write(shown)

    try:
        yield add
    finally:
        if last != "\n":
            streams.write("\n")


class Screen:
    """An answer on a terminal. `add` may be called with each text; `close` shows what is left.

    `paints`: how many times something was written.
    """

    def __init__(self, there: Console) -> None:
        self.paints = 0
        self._console = there
        self._blocks = Blocks()
        self._done: list[Block] = []  # finished, and not shown yet
        self._before: Block | None = None  # the last one shown
        self._coded = 0  # lines of an unfinished block of code that were written for good
        self._live: list[Line] = []  # rows on the screen that may be written again
        self._width = there.width
        self._next_s = 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        self._failure: OSError | None = None
        there.show_cursor(False)
        self._paint([], [[Segment("…", Style(dim=True))]])

    def add(self, text: str) -> None:
        """The next text: shown now, or with the next one, or soon. Raises: OSError."""
        with self._lock:
            self._done += self._blocks.feed(streams.plain(text))
            if self._failure:
                raise self._failure
            wait_s = self._next_s - time.monotonic()
            if wait_s <= 0:
                self._show()
            elif self._timer is None:
                self._timer = threading.Timer(wait_s, self._late)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Show all there is, for good, and let go of the screen. Raises: OSError."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            self._timer = None
            self._done += self._blocks.end()
            try:
                self._show(last=True)
            finally:
                self._console.show_cursor(True)

    def _late(self) -> None:
        with self._lock:
            if self._timer is threading.current_thread():
                try:
                    self._show()
                except OSError as error:
                    self._failure = error

    def _show(self, *, last: bool = False) -> None:
        """Write what is finished for good, and of the rest what fits the screen."""
        self._timer = None
        final = [line for block in self._done for line in self._lines_of(block)]
        self._done.clear()
        live: list[Line] = []
        if not last:
            rest = self._blocks.rest
            if rest.language is not None:
                final += self._code(rest, whole=False)
                rest = rest._replace(text=rest.text.rpartition("\n")[2])
            if rest.text.strip():
                gap: list[Line] = [[]] if self._gap(rest) and not self._coded else []
                live = gap + self._rendered(rest)
        self._paint(final, live[-max(1, self._console.height - 2) :])
        self._next_s = time.monotonic() + INTERVAL_S

    def _lines_of(self, block: Block) -> list[Line]:
        """A finished block, less what was written of it already."""
        if block.language is not None:
            return self._code(block, whole=True)
        gap: list[Line] = [[]] if self._gap(block) else []
        self._before = block
        return gap + self._rendered(block)

    def _gap(self, block: Block) -> bool:
        before = self._before
        return before is not None and (block.spaced or (before.language is None) is not (block.language is None))

    def _code(self, block: Block, *, whole: bool) -> list[Line]:
        """The lines of code that are new. The terminal breaks them, so that they are copied as they are."""
        count = block.text.count("\n") + whole
        new: list[Line] = []
        if count > self._coded:
            new += [[]] if self._gap(block) and not self._coded else []
            coloured = _coloured(block.text, block.language or "").split("\n", allow_blank=True)[self._coded : count]
            new += [_safe(line.render(self._console)) for line in coloured]
            self._coded, self._before = count, block
        if whole:
            self._coded, self._before = 0, block
        return new

    def _rendered(self, block: Block) -> list[Line]:
        """A block as rows of the terminal's width."""
        code = block.language is not None
        shown: RenderableType = _coloured(block.text, block.language or "") if code else _markdown(block.text)
        options = self._console.options.update(width=max(20, self._console.width), height=None)
        rows = [_safe(row) for row in self._console.render_lines(shown, options, pad=False)]
        while rows and not _words(rows[-1]):
            rows.pop()
        return [*itertools.dropwhile(lambda row: not _words(row), rows)]

    def _paint(self, final: list[Line], live: list[Line]) -> None:
        """Put `final` and `live` in the place of the rows that may be written again."""
        old, new = self._live, [*final, *live]
        if self._console.width != self._width:  # the terminal has moved the rows about: leave them as they are
            old, self._width = [], self._console.width
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
        if (up := len(old) - same) or len(new) > same:
            self.paints += 1
            erase = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * up
            control = Control(ControlType.CARRIAGE_RETURN, *erase)
            self._console.print(control, SegmentLines(new[same:], new_lines=True), sep="", end="", soft_wrap=True)
        self._live = live  # not before: whom Ctrl-C keeps from writing must not count on these rows later


class _Heading(Heading):
    LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _CodeBlock(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _coloured(str(self.text).rstrip(), self.lexer_name)


class _Markdown(Markdown):
    elements = Markdown.elements | dict.fromkeys(("fence", "code_block"), _CodeBlock) | {"heading_open": _Heading}


@functools.cache
def _parser() -> MarkdownIt:
    """CommonMark and tables, less what would swallow text: HTML, definitions, pictures, a second copy of an address."""
    rules = ["strikethrough", "table"]
    return MarkdownIt("commonmark", {"html": False}).enable(rules).disable(["reference", "image", "autolink"])


@functools.cache
def _unparsed() -> Markdown:
    return _Markdown("", hyperlinks=False)  # it makes a parser of its own, which takes long


def _markdown(source: str) -> Markdown:
    """Markdown as rich shows it, with the line ends that it was written with."""
    shown = copy.copy(_unparsed())
    shown.parsed = _parser().parse(source)
    for token in shown.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return shown


def _coloured(code: str, language: str) -> Text:
    """Code in the terminal's own colours."""
    text = Syntax("", language or "text", theme="ansi_dark", background_color="default").highlight(code)
    text.expand_tabs(4)
    text.no_wrap, text.overflow = False, "fold"
    return text


def _safe(row: Iterable[Segment]) -> Line:
    """A row without commands (Markdown's entities, too, name controls and directions), or spaces at its end."""
    safe = [Segment(streams.plain(text).replace("\n", ""), style) for text, style, control in row if not control]
    while safe and not safe[-1].text.rstrip():
        safe.pop()
    if safe:
        safe[-1] = Segment(safe[-1].text.rstrip(), safe[-1].style)
    return safe


def _words(row: Line) -> bool:
    return any(segment.text.strip() for segment in row)
