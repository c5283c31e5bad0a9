from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from dupmae.errors import DataError
from dupmae.inputs import LONGEST_TEXT
from dupmae.texts import read_texts


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_gives_title_and_text_joined_by_one_space(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"title": "Fish", "text": "swim"}\n\n{"text": "Birds fly"}\n{"title": null, "text": "x"}',
    )
    assert list(read_texts(path)) == ["Fish swim", "Birds fly", "x"]


def test_in_plain_text_an_empty_line_ends_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n two \n\n\n \nthree\n")
    assert list(read_texts(path)) == ["one two", "three"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffone\r\n\r\ntwo\r\n")
    assert list(read_texts(path)) == ["one", "two"]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, suffix: str, compress) -> None:
    line = b'{"text": "one"}\n'
    path = write(tmp_path / f"a.jsonl{suffix}", compress(line))
    assert list(read_texts(path)) == ["one"]
    path = write(tmp_path / f"a.txt{suffix}", compress(b"one\n\ntwo"))
    assert list(read_texts(path)) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"a\.jsonl, line 2: not JSON"),
        ("[]", r"line 2: expected a JSON object, found list"),
        ('{"title": "x"}', r'line 2: expected a string "text", found NoneType'),
        ('{"text": 3}', r'line 2: expected a string "text", found int'),
        ('{"text": "x", "title": [1]}', r'line 2: expected a string "title", found list'),
        ('{"text": "\\ud800"}', r"line 2: the text is not Unicode"),
        (b"\xff", r"line 2: not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line)
    with pytest.raises(DataError, match=message):
        list(read_texts(path))


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_cut_compressed_file_is_an_error(tmp_path: Path, suffix: str, compress) -> None:
    whole = compress(b"word " * 1000)
    path = write(tmp_path / f"a.txt{suffix}", whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read after line"):
        list(read_texts(path))


@pytest.mark.parametrize("name", ["missing.jsonl", ".", "a.csv", "a.csv.gz"])
def test_what_is_no_text_file_is_refused_before_reading(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.csv.gz").touch()
    with pytest.raises(DataError, match=r"there is no text file|must be \.jsonl or \.txt"):
        read_texts(tmp_path / name)


def test_paragraphs_without_an_end_are_given_in_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "word word\n" * (LONGEST_TEXT // 3))
    texts = list(read_texts(path))
    assert len(texts) == 3
    assert sum(text.count("word") for text in texts) == 2 * (LONGEST_TEXT // 3)
