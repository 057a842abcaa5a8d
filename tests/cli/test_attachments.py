"""Attachments: texts come through as they are and can be told apart; all else is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowgpt.cli import attachments
from flowgpt.errors import InvalidRequestError
from flowgpt.formats.fences import first_block


def test_each_file_is_in_a_fence_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffGrüße", "utf-8")
    (tmp_path / "b.md").write_text("See:\n````\ncode\n````\n")

    first, second = attachments.texts([str(tmp_path / "a.txt"), str(tmp_path / "b.md")])

    assert first == "```a.txt\nGrüße\n```"
    assert second == "`````b.md\nSee:\n````\ncode\n````\n`````"
    assert first_block(second) == "See:\n````\ncode\n````\n"


def test_files_of_one_name_are_told_apart_by_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(folder)
    (tmp_path / "y.py").write_text("")

    assert attachments.texts(["old/x.py", "new/x.py", "./y.py"]) == [
        "```old/x.py\nold\n```",
        "```new/x.py\nnew\n```",
        "```y.py\n```",
    ]


def test_e14_no_name_breaks_out_of_its_line(tmp_path: Path) -> None:
    name = "a`\n```\n\x1b[31mb‮c.txt"
    (tmp_path / name).write_text("text")

    assert attachments.texts([str(tmp_path / name)]) == ["```a' ''' [31mbc.txt\ntext\n```"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n....", "is an image (PNG): only files of text"),
        (b"\xff\xd8\xff\xe0", "is an image (JPEG)"),
        (b"GIF89a", "is an image (GIF)"),
        (b"RIFF1234WEBP", "is an image or a sound"),
        (b"%PDF-1.7 text", "is a PDF"),
        (b"PK\x03\x04", "is a ZIP archive, as office documents are"),
        (b"\x1f\x8b\x08", "is a gzip archive"),
        (b"SQLite format 3\0", "is a database"),
        ("text".encode("utf-16"), "is UTF-16, not UTF-8"),
        (b"\x7fELF\0\0", "is binary"),
        (b"text\0", "is binary"),
        (b"Gr\xfc\xdfe", "is not UTF-8, at byte 2"),
        (b"a" * (attachments.LIMIT_BYTES + 1), "is too large: all attachments together may have 4,194,304 bytes"),
    ],
)
def test_what_is_no_text_is_refused_by_name_and_kind(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)

    with pytest.raises(InvalidRequestError) as caught:
        attachments.texts([str(file)])
    assert str(caught.value).startswith(f"{file} {words}")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    for name, words in {
        ".": "is a directory",
        "pipe": "is no ordinary file",
        "missing": "cannot be read: No such file",
        "circle": "cannot be read: ",
        "a\0b": "cannot be read: ",
    }.items():
        with pytest.raises(InvalidRequestError, match=words):
            attachments.texts([f"{tmp_path}/{name}"])
    with pytest.raises(InvalidRequestError, match="piped in is part of the question by itself"):
        attachments.texts(["-"])


def test_the_limit_is_that_of_all_together(tmp_path: Path) -> None:
    (tmp_path / "half").write_bytes(b"a" * (attachments.LIMIT_BYTES // 2))
    (tmp_path / "one").write_bytes(b"a")
    half, one = str(tmp_path / "half"), str(tmp_path / "one")

    assert len(attachments.texts([half, half])) == 2
    with pytest.raises(InvalidRequestError, match=f"{one} is too large") as caught:
        attachments.texts([half, half, one])
    assert caught.value.code == "payload_too_large"
