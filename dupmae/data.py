"""Reading training rows by number: `{"query", "text", "title"?, "negatives"?, "scores"?}` a line.

Files are JSON lines, plain or compressed (`.gz`, `.xz`); compressed ones are unpacked once beside
the run. Rows are read from a memory map when they are needed, so a file may exceed the memory.
"""

from __future__ import annotations

import gzip
import json
import lzma
import mmap
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from dupmae.errors import DataError


@dataclass(frozen=True)
class Row:
    """One query with its relevant text and, where given, hard negatives and teacher scores."""

    query: str
    text: str
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    """A teacher's scores of the text, then of each negative; empty if there are none."""


class RowFile:
    """The rows of one file, read by number."""

    def __init__(self, path: Path, unpacked: Path) -> None:
        """Open `path`, unpacking it into the folder `unpacked` if it is compressed."""
        self.path = path
        plain = _unpack(path, unpacked)
        if plain.stat().st_size == 0:
            raise DataError(f"{path} is empty; expected one JSON object a line")
        with plain.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        ends = np.flatnonzero(np.frombuffer(self._bytes, dtype=np.uint8) == ord("\n")) + 1
        if len(ends) == 0 or ends[-1] != len(self._bytes):
            ends = np.append(ends, len(self._bytes))
        self._offsets = np.concatenate([[0], ends])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Row:
        line = self._bytes[self._offsets[index] : self._offsets[index + 1]]
        return parse_row(line, f"{self.path}, line {index + 1}")


def parse_row(line: bytes, where: str) -> Row:
    """Turn one JSON line into a row; DataError names `where`."""
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(record).__name__}")
    for key in ("query", "text"):
        if not isinstance(record.get(key), str):
            raise DataError(f'{where}: expected a string "{key}", found {record.get(key)!r}')
    negatives = tuple(_content(negative, where) for negative in record.get("negatives", ()))
    scores = tuple(float(score) for score in record.get("scores", ()))
    if scores and len(scores) != 1 + len(negatives):
        raise DataError(
            f"{where}: {len(scores)} scores, expected one for the text and each of its "
            f"{len(negatives)} negatives"
        )
    return Row(record["query"], _content(record, where), negatives, scores)


def cut_span(row: Row, generator: torch.Generator, shortest: int = 3) -> Row:
    """Make a query of a random span of the row's text, and a document of what is left.

    Spans are 3 words to half the text, short ones more often. Source: the inverse cloze task,
    Lee, Chang, Toutanova (ACL 2019), with spans of words in the place of sentences.
    """
    words = row.text.split()
    longest = len(words) // 2
    if longest < shortest:
        return row
    ratio, place = torch.rand(2, generator=generator).tolist()
    length = int(shortest * (longest / shortest) ** ratio)
    start = int(place * (len(words) - length))
    rest = words[:start] + words[start + length :]
    return replace(row, query=" ".join(words[start : start + length]), text=" ".join(rest))


def draw_rows(
    file: RowFile, limit: int, count: int, block: int, generator: torch.Generator
) -> list[Row]:
    """Draw `count` rows of the first `limit`, in random blocks of consecutive ones.

    Rows that stand together (paragraphs of an article, papers of a field) are each other's hard
    negatives in the batch. Blocks are drawn with replacement, so that the rows depend on nothing
    but the generator.
    """
    block = min(block, limit)
    starts = torch.randint(0, limit - block + 1, (-(-count // block),), generator=generator)
    numbers = [start + offset for start in starts.tolist() for offset in range(block)]
    return [file[number] for number in numbers[:count]]


def _content(record: Any, where: str) -> str:
    if isinstance(record, str):
        return record
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError(f'{where}: a negative is a string or an object with "text"')
    return f"{record.get('title') or ''} {record['text']}".strip()


def _unpack(path: Path, folder: Path) -> Path:
    openers: dict[str, Callable[[Path, str], IO[bytes]]] = {".gz": gzip.open, ".xz": lzma.open}
    if not path.is_file():
        raise DataError(f"there is no training file {path}")
    if path.suffix not in openers:
        return path
    plain = folder / path.with_suffix("").name
    if not plain.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = plain.with_suffix(".part")
        try:
            with openers[path.suffix](path, "rb") as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from error
        part.replace(plain)
    return plain
