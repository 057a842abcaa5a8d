"""Fenced blocks: the rules of CommonMark, and that a text in a fence comes out of it as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.formats.fences import fenced, first_block

LINES = ["```", "````", "~~~", "~~~~~", "  ```", "    ```", "```x", "``` `", "``", "a", "  a", ""]
MARKDOWN = st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(["\n", "\r\n", "\r", " \n"])), max_size=8).map(
    lambda lines: "".join(line + end for line, end in lines)
)


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("", None),
        ("no block\n", None),
        ("Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```\na\n```\n```\nb\n```\n", "a\n"),
        ("~~~ text ` with backtick\na\n~~~\n", "a\n"),
        ("``` a`b\nx\n```\ny\n", "y\n"),
        ("`````\n```\na\n````\n`````\n", "```\na\n````\n"),
        ("```\na\n``````\t \nb", "a\n"),
        ("```\na\n~~~\nb\n```\n", "a\n~~~\nb\n"),
        ("```\na\n``` x\nb\n```", "a\n``` x\nb\n"),
        ("```\nnot closed\n", "not closed\n"),
        ("```sh\nnot closed, no line end", "not closed, no line end"),
        ("```", ""),
        ("```\n```", ""),
        ("   ```\n   a\n     b\n c\n  ```\n", "a\n  b\nc\n"),
        ("    ```\na\n", None),
        ("\t```\na\n", None),
        ("```\na\n    ```\nb", "a\n    ```\nb"),
        ("``\na\n``\n", None),
        ("text ```\na\n```", ""),
        ("```\r\na\r\n```\r\nb", "a\r\n"),
        ("```\ra\r```\rb", "a\r"),
        ("```\na\u2028```\n\u0085```\n```", "a\u2028```\n\u0085```\n"),
        ("\n\n```\n\n\na\n\n```", "\n\na\n\n"),
    ],
)
def test_the_first_block_is_what_commonmark_says(text: str, block: str | None) -> None:
    assert first_block(text) == block


@given(MARKDOWN | st.text(max_size=200), st.sampled_from(["", "notes.txt", "a b ~~~"]))
def test_a_text_in_a_fence_comes_out_as_it_went_in(text: str, info: str) -> None:
    whole = text + "\n" * (not text.endswith("\n") and text != "")

    assert first_block(fenced(text, info)) == whole
    assert first_block(fenced(text, info) + "\n" + fenced("other", "x")) == whole
    assert first_block("Before.\n\n" + fenced(text, info) + "\n\nAfter.") == whole


@given(MARKDOWN, MARKDOWN)
def test_nothing_after_the_closing_fence_changes_the_block(before: str, after: str) -> None:
    block = first_block(before)
    closed = block is not None and first_block(before + "\nx") == block

    assert not closed or first_block(before + "\n" + after) == block


@given(MARKDOWN)
def test_a_block_is_made_of_the_lines_of_the_text(text: str) -> None:
    assert (first_block(text) or "").replace(" ", "") in text.replace(" ", "")
