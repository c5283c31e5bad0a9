"""Files of vectors made elsewhere, of which an index is built without encoding.

A file holds, for n documents, what `Encoded` does: `dense` (n, dim), and the sparse vectors in
compressed rows, `indptr` (n + 1,), `terms` and `weights` (as SciPy's `indptr`, `indices`, `data`).
Floats may be of 16 or 32 bits, whole numbers of 32 or 64. Which document a row is of says a JSONL
file beside it (`a.jsonl` for `a.safetensors` or `a.npz`) with an `_id` for each row, in order; a
corpus file will do. Settings name the encoder, `encoder`, `seal` and `vocabulary_size`, and may say
how documents borrow terms in an index: `borrow`, the fields of `Borrow` in JSON.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.engine.borrow import Borrow, usual_borrow
from dupmae.engine.corpus import read_ids
from dupmae.errors import DataError, SealError, UsageError
from dupmae.indexes.npy import release_pages
from dupmae.indexes.tensors import TensorFile, open_tensors
from dupmae.types import Document, Encoded, Float32, SparseVectors, TextEncoder

_SHAPES = {"dense": 2, "indptr": 1, "terms": 1, "weights": 1}
_DTYPES = {
    "dense": ("float32", "float16"),
    "indptr": ("int64", "int32"),
    "terms": ("int32", "int64"),
    "weights": ("float32", "float16"),
}


class VectorFiles:
    """The vectors of a corpus in one or several files, a document's in one row of them all.

    It stands in for the encoder that made them: `name`, `seal`, `dense_dim`, `vocabulary_size`.
    Close it, or use it as a context manager.
    """

    def __init__(self, parts: Sequence[_Part], maker: _Maker) -> None:
        self.name = maker.name
        self.seal = maker.seal
        self.dense_dim = int(parts[0].dense.shape[1])
        self.vocabulary_size = maker.vocabulary_size
        self.borrow = maker.borrow
        """How documents borrow terms in an index unless told otherwise; None: not at all."""
        self._parts = parts
        self._starts = list(accumulate(map(len, parts), initial=0))
        self._used = np.zeros(len(self), bool)
        # A table on the disk, which SQLite removes: a large corpus's ids may not fit in memory.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            self._note_ids()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, paths: Sequence[Path], encoder: TextEncoder | None = None) -> VectorFiles:
        """Map files into memory and read which documents they are of.

        Args:
            paths: at least one, each a .safetensors or .npz file with a .jsonl beside it.
            encoder: the one that queries will be encoded by; needed where a file names none.

        Raises:
            UsageError: if a file names no encoder and none is given, or is called otherwise.
            SealError: if a file names another encoder than the one given, or than the first.
            DataError: if a file is missing or damaged, two do not fit together, or an id repeats.
        """
        files = [open_tensors(path) for path in paths]
        made_by = [_Maker.of(file, encoder) for file in files]
        parts = [_Part.of(file) for file in files]
        dim = parts[0].dense.shape[1] if encoder is None else encoder.dense_dim
        for part, maker in zip(parts, made_by, strict=True):
            if maker.seal != made_by[0].seal:
                raise SealError(
                    f"{part.path} was made by encoder {maker.name} (seal {maker.seal[:12]}), "
                    f"{parts[0].path} by {made_by[0].name} (seal {made_by[0].seal[:12]}); "
                    "take vectors of one encoder"
                )
            if part.dense.shape[1] != dim:
                other = parts[0].path if encoder is None else f"encoder {encoder.name}"
                raise DataError(
                    f"{part.path}: expected {dim} dimensions as {other} has, "
                    f"found {part.dense.shape[1]}"
                )
        return cls(parts, made_by[0])

    def __len__(self) -> int:
        return self._starts[-1]

    def vectors(self, documents: Sequence[Document]) -> Encoded:
        """Return the vectors of documents in their order, checked; any thread may call it.

        Raises:
            DataError: if a document has no vectors, or they break a rule of `Encoded`.
        """
        found = [self._place(document.doc_id) for document in documents]
        dense = np.empty((len(found), self.dense_dim), np.float32)
        for place, (part, row) in enumerate(found):
            dense[place] = part.dense[row]
        rows = [part.sparse_row(row) for part, row in found]
        try:
            return _checked(dense, rows, self.vocabulary_size)
        except ValueError:
            for place, (part, row) in enumerate(found):
                one = slice(place, place + 1)
                try:
                    _checked(dense[one], rows[one], self.vocabulary_size)
                except ValueError as error:
                    raise DataError(
                        f"{part.path}, row {row} (document {documents[place].doc_id!r}): {error}"
                    ) from None
            raise
        finally:
            for part in self._parts:
                part.release_pages()

    def check_all_used(self) -> None:
        """Raise DataError if a row has not been asked for: the corpus lacks its document."""
        if self._used.all():
            return
        unused = int(np.argmin(self._used))
        (doc_id,) = self._rows.execute("SELECT doc_id FROM ids WHERE row = ?", (unused,)).fetchone()
        raise DataError(
            f"there are vectors of {len(self)} documents, of which the corpus has "
            f"{np.count_nonzero(self._used)}; it lacks {doc_id!r}, for one"
        )

    def close(self) -> None:
        """Close what is not merely mapped."""
        self._rows.close()

    def __enter__(self) -> VectorFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _place(self, doc_id: str) -> tuple[_Part, int]:
        """Return in which part, and which row of it, a document's vectors are."""
        found = self._rows.execute("SELECT row FROM ids WHERE doc_id = ?", (doc_id,)).fetchone()
        if found is None:
            names = ", ".join(str(part.path) for part in self._parts)
            raise DataError(f"document {doc_id!r} of the corpus has no vectors in {names}")
        number = int(found[0])
        self._used[number] = True
        index = bisect_right(self._starts, number) - 1
        return self._parts[index], number - self._starts[index]

    def _note_ids(self) -> None:
        self._rows.execute("PRAGMA journal_mode = OFF")
        self._rows.execute("CREATE TABLE ids (doc_id TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        self._rows.execute("BEGIN")
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            for row, doc_id in enumerate(part.ids()):
                try:
                    self._rows.execute("INSERT INTO ids VALUES (?, ?)", (doc_id, start + row))
                except sqlite3.IntegrityError:
                    raise DataError(
                        f"{part.ids_path}: the id {doc_id!r} of row {row} repeats; "
                        "a document has one row in all files together"
                    ) from None
        self._rows.execute("COMMIT")


@dataclass(frozen=True, slots=True)
class _Maker:
    """The encoder of a file's vectors."""

    name: str
    seal: str
    vocabulary_size: int
    borrow: Borrow | None

    @classmethod
    def of(cls, file: TensorFile, encoder: TextEncoder | None) -> _Maker:
        """Read what a file says; the encoder given must be the one named, if one is."""
        settings = file.settings
        if encoder is not None:
            seal = settings.get("seal", encoder.seal)
            name = encoder.name if seal == encoder.seal else settings.get("encoder", "unknown")
            if seal != encoder.seal:
                raise SealError(
                    f"{file.path} was made by encoder {name} (seal {seal[:12]}), not by "
                    f"{encoder.name} (seal {encoder.seal[:12]}); load that encoder, or none"
                )
            usual = None if "seal" in settings else usual_borrow(encoder)
            return cls(name, seal, encoder.vocabulary_size, _borrow(file, usual))
        for key in ("encoder", "seal", "vocabulary_size"):
            if key not in settings:
                raise UsageError(
                    f"{file.path} does not say which encoder made it (it has no {key!r}); name "
                    "the one that queries will be encoded by with --model"
                )
        size = settings["vocabulary_size"]
        if not (size.isascii() and size.isdigit()):
            raise DataError(f"{file.path}: vocabulary_size must be a whole number, found {size!r}")
        return cls(settings["encoder"], settings["seal"], int(size), _borrow(file, None))


def _borrow(file: TensorFile, usual: Borrow | None) -> Borrow | None:
    """Return how a file says that its documents borrow; what is usual if it says nothing."""
    said = file.settings.get("borrow")
    if said is None:
        return usual
    try:
        return Borrow(**json.loads(said))
    except (ValueError, TypeError, RecursionError, UsageError):
        raise DataError(
            f"{file.path}: borrow must be like {json.dumps(asdict(Borrow()))}, found {said[:80]!r}"
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One file's arrays, which fit together; what they hold is checked row by row."""

    path: Path
    dense: NDArray[Any]
    indptr: NDArray[Any]
    terms: NDArray[Any]
    weights: NDArray[Any]

    @classmethod
    def of(cls, file: TensorFile) -> _Part:
        for name, dimensions in _SHAPES.items():
            array = file.arrays.get(name)
            if array is None:
                found = ", ".join(sorted(file.arrays)) or "no arrays"
                raise DataError(f"{file.path}: no {name!r}; found {found}")
            if array.ndim != dimensions or str(array.dtype) not in _DTYPES[name]:
                raise DataError(
                    f"{file.path}: {name} must have {dimensions} dimensions of "
                    f"{' or '.join(_DTYPES[name])}, found {array.ndim} of {array.dtype}"
                )
        part = cls(file.path, *(file.arrays[name] for name in _SHAPES))
        part._check_lengths()
        return part

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def ids_path(self) -> Path:
        """Where the rows' documents are named."""
        return self.path.with_suffix(".jsonl")

    def ids(self) -> Iterator[str]:
        """Yield the document id of each row.

        Raises:
            DataError: if there are more or fewer than rows, or the file cannot be read.
        """
        if not self.ids_path.exists():
            raise DataError(f"{self.ids_path} is missing; it names the document of each row")
        count = 0
        for count, doc_id in enumerate(read_ids(self.ids_path), start=1):
            if count <= len(self):
                yield doc_id
        if count != len(self):
            raise DataError(
                f"{self.ids_path}: expected {len(self)} ids, one a row of {self.path.name}, "
                f"found {count}"
            )

    def sparse_row(self, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return terms and weights of a row, unchecked."""
        start, end = self.indptr[row], self.indptr[row + 1]
        return self.terms[start:end], self.weights[start:end]

    def release_pages(self) -> None:
        for array in (self.dense, self.terms, self.weights):
            release_pages(array)

    def _check_lengths(self) -> None:
        expected, found = len(self.dense) + 1, len(self.indptr)
        if found != expected:
            raise DataError(
                f"{self.path}: expected {expected} entries in indptr as dense has "
                f"{len(self.dense)} rows, found {found}"
            )
        borders = self.indptr
        if borders[0] != 0 or (np.diff(borders) < 0).any() or borders[-1] != len(self.terms):
            raise DataError(
                f"{self.path}: indptr must start with 0, never fall and end with the number of "
                f"terms, {len(self.terms)}"
            )
        if len(self.weights) != len(self.terms):
            raise DataError(
                f"{self.path}: expected {len(self.terms)} weights, one a term, "
                f"found {len(self.weights)}"
            )


def _checked(
    dense: Float32, rows: Sequence[tuple[NDArray[Any], NDArray[Any]]], vocabulary_size: int
) -> Encoded:
    """Join rows to a batch, or raise ValueError if one breaks a rule."""
    if not np.isfinite(dense).all():
        raise ValueError("dense vectors must be finite")
    terms = np.concatenate([terms for terms, _ in rows])  # 64 bits may not fit in 32
    if len(terms) and not 0 <= terms.min() <= terms.max() < vocabulary_size:
        raise ValueError(
            f"expected terms from 0 to {vocabulary_size - 1}, found {terms.min()} to {terms.max()}"
        )
    return Encoded(dense, SparseVectors.from_rows(rows).check())
