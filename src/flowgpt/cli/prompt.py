"""Where a person types: a prompt of several lines with history and completion, or bare lines where that cannot be.

Bare lines are for pipes, dumb terminals and screen readers: nothing on the screen moves. Nothing here knows a command.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import completion_is_selected
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ..errors import InvalidRequestError
from . import streams

SIGN = "> "
MORE = ". "
FENCE = "```"

LIMIT_HISTORY_BYTES = 1024 * 1024
"""Beyond that, the older half of the file of what was typed is given up."""

REFRESH_S = 1.0
"""How old the toolbar may be: what is being saved is known only after the prompt is there."""

Read = Callable[[str], str]
"""Gives what was typed; its argument is what the line begins with. Ctrl-C gives "". Raises: EOFError at the end."""


def unfinished(text: str) -> bool:
    """Whether a line goes on after Enter: it ends with a backslash, or a fence is open."""
    return text.endswith("\\") or sum(line.lstrip().startswith(FENCE) for line in text.split("\n")) % 2 == 1


def bare(*, sign: bool) -> Read:
    """Lines of standard input, as the terminal or a pipe gives them; `sign`: say when it is one's turn."""

    def read(_begun: str = "") -> str:
        text = ""
        try:
            while True:
                if sign and sys.stderr is not None:
                    with contextlib.suppress(OSError):
                        sys.stderr.write(MORE if text else SIGN)
                        sys.stderr.flush()
                line = _line()
                if not line and not text:
                    raise EOFError
                text += line.rstrip("\r\n")
                if not line or not unfinished(text):
                    return text
                text = text.removesuffix("\\") + "\n"
        except KeyboardInterrupt:
            if not sign:
                raise
            streams.note("")
            return ""

    return read


def _line() -> str:
    """One line. Raises: InvalidRequestError when it is as long as no question may be."""
    if sys.stdin is None:
        return ""
    data = sys.stdin.buffer.readline(streams.LIMIT_STDIN_BYTES + 1)
    if len(data) > streams.LIMIT_STDIN_BYTES:
        while not data.endswith(b"\n") and (data := sys.stdin.buffer.readline(streams.LIMIT_STDIN_BYTES)):
            pass
        raise InvalidRequestError(f"this line is longer than {streams.LIMIT_STDIN_BYTES:,} bytes", hint="send less")
    return data.decode("utf-8-sig", "replace")


def edited(complete: Callable[[str], Iterable[str]], toolbar: Callable[[], str], history: Path | None) -> Read:
    """The prompt of a terminal that moves its cursor. `complete`: the words that the last word may become.

    `toolbar`: the line at the bottom. `history`: the file of what was typed; None: it is forgotten at the end.
    """
    session: PromptSession[str] = PromptSession(
        SIGN,
        multiline=True,
        prompt_continuation=MORE,
        key_bindings=_keys(),
        history=_history(history),
        completer=_Words(complete),
        complete_while_typing=False,
        reserve_space_for_menu=6,
        bottom_toolbar=lambda: streams.plain(toolbar()),
        enable_suspend=True,
        refresh_interval=REFRESH_S,
    )

    def read(begun: str = "") -> str:
        try:
            return session.prompt(default=begun).encode("utf-8", "replace").decode()  # a byte that was no UTF-8
        except KeyboardInterrupt:
            return ""

    return read


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and completion_is_selected():
            buffer.complete_state = None
        elif unfinished(buffer.text):
            if buffer.document.text_before_cursor.endswith("\\"):
                buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    return keys


class _Words(Completer):
    def __init__(self, complete: Callable[[str], Iterable[str]]) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        before = document.text_before_cursor
        for word in self._complete(before):
            yield Completion(word, start_position=-len(before.rpartition(" ")[2]), display=streams.plain(word))


class _Typed(FileHistory):
    """What was typed, in a file; that it cannot be kept is no failure of the talk."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return [*super().load_history_strings()]
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string.encode("utf-8", "replace").decode())


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        os.chmod(path, 0o600)
        if path.stat().st_size > LIMIT_HISTORY_BYTES:
            data = path.read_bytes()
            path.write_bytes(data[data.find(b"\n# ", len(data) // 2) :])
    except OSError:
        return InMemoryHistory()
    return _Typed(path)
