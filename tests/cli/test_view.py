"""How an answer appears: every letter of it once, no command of a model's, and work that is bounded."""

from __future__ import annotations

import io
import re

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flowgpt.cli import view
from flowgpt.conversation import Turn

HOSTILE = "".join(
    [
        "\x1b[2J",
        "\x1b]52;c;ZXZpbA==\x07",
        "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
        "\x9b31m",
        "\x07\x08\x08\r",
        "&#27;[2J &#x1b;]0;t&#7; &#x9b;2J &#155;1m &#x202e;abc &#8238; &NewLine;&#13;&#12;&#8;",
        "\u202e\u2066\u2028",
        "[a](http://x/\x1b[2J 'b')",
        "[b](<http://x/&#x202e;>)",
        "`\x1b[1m`",
        "\n```\x1b[2J\n\x1b[2J\n```\n| \x1b | \x9d |\n|--|--|\n",
    ]
)

OURS = re.compile(r"\x1b\[(?:\d+(?:;\d+)*m|\?25[hl]|1A|2K)|\r")
"""What rich sends: colours, the cursor hidden and shown, to the beginning of the row, a row up, a row erased."""


def terminal(columns: int = 80, lines: int = 24) -> tuple[Console, io.StringIO]:
    sent = io.StringIO()
    console = Console(
        file=sent, force_terminal=True, color_system="standard", width=columns, height=lines, theme=view.THEME
    )
    return console, sent


def shown(sent: str, columns: int = 80, lines: int = 24) -> str:
    """All that the terminal shows then, with what has scrolled away."""
    screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=0.5)
    pyte.Stream(screen).feed(sent.replace("\n", "\r\n"))
    above = ["".join(row[column].data for column in range(columns)) for row in screen.history.top]
    return "\n".join(row.rstrip() for row in [*above, *screen.display]).rstrip("\n")


def written(*texts: str, columns: int = 80, lines: int = 24) -> str:
    console, sent = terminal(columns, lines)
    with view.answer(console) as add:
        for text in texts:
            add(text)
    return sent.getvalue()


ANSWER = """# Title

Some *soft*, **strong** `code`, ~~gone~~,
a [link](http://x.example/y) and <b>HTML</b>, List<String>.

1. one
2. two
   - three

```python
def f():
	return "a line of code that is longer than forty columns"
```

| Name | Meaning |
|------|--------:|
| 日本 | a word that is long enough to be wrapped at forty columns |

> said

![picture](http://x.example/p.png)

[1]: http://x.example/1
"""

WIDE = """Title

Some soft, strong code, gone,
a link (http://x.example/y) and <b>HTML</b>, List<String>.

 1 one
 2 two
    • three

def f():
    return "a line of code that is longer than forty columns"

 Name                                                    Meaning
 ───────────────────────────────────────────────────────────────
 日本  a word that is long enough to be wrapped at forty columns

▌ said

!picture (http://x.example/p.png)

[1]: http://x.example/1"""

NARROW = """Title

Some soft, strong code, gone,
a link (http://x.example/y) and
<b>HTML</b>, List<String>.

 1 one
 2 two
    • three

def f():
    return "a line of code that is longe
r than forty columns"

 Name                           Meaning
 ──────────────────────────────────────
 日本  a word that is long enough to be
               wrapped at forty columns

▌ said

!picture (http://x.example/p.png)

[1]: http://x.example/1"""


@pytest.mark.parametrize(("columns", "expected"), [(80, WIDE), (40, NARROW)])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_answer_is_the_same_on_the_screen_however_it_came(
    columns: int, expected: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the screen is lower than the answer, and painted for each text."""
    monkeypatch.setattr(view, "INTERVAL_S", 0.0)
    texts = [ANSWER[start : start + size] for start in range(0, len(ANSWER), size)]

    for lines in (24, 8):
        assert shown(written(*texts, columns=columns, lines=lines), columns, lines) == expected


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize("columns", [40, 80])
def test_e14_no_command_of_a_model_reaches_the_terminal(
    size: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "INTERVAL_S", 0.0)
    sent = written(*[HOSTILE[start : start + size] for start in range(0, len(HOSTILE), size)], columns=columns)

    rest = OURS.sub("", sent)
    assert [sign for sign in rest if sign != "\n" and (ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0)] == []
    assert re.search("[\u202a-\u202e\u2066-\u2069]", rest) is None
    assert "click" in rest


SIGNS = st.lists(
    st.sampled_from(
        [
            "# ",
            "- ",
            "1. ",
            "  ",
            "```\n",
            "> ",
            "| a | b |\n|---|---|\n",
            "| c |",
            "---\n",
            "**",
            "*",
            "`",
            "~~",
            "__",
            "word ",
            "\n",
            "\n\n",
            "[",
            "](u)",
            "<b>",
            "&#27;",
            "&#x9b;",
            "&#x202e;",
            "\\",
            "\x1b[",
            "日本",
            "é",
            "\u200d",
        ]
    ),
    max_size=40,
).map("".join)


@given(SIGNS | st.text(max_size=60), st.integers(1, 60))
def test_e14_any_text_is_shown_without_commands_at_any_width(text: str, columns: int) -> None:
    sent = written(text, columns=columns)

    rest = OURS.sub("", sent)
    assert [sign for sign in rest if sign != "\n" and (ord(sign) < 0x20 or 0x7F <= ord(sign) < 0xA0)] == []


def test_finished_blocks_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "INTERVAL_S", 0.0)
    sent = written(*(text for place in range(100, 150) for text in (f"word{place}", " and", " more", "\n\n")))

    assert {sent.count(f"word{place}") for place in range(100, 150)} == {3}  # with each text of its own block


def test_a_row_that_did_not_change_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "INTERVAL_S", 0.0)
    sent = written(*["first " + "x" * 70 + "\n", *["word "] * 200])

    assert sent.count("first") == 1


def test_ctrl_c_before_a_row_is_written_takes_no_row_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "INTERVAL_S", 0.0)
    console, sent = terminal(columns=20)

    def interrupted(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    def show() -> None:
        with view.answer(console) as add:
            for word in ("one two ", "three ", "four "):
                add(word)
            monkeypatch.setattr(console, "print", interrupted)
            add("five six seven ")

    with pytest.raises(KeyboardInterrupt):
        show()

    assert shown(sent.getvalue(), columns=20).split() == ["one", "two", "three", "four", "five", "six", "seven"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["word ", "word\n", "word\n\n", "- word\n", "`word` ", "| word | word |\n"])
def test_a_long_reply_is_painted_seldom(text: str) -> None:
    """As often as the clock says, and once at its end: not once for each text."""
    console, _ = terminal()
    count = 20_000 // len(text)
    screen = view.Screen(console)
    screen.add("| a | b |\n|---|---|\n" if "|" in text else "")
    for _ in range(count):
        screen.add(text)
    screen.close()

    assert screen.paints < count / 20


def test_a_text_that_comes_early_is_shown_when_no_other_comes() -> None:
    console, sent = terminal()
    screen = view.Screen(console)
    screen.add("first ")
    screen.add("second")
    timer = screen._timer
    assert timer is not None
    timer.join()

    assert "second" in sent.getvalue()
    screen.close()


class Gone(io.StringIO):
    """A terminal that has been closed."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_has_gone_is_told() -> None:
    console = Console(file=Gone(), force_terminal=True, width=80, height=24)

    with pytest.raises(OSError, match="Input/output"), view.answer(console) as add:
        add("text")


@pytest.mark.parametrize(
    ("texts", "expected"), [(("a", "b\n"), "ab\n"), (("a", ""), "a\n"), ((), ""), (("\x1b[1m*a*",), "[1m*a*\n")]
)
def test_plain_text_is_as_it_was_written(
    texts: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with view.answer(None) as add:
        for text in texts:
            add(text)

    assert capsys.readouterr().out == expected


def test_the_last_exchange_is_shown_with_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    view.exchange(
        None,
        [
            Turn(role="user", text="one", created_s=1),
            Turn(role="assistant", text="1", created_s=2, verdict="complete"),
            Turn(role="user", text="two\nlines\x1b[2J", created_s=3),
            Turn(role="assistant", text="half", created_s=4, verdict="interrupted"),
        ],
    )

    out, err = capsys.readouterr()
    assert out == "> two\n  lines[2J\nhalf\n"
    assert err == "[interrupted here]\n"
