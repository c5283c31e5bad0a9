"""Reading training rows by number: `{"query", "text", "title"?, "negatives"?, "scores"?}` a line.

Files are JSON lines, plain or compressed (`.gz`, `.xz`); compressed ones are unpacked once beside
the run. Rows are read from a memory map when they are needed, so a file may exceed the memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import math
import mmap
import shutil
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import numpy as np
import torch

from dupmae.errors import DataError
from dupmae.files import replacing
from dupmae.types import Int64

_SCANNED_AT_ONCE = 1 << 26
"""Bytes searched for line ends at a time; the search needs as much memory again."""


@dataclass(frozen=True)
class Row:
    """One query with its relevant text and, where given, hard negatives and teacher scores."""

    query: str
    text: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    """A teacher's scores of the text, then of each negative; empty if there are none."""
    uncut_text: str = ""
    """The text before a span was cut out of it; empty if none was."""

    @property
    def source(self) -> str:
        """What tells documents apart: two rows may have different spans of one text cut out."""
        return self.uncut_text or self.text


class RowFile:
    """The rows of one file, read by number."""

    def __init__(self, path: Path, unpacked: Path) -> None:
        """Open `path`, unpacking it into the folder `unpacked` if it is compressed."""
        self.path = path
        self._bytes = _map(_unpack(path, unpacked))
        self.name = _own_name(path)
        bounds = _line_bounds(self._bytes)
        self._lines = _rows_of(self._bytes, bounds)
        self._starts, self._ends = bounds[self._lines], bounds[self._lines + 1]
        if len(self._lines) == 0:
            raise DataError(f"{path} is empty; expected one JSON object a line")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Row:
        line = self._bytes[self._starts[index] : self._ends[index]]
        return parse_row(line, f"{self.path}, line {self._lines[index] + 1}")


def parse_row(line: bytes, where: str) -> Row:
    """Turn one JSON line into a row; DataError names `where`."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(record).__name__}")
    if not isinstance(record.get("query"), str):
        raise DataError(
            f'{where}: expected a string "query", found {short_repr(record.get("query"))}'
        )
    negatives = tuple(_content(negative, where) for negative in _list(record, "negatives", where))
    scores = tuple(_score(score, where) for score in _list(record, "scores", where))
    if scores and len(scores) != 1 + len(negatives):
        raise DataError(
            f"{where}: {len(scores)} scores, expected one for the text and each of its "
            f"{len(negatives)} negatives"
        )
    row = Row(record["query"], _content(record, where), negatives, scores)
    try:
        "".join((row.query, row.text, *negatives)).encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: holds half of a surrogate pair, which no text may") from None
    return row


def cut_span(row: Row, generator: torch.Generator, shortest: int = 3) -> Row:
    """Make a query of a random span of the row's text, and a document of what is left.

    Spans are `shortest` words to half the text, short ones more often; the last word always stays.
    A text without room for that is left alone. Negatives are kept; a teacher's scores, which were
    of the old query, are not. Source: the inverse cloze task, Lee, Chang, Toutanova (ACL 2019),
    with spans of words in the place of sentences.
    """
    words = row.text.split()
    longest = len(words) // 2
    if longest < shortest:
        return row
    ratio, place = torch.rand(2, generator=generator).tolist()
    length = int(shortest * (longest / shortest) ** ratio)
    start = int(place * (len(words) - length))
    rest = words[:start] + words[start + length :]
    return replace(
        row,
        query=" ".join(words[start : start + length]),
        text=" ".join(rest),
        scores=(),
        uncut_text=row.text,
    )


def draw_rows(
    file: RowFile, order: Int64, count: int, block: int, generator: torch.Generator
) -> list[Row]:
    """Draw `count` rows in random blocks of ones that stand together in `order`.

    Rows that stand together (paragraphs of an article, papers of a field) are each other's hard
    negatives in the batch. Blocks are drawn with replacement, so that the rows depend on nothing
    but the generator.

    Args:
        file: the rows.
        order: numbers of the rows that may be drawn.
        count: rows wanted.
        block: rows of a block.
        generator: the only source of chance.
    """
    block = min(block, len(order))
    starts = torch.randint(0, len(order) - block + 1, (-(-count // block),), generator=generator)
    places = [start + offset for start in starts.tolist() for offset in range(block)]
    return [file[int(order[place])] for place in places[:count]]


def _list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    value = record.get(key)
    if value is not None and not isinstance(value, list):
        raise DataError(f'{where}: "{key}" must be a list, found {short_repr(value)}')
    return value or []


def _score(value: Any, where: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise DataError(f"{where}: a score must be a finite number, found {short_repr(value)}")
    return float(value)


def _content(record: Any, where: str) -> str:
    """Join title and text of a row or a negative; a negative may be its text alone."""
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        raise DataError(
            f'{where}: a negative must be a string or an object with "text", '
            f"found {short_repr(record)}"
        )
    title, text = record.get("title"), record.get("text")
    if not isinstance(text, str):
        raise DataError(f'{where}: expected a string "text", found {short_repr(text)}')
    if not isinstance(title, str | None):
        raise DataError(f'{where}: "title" must be a string, found {short_repr(title)}')
    return f"{title or ''} {text}".strip()


def _map(path: Path) -> mmap.mmap | bytes:
    if path.stat().st_size == 0:
        return b""  # which no system maps
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _line_bounds(content: mmap.mmap | bytes) -> Int64:
    """Return where each line starts, and where the last one ends."""
    pieces = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(content), _SCANNED_AT_ONCE):
        count = min(_SCANNED_AT_ONCE, len(content) - start)
        scanned = np.frombuffer(content, dtype=np.uint8, count=count, offset=start)
        pieces.append(np.flatnonzero(scanned == ord("\n")) + start + 1)
    bounds = np.concatenate(pieces)
    return bounds if bounds[-1] == len(content) else np.append(bounds, len(content))


def _rows_of(content: mmap.mmap | bytes, bounds: Int64) -> Int64:
    """Return the numbers of the lines that are not blank."""
    lengths = np.diff(bounds)
    blank = [
        line
        for line in np.flatnonzero(lengths <= len("\r\n"))
        if not content[bounds[line] : bounds[line + 1]].strip()
    ]
    rows: Int64 = np.delete(np.arange(len(lengths)), blank)
    return rows


def _own_name(path: Path) -> str:
    """Tell files of one name in two folders apart, and a changed file from what it was."""
    state = path.stat()
    identity = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return f"{path.with_suffix('').stem}-{digest}"


def _unpack(path: Path, folder: Path) -> Path:
    """Return `path`, or its unpacked copy in `folder`."""
    if not path.is_file():
        raise DataError(f"there is no training file {path}")
    if path.suffix not in (".gz", ".xz"):
        return path
    plain = folder / f"{_own_name(path)}.jsonl"
    if not plain.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with _decompressed(path) as source, replacing(plain) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise DataError(f"{path} cannot be unpacked into {folder}: {error}") from None
    return plain


def _decompressed(path: Path) -> gzip.GzipFile | lzma.LZMAFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else lzma.open(path, "rb")
