"""Vectors from pyserini: a JsonVectorCollection becomes files of vectors (`vectors.py`).

pyserini's encoders write such collections too: with a sparse `vector`, which maps tokens to
weights, or a dense one, a list of numbers. `pyserini_export.py` says more of the format.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.engine.corpus import read_records
from dupmae.engine.pyserini_export import DEFAULT_SCALE, check_scale, vocabulary
from dupmae.errors import DataError, DupMAEError, UsageError
from dupmae.files import replacing
from dupmae.indexes.forward import ForwardStore, ForwardWriter
from dupmae.indexes.npy import release_pages
from dupmae.indexes.tensors import Tensor, check_name, write_tensors
from dupmae.types import Encoded, Float32, Int32, SparseVectors, TextEncoder

_DOCUMENTS = 512
"""Documents in memory at a time."""
_BYTES = 1 << 22
"""Of an array, written at a time."""
_LARGEST = float(np.finfo(np.float32).max)


def from_pyserini(
    collection: Path,
    vectors: Path,
    encoder: TextEncoder,
    *,
    dense: Path | None = None,
    scale: float = DEFAULT_SCALE,
) -> int:
    """Write a JsonVectorCollection as vector files, of which an index can be built.

    Args:
        collection: a folder of .jsonl files (also .json, .gz), read in the order of their names,
            or one file.
        vectors: .safetensors or .npz; the documents go to the same name in .jsonl.
        encoder: that queries will be encoded by; its vocabulary gives the terms, and its seal goes
            into the file.
        dense: the same, with the dense vectors of the same documents in the same order; zeros if
            not given, so that a score is its sparse part.
        scale: weights are impacts divided by this, > 0.

    Returns:
        The number of documents.

    Raises:
        UsageError: if a file is there already, its name ends otherwise, or the scale is out of its
            range.
        DataError: if a line is not a document with a vector, a token is not in the vocabulary, or
            two files do not fit together.
        DupMAEError: if the disk is full or cannot be written.
    """
    check_scale(scale)
    check_name(vectors)
    corpus = vectors.with_suffix(".jsonl")
    for file in (vectors, corpus):
        if file.exists():
            raise UsageError(f"{file} is there already; remove it, or name another file")
    settings = {
        "encoder": encoder.name,
        "seal": encoder.seal,
        "vocabulary_size": str(encoder.vocabulary_size),
    }
    try:
        with tempfile.TemporaryDirectory(dir=vectors.parent, prefix=".convert-") as forward:
            _write_forward(Path(forward), corpus, _paired(collection, dense), encoder, scale)
            store = ForwardStore.open(Path(forward))
            if len(store) == 0:
                raise DataError(f"{collection} holds no documents")
            write_tensors(vectors, _tensors(store), settings)
            return len(store)
    except BaseException as error:  # ctrl-C too
        corpus.unlink(missing_ok=True)  # else it would stand in the way of the next try
        if isinstance(error, OSError):
            raise DupMAEError(f"{vectors} could not be written: {error}") from error
        raise


def _write_forward(
    folder: Path,
    corpus: Path,
    records: Iterator[tuple[_Record, _Record | None]],
    encoder: TextEncoder,
    scale: float,
) -> None:
    """Write the vectors of all records as a forward store, and their texts as a corpus file."""
    terms = {token: term for term, token in enumerate(vocabulary(encoder))}
    dim = encoder.dense_dim
    with replacing(corpus) as lines, ForwardWriter(folder, dim, len(terms)) as writer:
        while block := list(islice(records, _DOCUMENTS)):
            dense = np.zeros((len(block), dim), dtype=np.float32)
            for place, (_, other) in enumerate(block):
                if other is not None:
                    dense[place] = other.dense(dim)
            rows = [record.sparse(terms, scale) for record, _ in block]
            writer.add(Encoded(dense, SparseVectors.from_rows(rows)))
            lines.writelines(record.corpus_line() for record, _ in block)


@dataclass(frozen=True, slots=True)
class _Record:
    """A line of a collection: `vector` is as it was read."""

    where: str
    doc_id: str
    contents: str
    vector: Any

    @classmethod
    def of(cls, where: str, record: Mapping[str, Any]) -> _Record:
        doc_id, contents = record.get("id"), record.get("contents", "")
        if not (isinstance(doc_id, str) and doc_id and isinstance(contents, str)):
            raise DataError(
                f'{where}: expected an object with the strings "id" and perhaps "contents", found '
                f"{doc_id!r} and {contents!r}"
            )
        if "vector" not in record:
            raise DataError(f'{where}: expected a "vector", found none')
        return cls(where, doc_id, contents, record["vector"])

    def sparse(self, terms: Mapping[str, int], scale: float) -> tuple[Int32, Float32]:
        """Return terms (nnz,) and weights (nnz,); impacts of 0 count for nothing."""
        if not isinstance(self.vector, dict):
            raise DataError(
                f'{self.where}: expected a "vector" that maps tokens to weights, as sparse ones do'
            )
        weights: dict[int, float] = {}
        for token, impact in self.vector.items():
            if token not in terms:
                raise DataError(
                    f"{self.where}: {token!r} is not in the vocabulary of the encoder; name the "
                    "encoder of these vectors with --model"
                )
            weight = _float32(impact, scale)
            if not weight >= 0:  # true for NaN
                raise DataError(
                    f"{self.where}: expected a weight of 0 or more, found {impact!r} for {token!r}"
                )
            if weight > 0:
                weights[terms[token]] = weight
        order = sorted(weights)
        kept = np.array([weights[term] for term in order], dtype=np.float32)
        return np.array(order, dtype=np.int32), kept

    def dense(self, dim: int) -> Float32:
        """Return the vector (dim,)."""
        values = self.vector if isinstance(self.vector, list) else []
        numbers = np.array([_float32(value) for value in values], dtype=np.float32)
        if len(numbers) != dim or not np.isfinite(numbers).all():
            raise DataError(
                f'{self.where}: expected a "vector" of {dim} numbers, as many as the encoder has '
                "dimensions; name the encoder of these vectors with --model"
            )
        return numbers

    def corpus_line(self) -> bytes:
        """Return the document as a line of a corpus file."""
        record = {"_id": self.doc_id, "text": self.contents}
        try:
            return json.dumps(record, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:
            raise DataError(
                f"{self.where}: holds half of a surrogate pair (\\ud800 to \\udfff); remove it or "
                "write the whole character"
            ) from None


def _paired(collection: Path, dense: Path | None) -> Iterator[tuple[_Record, _Record | None]]:
    """Yield each document's record, and that of its dense vector if there is one."""
    if dense is None:
        yield from ((record, None) for record in _records(collection))
        return
    for record, other in zip_longest(_records(collection), _records(dense)):
        if record is None or other is None or record.doc_id != other.doc_id:
            ids = ["nothing" if found is None else repr(found.doc_id) for found in (record, other)]
            place = (other or record).where
            raise DataError(
                f"{place}: expected the same documents in the same order in {collection} and "
                f"{dense}, found {ids[0]} and {ids[1]}"
            )
        yield record, other


def _records(path: Path) -> Iterator[_Record]:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    for file in files:
        for where, record in read_records(file):
            yield _Record.of(where, record)


def _float32(value: object, divisor: float = 1.0) -> float:
    """Return a JSON number, divided, as float32 would hold it; NaN if it is none or too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        quotient = value / divisor
    except OverflowError:  # a whole number of more than 308 digits
        return math.nan
    return float(np.float32(quotient)) if abs(quotient) <= _LARGEST else math.nan


def _tensors(store: ForwardStore) -> list[Tensor]:
    return [
        _tensor("indptr", store.sparse.indptr),
        _tensor("dense", store.dense),
        _tensor("terms", store.sparse.terms),
        _tensor("weights", store.sparse.weights),
    ]


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    return Tensor(name, array.dtype, array.shape, _parts(array))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    rows = max(1, _BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        release_pages(array)
