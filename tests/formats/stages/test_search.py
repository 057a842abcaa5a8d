"""formats/stages/search.py: where a find ends and what comes after it; that finds are right, test_stop.py shows."""

from __future__ import annotations

from flowgpt.formats.stages.search import Search


def test_a_search_begins_anew_after_a_find_and_says_where() -> None:
    search = Search(["<a>", "</a>"])

    assert search.feed("x<a>y</a>z<") == (["x"], "<a>", 4)
    assert search.feed("x<a>y</a>z<", 4) == (["y"], "</a>", 9)
    assert search.feed("x<a>y</a>z<", 9) == (["z"], None, 11)
    assert search.rest() == ["<"]
    assert search.feed("a>") == (["a>"], None, 2)
