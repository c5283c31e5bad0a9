"""Reading `corpus.jsonl`, BEIR's format: one JSON object a line, `_id` and `text`, maybe `title`.

The file is streamed, so its size does not matter; gzip is known by its first bytes, not by its
name. Whatever cannot be read raises a `DataError` that names the file and the line. Whether an id
repeats is found out while building, where all ids are at hand.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from dupmae.errors import DataError
from dupmae.types import Document

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIELDS = frozenset({"_id", "text", "title", "metadata"})
_JSON_TYPES = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def read_corpus(path: Path) -> Iterator[Document]:
    """Yield the documents of a corpus file in its order.

    UTF-8, with or without a byte order mark; any line may end with CRLF; blank lines are skipped.
    Keys other than `_id`, `text`, `title` and `metadata` join the document's metadata.

    Args:
        path: a JSONL file, plain or gzip.

    Raises:
        DataError: if the file is missing, a folder, not UTF-8, cut short or without documents, or
            a line is not a document. Lines before the bad one have been yielded by then.
    """
    found = False
    for number, line in _lines(path):
        found = True
        yield _document(line, f"{path}, line {number}")
    if not found:
        raise DataError(f"{path} holds no documents; expected one JSON object a line")


def count_documents(path: Path) -> int | None:
    """Return how many lines a corpus file holds, to tell progress by; None for a pipe.

    Raises:
        DataError: as `read_corpus`, but no line is looked into.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        return None
    return sum(1 for _ in _lines(path))


def read_ids(path: Path) -> Iterator[str]:
    """Yield the `_id` of each line of a corpus file, or of one with no more than ids.

    Raises:
        DataError: as `read_corpus`, but for texts, which are not looked at.
    """
    for where, record in read_records(path):
        yield _string(record, "_id", where)


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each line is, for errors that are about it, and the JSON object on it.

    Raises:
        DataError: as `read_corpus`, but for what an object holds, which is not looked at.
    """
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        yield where, _json_object(line, where)


def read_id_file(path: Path) -> Iterator[str]:
    """Yield the ids of a file: one a line, or if its name says .jsonl the `_id` of each line.

    Raises:
        DataError: if the file cannot be read, or is not UTF-8.
    """
    if ".jsonl" in path.suffixes:
        yield from read_ids(path)
        return
    for number, line in _lines(path):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            where = f"{path}, line {number}"
            raise DataError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None


class CorpusHash:
    """A digest of documents in their order, equal exactly if all their fields are."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def copy(self) -> CorpusHash:
        """Return a digest of the same documents, to which others can be added."""
        other = CorpusHash()
        other._digest = self._digest.copy()
        return other

    def add(self, document: Document) -> None:
        """Take in the next document."""
        record = (document.doc_id, document.title, document.text, dict(document.metadata))
        self._digest.update(json.dumps(record, sort_keys=True).encode("ascii"))
        self._digest.update(b"\n")  # never inside a record, so the boundaries are part of it

    def add_all(self, documents: Iterable[Document]) -> None:
        """Take in the next documents."""
        for document in documents:
            self.add(document)

    def hexdigest(self) -> str:
        """Return the digest of the documents taken in so far."""
        return self._digest.hexdigest()


def corpus_hash(documents: Iterable[Document]) -> str:
    """Return the digest that an index of these documents carries in its manifest."""
    digest = CorpusHash()
    digest.add_all(documents)
    return digest.hexdigest()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 1) and content of each line that is not blank."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a corpus file with one JSON object a line")
    number = 0
    try:
        with path.open("rb") as raw:
            stream = _decompressed(raw)
            for number, line in enumerate(stream, start=1):
                content = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if content.strip():
                    yield number, content
    except FileNotFoundError:
        raise DataError(f"no corpus file at {path}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file after line {number}: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path} after line {number}: {error.strerror}") from error


def _decompressed(raw: BufferedReader) -> BufferedReader | gzip.GzipFile:
    """Return a stream of plain bytes; only peeks, so that a pipe can be read as well."""
    is_gzip = raw.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
    return gzip.GzipFile(fileobj=raw) if is_gzip else raw


def _document(line: bytes, where: str) -> Document:
    """Make a document of one line, or raise a DataError that starts with `where`."""
    return to_document(_json_object(line, where), where)


def to_document(record: Mapping[str, Any], where: str) -> Document:
    """Make a document of the JSON object that is a line of a corpus file.

    Raises:
        DataError: if it is none; the message starts with `where`.
    """
    doc_id = _string(record, "_id", where)
    if not doc_id:
        raise DataError(f'{where}: "_id" is empty; every document needs an id of its own')
    document = Document(
        doc_id,
        _string(record, "text", where),
        "" if record.get("title") is None else _string(record, "title", where),
        _metadata(record),
    )
    try:
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: holds half of a surrogate pair (\\ud800 to \\udfff), which no text may; "
            "remove it or write the whole character"
        ) from None
    except ValueError:
        raise DataError(f"{where}: a number in the metadata is too large for JSON") from None
    return document


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=_reject_constant)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None
    except RecursionError:
        raise DataError(f"{where}: JSON is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(
            f'{where}: expected an object with "_id" and "text", found {_JSON_TYPES[type(record)]}'
        )
    return record


def _reject_constant(name: str) -> NoReturn:
    """Refuse NaN and ±Infinity, which Python's reader would take though they are not JSON."""
    raise ValueError(f"{name} is not a JSON value")


def _string(record: Mapping[str, Any], key: str, where: str) -> str:
    if key not in record:
        found = ", ".join(f'"{name}"' for name in list(record)[:5]) or "no keys"
        raise DataError(f'{where}: no "{key}"; found {found}')
    value = record[key]
    if isinstance(value, str):
        return value
    cure = f'; write it in quotes: "{value}"' if key == "_id" and type(value) is int else ""
    raise DataError(f'{where}: "{key}" must be a string, found {_JSON_TYPES[type(value)]}{cure}')


def _metadata(record: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what is not a field of its own; keys inside `metadata` win over those beside it."""
    others = {key: value for key, value in record.items() if key not in _FIELDS}
    metadata = record.get("metadata")
    if isinstance(metadata, dict):
        return {**others, **metadata}
    return others if metadata is None else {**others, "metadata": metadata}
