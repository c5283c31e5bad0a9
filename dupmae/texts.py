"""Reading plain text for pre-training, one text at a time.

`.jsonl` holds an object with "text" and, if there is one, "title" a line; in `.txt` an empty line
ends a text. Both may be compressed (`.gz`, `.xz`).

Left out: rows of queries and texts for fine-tuning (`data.py`).
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dupmae.errors import DataError
from dupmae.inputs import LONGEST_TEXT

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def read_texts(path: Path) -> Iterator[str]:
    """Yield a file's texts in order.

    Raises:
        DataError: a line is not what the file's name promises; it is named.
    """
    check_text_file(path)
    lines = _read_lines(path)
    return _records(lines, path) if _kind(path) == ".jsonl" else _paragraphs(lines)


def check_text_file(path: Path) -> None:
    """Raise DataError unless the file is there and its name says what it holds."""
    if not path.is_file():
        raise DataError(f"there is no text file {path}")
    if _kind(path) not in (".jsonl", ".txt"):
        raise DataError(f"{path} must be .jsonl or .txt, plain or with .gz or .xz added")


def _kind(path: Path) -> str:
    """Return `.jsonl` or `.txt`, whatever the compression."""
    return Path(path.stem).suffix if path.suffix in _OPENERS else path.suffix


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) without line ends; the first loses its byte order mark."""
    number = 0
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            for line in file:
                number += 1
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be read after line {number}: {error}") from error


def _records(lines: Iterable[tuple[int, str]], path: Path) -> Iterator[str]:
    for number, line in lines:
        if line.strip():
            yield _content(line, f"{path}, line {number}")


def _content(line: str, where: str) -> str:
    """Return title and text of a JSON line, joined by one space."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(record).__name__}")
    title, text = record.get("title") or "", record.get("text")
    for key, value in (("title", title), ("text", text)):
        if not isinstance(value, str):
            raise DataError(f'{where}: expected a string "{key}", found {type(value).__name__}')
    content = f"{title} {text}".strip()
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: the text is not Unicode ({error.reason})") from error
    return content


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    paragraph: list[str] = []
    characters = 0
    for _, line in lines:
        text = line.strip()
        if text:
            paragraph.append(text)
            characters += len(text)
        if paragraph and (not text or characters >= LONGEST_TEXT):
            yield " ".join(paragraph)
            paragraph, characters = [], 0
    if paragraph:
        yield " ".join(paragraph)
