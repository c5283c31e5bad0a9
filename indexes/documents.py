"""The documents themselves in one SQLite file: ordinal, id, title, text and metadata."""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple
from urllib.request import pathname2url

from dupmae.errors import DataError, IndexMissingError
from dupmae.files import publish
from dupmae.types import Document, Int64

_APPLICATION_ID = 0x44754D41  # "DuMA": tells this file from any other SQLite database
# A row's leading columns are read without its text, which may fill many pages.
_TABLE = """
    CREATE TABLE documents (
        ordinal INTEGER PRIMARY KEY,
        doc_id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        metadata TEXT NOT NULL,
        text TEXT NOT NULL
    )
"""
_INSERT = "INSERT INTO documents VALUES (?, ?, ?, ?, ?)"
_IDS = 500
"""Ids looked up in one statement; older builds of SQLite take no more than 999."""
_LABELS = 1024
"""Documents whose labels are read at a time."""


class Labels(NamedTuple):
    """A document without its text."""

    doc_id: str
    title: str
    metadata: dict[str, Any]


class DocumentWriter:
    """Writes documents in one transaction; the file appears under its name when closed.

    After an error the writer is of no more use but to be discarded, which the context manager
    does: it closes at the end and leaves no unfinished file if an error passes through.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._partial.unlink(missing_ok=True)
        self._count = 0
        try:
            self._connection = sqlite3.connect(self._partial, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise _unwritable(self._partial, error) from error
        # Until it is published the file is worth nothing, so nothing guards it meanwhile.
        self._execute("PRAGMA journal_mode = OFF")
        self._execute("PRAGMA synchronous = OFF")
        self._execute("PRAGMA cache_size = -65536")  # KiB: the index of ids is written all over
        self._execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._execute(_TABLE)
        self._execute("BEGIN")

    def __len__(self) -> int:
        return self._count

    def add(self, documents: Iterable[Document]) -> None:
        """Append documents; they get the next ordinals.

        Raises:
            DataError: if an id repeats, or a document holds what no file can.
            OSError: if the disk is full or fails.
        """
        for document in documents:
            try:
                self._execute(_INSERT, (self._count, *_columns(document)))
            except sqlite3.IntegrityError:
                raise DataError(
                    f"the id {document.doc_id!r} repeats: document {self._count + 1} has it, and "
                    "one before; every document needs an id of its own"
                ) from None
            except UnicodeEncodeError as error:
                raise DataError(
                    f"document {document.doc_id!r} holds half of a surrogate pair "
                    f"({error.object[error.start]!r}), which is no character; remove it"
                ) from None
            self._count += 1

    def close(self) -> None:
        """Finish the file, safe on the disk.

        Raises:
            OSError: if the disk is full or fails.
        """
        self._execute("COMMIT")
        self._connection.close()
        publish(self._partial, self._path)

    def discard(self) -> None:
        """Give up: leave no unfinished file; nothing happens once closed."""
        self._connection.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()  # nothing is left to discard where all went well

    def _execute(self, statement: str, values: tuple[int | str, ...] = ()) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise _unwritable(self._partial, error) from error


class DocumentStore:
    """Documents by ordinal and by id, read-only; any number of threads may read."""

    def __init__(self, path: Path, connection: sqlite3.Connection, count: int) -> None:
        self._path = path
        self._connection = connection
        self._count = count
        self._lock = Lock()  # one connection for all threads: look-ups are short
        self._finalizer = weakref.finalize(self, connection.close)

    @classmethod
    def open(cls, path: Path) -> DocumentStore:
        """Open a finished file; it may lie in a folder where nothing can be written.

        Raises:
            IndexMissingError: if the file is missing, damaged, or something else.
        """
        if not path.is_file():
            raise IndexMissingError(f"{path} is missing; build the index again")
        # `immutable`: SQLite then neither locks nor looks for a journal beside the file.
        uri = f"file:{pathname2url(str(path.resolve()))}?mode=ro&immutable=1"
        try:
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.OperationalError as error:  # a writer may have removed it just now
            raise _damaged(path, error) from error
        try:
            connection.execute("PRAGMA mmap_size = 1099511627776")  # else each page is read anew
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if application != _APPLICATION_ID:
                raise IndexMissingError(f"{path} holds no documents; build the index again")
            (last,) = connection.execute("SELECT max(ordinal) FROM documents").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise _damaged(path, error) from error
        except IndexMissingError:
            connection.close()
            raise
        return cls(path, connection, 0 if last is None else last + 1)

    def __len__(self) -> int:
        return self._count

    def get(self, ordinals: Sequence[int] | Int64) -> list[Document]:
        """Return documents in the order asked for; ordinals may repeat.

        Raises:
            IndexError: if there is no such ordinal.
        """
        rows = self._rows("doc_id, text, title, metadata", ordinals)
        return [
            Document(doc_id, text, title, self._metadata(metadata))
            for doc_id, text, title, metadata in rows
        ]

    def ids(self, ordinals: Sequence[int] | Int64) -> list[str]:
        """Return document ids in the order asked for; ordinals may repeat.

        Raises:
            IndexError: if there is no such ordinal.
        """
        return [doc_id for (doc_id,) in self._rows("doc_id", ordinals)]

    def labels(self, ordinals: Int64) -> Iterator[Labels]:
        """Yield documents without their texts, which are not read, in the order asked for.

        Raises:
            IndexError: if there is no such ordinal.
        """
        for start in range(0, len(ordinals), _LABELS):
            rows = self._rows("doc_id, title, metadata", ordinals[start : start + _LABELS])
            for doc_id, title, metadata in rows:
                yield Labels(doc_id, title, self._metadata(metadata))

    def find(self, doc_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of those ids that are here."""
        known = [doc_id for doc_id in doc_ids if _is_text(doc_id)]
        found: dict[str, int] = {}
        for start in range(0, len(known), _IDS):
            block = known[start : start + _IDS]
            places = ", ".join("?" * len(block))
            found.update(
                self._select(
                    f"SELECT doc_id, ordinal FROM documents WHERE doc_id IN ({places})", *block
                )
            )
        return found

    def close(self) -> None:
        """Close the file, which otherwise happens when nobody holds the store any more."""
        self._finalizer()

    def _rows(self, columns: str, ordinals: Sequence[int] | Int64) -> list[tuple[Any, ...]]:
        # One statement for all: ten times as fast as one each, and SQLite limits `IN (?, …)`.
        rows = self._select(
            f"SELECT {columns} FROM json_each(?) AS asked "
            "LEFT JOIN documents ON ordinal = asked.value ORDER BY asked.key",
            json.dumps([int(ordinal) for ordinal in ordinals]),
        )
        for ordinal, row in zip(ordinals, rows, strict=True):
            if row[0] is None and 0 <= ordinal < self._count:
                raise _damaged(self._path, f"document {ordinal} is missing")
            if row[0] is None:
                raise IndexError(f"no document has the ordinal {ordinal} in {self._path}")
        return rows

    def _metadata(self, content: str) -> dict[str, Any]:
        try:
            metadata: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise _damaged(self._path, error) from error
        return metadata

    def _select(self, statement: str, *arguments: str) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._connection.execute(statement, arguments).fetchall()
        except sqlite3.DatabaseError as error:
            raise _damaged(self._path, error) from error


def _columns(document: Document) -> tuple[str, str, str, str]:
    metadata = json.dumps(dict(document.metadata), ensure_ascii=False)
    return document.doc_id, document.title, metadata, document.text


def _is_text(doc_id: str) -> bool:
    """Say whether an id can be stored: half of a surrogate pair cannot."""
    try:
        doc_id.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unwritable(path: Path, error: sqlite3.Error) -> OSError:
    return OSError(f"cannot write {path}: {error}")


def _damaged(path: Path, what: object) -> IndexMissingError:
    return IndexMissingError(f"{path} is damaged ({what}); build the index again")
