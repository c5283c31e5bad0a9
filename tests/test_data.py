"""Rows are read by number from any file, mistakes are named, and draws keep neighbours together."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dupmae import data
from dupmae.data import Row, RowFile, cut_span, draw_rows, parse_row
from dupmae.errors import DataError

LINES = [json.dumps({"query": f"q{number}", "text": f"t{number} é"}) for number in range(5)]
ROWS = [Row(f"q{number}", f"t{number} é") for number in range(5)]


def rows_of(tmp_path: Path, content: bytes, name: str = "rows.jsonl") -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content)
    file = RowFile(path, tmp_path / "unpacked")
    return [file[number] for number in range(len(file))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("last_newline", [True, False])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_line_is_a_row(tmp_path: Path, newline: str, last_newline: bool) -> None:
    content = newline.join(LINES) + newline * last_newline
    assert rows_of(tmp_path, content.encode()) == ROWS


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "\n".join(LINES).encode("utf-8-sig")) == ROWS


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    content = "\n\r\n".join([*LINES, "x", ""])
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.encode())
    file = RowFile(path, tmp_path)
    assert [file[number] for number in range(5)] == ROWS
    assert len(file) == 6
    with pytest.raises(DataError, match="line 11: not JSON"):
        file[5]


def test_lines_are_found_across_the_pieces_of_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "\n".join(LINES).encode()
    for piece in range(1, len(content) + 1, 7):
        monkeypatch.setattr(data, "_SCANNED_AT_ONCE", piece)
        assert rows_of(tmp_path, content) == ROWS


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed_files_are_unpacked_once(tmp_path: Path, suffix: str, compress) -> None:
    content = compress("\n".join(LINES).encode())
    assert rows_of(tmp_path, content, f"rows.jsonl.{suffix}") == ROWS
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    written = unpacked.stat().st_mtime_ns
    assert len(RowFile(tmp_path / f"rows.jsonl.{suffix}", tmp_path / "unpacked")) == 5
    assert unpacked.stat().st_mtime_ns == written


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    files = []
    for folder, line in (("a", LINES[0]), ("b", LINES[1])):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "rows.jsonl.gz"
        path.write_bytes(gzip.compress(line.encode()))
        files.append(RowFile(path, tmp_path / "unpacked"))
    assert [file[0] for file in files] == ROWS[:2]
    assert files[0].name != files[1].name


def test_plain_files_of_one_name_in_two_folders_have_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(LINES[0])
    names = [RowFile(tmp_path / folder / "rows.jsonl", tmp_path).name for folder in "aba"]
    assert names[0] == names[2] != names[1]


def test_a_changed_file_is_unpacked_again(tmp_path: Path) -> None:
    assert rows_of(tmp_path, gzip.compress(LINES[0].encode()), "rows.jsonl.gz") == ROWS[:1]
    changed = gzip.compress("\n".join(LINES[1:3]).encode())
    assert rows_of(tmp_path, changed, "rows.jsonl.gz") == ROWS[1:3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:-12]),
        ("rows.jsonl.gz", b"no gzip at all"),
        ("rows.jsonl.gz", gzip.compress(b"a b c d e f g", mtime=0)[:10] + b"\xff" * 20),
        ("rows.jsonl.xz", lzma.compress(b"x" * 1000)[:-12]),
        ("rows.jsonl.xz", b"no xz at all"),
    ],
)
def test_a_damaged_file_is_named_and_leaves_nothing(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl\..z cannot be unpacked into .*unpacked: "):
        rows_of(tmp_path, content, name)
    assert list((tmp_path / "unpacked").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl is empty; expected one JSON object a line"):
        rows_of(tmp_path, content)


def test_a_missing_file_or_folder_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(DataError, match=f"there is no training file {path}"):
            RowFile(path, tmp_path)


def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{LINES[0]}\n{{}}\n{LINES[1]}\n")
    file = RowFile(path, tmp_path)
    assert file[2] == ROWS[1]
    with pytest.raises(
        DataError, match=rf"{path}, line 2: expected a string \"query\", found None"
    ):
        file[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "here: not JSON"),
        (b"\xff\xfe{}", "here: not JSON"),
        (b"[" * 100_000, "here: not JSON"),
        (b"[1]", "here: expected a JSON object, found list"),
        (b'{"text": "t"}', 'expected a string "query", found None'),
        (b'{"query": 3, "text": "t"}', 'expected a string "query", found 3'),
        (b'{"query": "q"}', 'expected a string "text", found None'),
        (b'{"query": "q", "text": null}', 'expected a string "text", found None'),
        (b'{"query": "q", "text": "t", "title": 7}', '"title" must be a string, found 7'),
        (
            b'{"query": "q", "text": "t", "negatives": "n"}',
            "\"negatives\" must be a list, found 'n'",
        ),
        (b'{"query": "q", "text": "t", "negatives": [3]}', "a negative must be .* found 3"),
        (b'{"query": "q", "text": "t", "negatives": [{}]}', 'expected a string "text", found None'),
        (b'{"query": "q", "text": "t", "scores": 1}', '"scores" must be a list, found 1'),
        (b'{"query": "q", "text": "t", "scores": ["1"]}', "must be a finite number, found '1'"),
        (b'{"query": "q", "text": "t", "scores": [true]}', "must be a finite number, found True"),
        (b'{"query": "q", "text": "t", "scores": [NaN]}', "must be a finite number, found nan"),
        (b'{"query": "q", "text": "t", "scores": [1, 2]}', "2 scores, expected .* its 0 negatives"),
        (b'{"query": "\\ud800", "text": "t"}', "holds half of a surrogate pair"),
    ],
)
def test_a_row_that_is_none_says_why(line: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_row(line, "here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_a_huge_wrong_value_does_not_flood_the_message() -> None:
    line = json.dumps({"query": ["x" * 1000] * 1000, "text": "t"}).encode()
    with pytest.raises(DataError) as caught:
        parse_row(line, "here")
    assert len(str(caught.value)) < 300


def test_titles_negatives_and_scores_are_read() -> None:
    record = {
        "query": "q",
        "title": "Head",
        "text": "body",
        "negatives": ["plain", {"title": "T", "text": "n"}, {"title": None, "text": "m"}],
        "scores": [4, 1.5, -2, 0],
        "other": 1,
    }
    assert parse_row(json.dumps(record).encode(), "here") == Row(
        "q", "Head body", ("plain", "T n", "m"), (4.0, 1.5, -2.0, 0.0)
    )


words = st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), max_size=40)


@given(words, st.integers(0, 2**31), st.integers(1, 5))
def test_a_span_and_the_rest_make_up_the_text(
    text: Sequence[str], seed: int, shortest: int
) -> None:
    row = Row("q", " ".join(text), ("n",), (1.0, 2.0))
    cut = cut_span(row, generator(seed), shortest)
    if len(text) // 2 < shortest:
        assert cut == row
        return
    span, rest = cut.query.split(), cut.text.split()
    assert shortest <= len(span) <= len(text) // 2
    assert any(
        [*rest[:start], *span, *rest[start:]] == list(text) for start in range(len(rest) + 1)
    )
    assert (cut.source, cut.negatives, cut.scores) == (row.text, ("n",), ())


def test_short_spans_are_cut_more_often() -> None:
    row, chance = Row("q", "a " * 200), generator()
    lengths = [len(cut_span(row, chance).query.split()) for _ in range(2000)]
    # Log-uniform over 3 to 100: half of them are shorter than √300 ≈ 17.
    assert 0.45 < sum(length <= 17 for length in lengths) / 2000 < 0.55
    assert min(lengths) == 3
    assert max(lengths) > 90


class Numbers:
    """Stands for a RowFile whose rows are their own numbers."""

    def __getitem__(self, number: int) -> int:
        return number


orders = st.lists(st.integers(0, 99), min_size=1, max_size=50, unique=True)


@given(orders, st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_blocks_are_runs_of_the_order(order: list[int], count: int, block: int, seed: int) -> None:
    rows = draw_rows(Numbers(), np.array(order), count, block, generator(seed))  # type: ignore[arg-type]
    assert len(rows) == count
    size = min(block, len(order))
    for start in range(0, count, size):
        drawn = rows[start : start + size]
        place = order.index(drawn[0])
        assert drawn == order[place : place + len(drawn)]


def test_every_row_of_the_order_is_drawn_sooner_or_later() -> None:
    order = np.arange(10)[::-1]
    rows = draw_rows(Numbers(), order, 4000, 4, generator())  # type: ignore[arg-type]
    assert set(rows) == set(range(10))
