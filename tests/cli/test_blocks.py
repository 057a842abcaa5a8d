"""Where Markdown is cut: the same blocks for every split, nothing lost, and nothing kept back without a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgpt.cli.blocks import LIMIT_BLOCK, Block, Blocks


def cut(*texts: str) -> list[Block]:
    blocks = Blocks()
    return [block for text in texts for block in blocks.feed(text)] + blocks.end()


LONG = """# Title
First paragraph
of two lines.

- one
- two

  goes on
  ```
  - no item

  ```
- three

1. a
2. b
```python
x = 1

y = "```"
```
| a | b |
|---|---|
| 1 | 2 |

~~~
```
~~~
End"""

BLOCKS = [
    Block("# Title"),
    Block("First paragraph\nof two lines."),
    Block("- one", None, True),
    Block("- two\n\n  goes on\n  ```\n  - no item\n\n  ```"),
    Block("- three"),
    Block("1. a", None, True),
    Block("2. b"),
    Block('x = 1\n\ny = "```"', "python"),
    Block("| a | b |\n|---|---|\n| 1 | 2 |"),
    Block("```", "", True),
    Block("End"),
]


def test_a_text_is_cut_where_nothing_later_changes_it() -> None:
    assert cut(LONG) == BLOCKS


def test_every_cut_of_the_texts_gives_the_same_blocks() -> None:
    assert cut(*LONG) == BLOCKS
    for offset in range(len(LONG)):
        assert cut(LONG[:offset], LONG[offset:]) == BLOCKS


def test_what_is_finished_and_what_is_not_are_the_whole() -> None:
    blocks = Blocks()
    done = []
    for offset, character in enumerate(LONG[:-1]):
        done += blocks.feed(character)
        shown = "\n".join(block.text for block in [*done, blocks.rest])
        assert letters(shown) == letters(LONG[: offset + 1])


def letters(text: str) -> str:
    """The text without what is no word; the fences' own words stand in no block."""
    return "".join(character for character in text.replace("python", "") if character.isalnum()).removesuffix("pytho")


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "# ",
            "- ",
            "1. ",
            "2) ",
            "  ",
            "    ",
            "```",
            "```py",
            "~~~",
            "> ",
            "| a | b |",
            "|---|---|",
            "---",
            "**",
            "`",
            "word",
            "x y",
            "\n",
            "\n",
            "\n",
            "\n\n",
            "日本",
            "[a](b)",
            "<b>",
            "&amp;",
            "\t",
            "\\",
        ]
    ),
    max_size=40,
).map("".join)


@given(MARKDOWN, st.data())
def test_any_text_gives_the_same_blocks_however_it_is_split(text: str, data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    texts = [text[start:end] for start, end in zip([0, *offsets], [*offsets, len(text)], strict=True)]

    assert cut(*texts) == cut(text)
    if "```" not in text and "~~~" not in text:  # whose info words are not shown
        kept = "".join(block.text for block in cut(text))
        assert [sign for sign in kept if not sign.isspace()] == [sign for sign in text if not sign.isspace()]


@pytest.mark.parametrize("text", ["x" * 100_000, "word " * 20_000, "x\n" * 50_000, "```\n" + "x = 1\n" * 20_000])
def test_what_is_not_finished_is_bounded(text: str) -> None:
    blocks = Blocks()
    done: list[Block] = []
    for start in range(0, len(text), 997):
        done += blocks.feed(text[start : start + 997])
        assert len(blocks.rest.text) <= 2 * LIMIT_BLOCK
    done += blocks.end()

    assert max(len(block.text) for block in done) <= LIMIT_BLOCK + 1
    assert sum(block.text.count("x") + block.text.count("word") for block in done) == text.count("x") + text.count(
        "word"
    )


def test_a_table_that_is_cut_has_its_head_again() -> None:
    head = "| a | b |\n|---|---|\n"
    table = cut(head + "| 1 | 2 |\n" * 2000)

    assert len(table) > 1
    assert all(block.text.startswith(head) for block in table)
    assert sum(block.text.count("| 1 | 2 |") for block in table) == 2000
