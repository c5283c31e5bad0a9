"""Sparse candidates by an inverted index of plain .npy files: no engine and no lock.

A weight is stored in one byte, as an impact from 1 to 255: by how many steps, rounded up, it is
above 0, where a step is the 255th part of the largest weight of its term. A query's weights are
rounded up to whole numbers too, so that sums are whole numbers below 2^31: exact, the same in any
order, and, times a unit, upper bounds of ⟨q, d⟩. All postings of a query's terms are added up.
Leaving out those that cannot matter (MaxScore) was tried and gained less than a factor of 2.

A folder holds, for V terms and N documents, postings by term and within it by rising ordinal:
`indptr.npy` (V + 1,) int64, `ordinals.npy` int32, `impacts.npy` uint8; and `steps.npy` (V,)
float64. Terms of more than N / 5 documents have an empty list there; `frequent.npy` (F,) int32
names them and `rows.npy` (F, N) uint8 has every document's impact, 0 where the term is absent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0

from dupmae.errors import IndexMissingError
from dupmae.files import replacing
from dupmae.indexes.kernels import Postings, UInt8, add_up, in_ranges
from dupmae.indexes.npy import open_npy, release_pages
from dupmae.indexes.topk import top_k
from dupmae.types import Bool, Float32, Float64, Int32, Int64, Ranking, SparseVectors

LARGEST_IMPACT = 255
LARGEST_SUM = 2**31 - 1
"""Sums are int32."""

FREQUENT = 5
"""A term of more than one document in this many has a row. A row takes a byte a document and a
list five a posting, and adding a whole row is then no slower than adding a list."""

_BLOCK = 1 << 22
"""Postings sorted at a time. Building takes about 80 bytes of memory for each, or for each posting
of the most frequent term if that has more, and four bytes a term for each block of documents."""

_POSTING = np.dtype([("ordinal", np.int32), ("weight", np.float32)])

_FILES = {
    "indptr": (np.int64, 1),
    "ordinals": (np.int32, 1),
    "impacts": (np.uint8, 1),
    "steps": (np.float64, 1),
    "frequent": (np.int32, 1),
    "rows": (np.uint8, 2),
}
"""Dtype and dimensions of each .npy file."""


class InvertedIndex:
    """Documents that share a term with the query, by an upper bound of ⟨q, d⟩.

    A bound exceeds the score by less than a step of its term for each shared term (see above),
    times the query's weight, and by at most one part in 8 million of the largest conceivable
    score for each. Any number of threads may search at once.
    """

    def __init__(
        self,
        indptr: Int64,
        ordinals: Int32,
        impacts: UInt8,
        steps: Float64,
        frequent: Int32,
        rows: UInt8,
    ) -> None:
        self._indptr = indptr
        self._ordinals = ordinals
        self._impacts = impacts
        self._steps = steps
        self._rows = rows
        self._row_of_term = {term: row for row, term in enumerate(frequent.tolist())}

    @classmethod
    def build(
        cls,
        folder: Path,
        vectors: SparseVectors,
        vocabulary_size: int,
        *,
        block: int = _BLOCK,
    ) -> None:
        """Index vectors in a folder, in memory bounded by a block (see `_BLOCK`).

        An external sort: blocks of documents are sorted by term into a temporary file, eight
        bytes a posting, from which blocks of terms are then read.

        Args:
            folder: made if missing.
            vectors: N documents, may be memory-mapped; read once.
            vocabulary_size: above all terms.
            block: postings sorted at a time, ≥ 1; changes memory and speed only.

        Raises:
            FileExistsError: if the folder holds an index.
            ValueError: if a term is not below `vocabulary_size`.
            OSError: if the disk is full or fails.
        """
        if all((folder / f"{name}.npy").exists() for name in _FILES):
            raise FileExistsError(f"{folder} holds an index already; remove it first")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            runs = _Runs(file, vectors, vocabulary_size, block)
            _merge(runs, folder, len(vectors), block)

    @classmethod
    def open(cls, folder: Path) -> InvertedIndex:
        """Map the files of a folder; reads all but postings and rows.

        Raises:
            IndexMissingError: if a file is missing or damaged, or two do not fit together.
        """
        files = {name: open_npy(folder / f"{name}.npy", *kind) for name, kind in _FILES.items()}
        terms, postings = len(files["steps"]), len(files["impacts"])
        for name, fits in {
            "indptr": len(files["indptr"]) == terms + 1 and _rises_to(files["indptr"], postings),
            "ordinals": len(files["ordinals"]) == postings,
            "rows": len(files["rows"]) == len(files["frequent"]),
        }.items():
            if not fits:
                raise IndexMissingError(
                    f"{folder / name}.npy does not fit the files beside it; build the index again"
                )
        return cls(**files)

    def __len__(self) -> int:
        return int(self._rows.shape[1])

    def search(self, queries: SparseVectors, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return at most k documents a query, best first; scores are upper bounds of ⟨q, d⟩."""
        rankings = []
        for terms, weights in queries:
            sums, unit = self.bounds(terms, weights)
            if allowed is not None:
                sums *= allowed
            candidates = largest(sums, k)
            rankings.append(top_k(sums[candidates].astype(np.float64) * unit, k, candidates))
        return rankings

    def bounds(self, terms: Int32, weights: Float32) -> tuple[Int32, float]:
        """Return a whole number for each document, (N,), which times a unit bounds its ⟨q, d⟩."""
        factors, unit = self._factors(terms, weights)
        postings = Postings(
            factors,
            np.array([self._row_of_term.get(term, -1) for term in terms.tolist()], dtype=np.int64),
            self._indptr[terms],
            self._indptr[terms + 1],
            self._rows,
            self._ordinals,
            self._impacts,
        )
        sums = np.empty(len(self), dtype=np.int32)
        in_ranges(len(self), partial(add_up, postings, sums))
        return sums, unit

    def _factors(self, terms: Int32, weights: Float32) -> tuple[Int32, float]:
        """Return by what whole number a query multiplies each term's impacts, and the unit.

        The unit is the smallest for which no sum can pass 2^31, raised by the little that
        float64 rounding, here and in the exact score, could take from a bound. A factor is at
        least 1, so that a document which shares a term has a sum above 0.
        """
        products = weights.astype(np.float64) * self._steps[terms]
        largest = float(products.sum()) * LARGEST_IMPACT
        if largest == 0:  # no document has any of the terms
            return np.zeros(len(terms), dtype=np.int32), 0.0
        unit = largest / (LARGEST_SUM - (len(terms) + 1) * LARGEST_IMPACT)
        factors = np.ceil(products / unit).astype(np.int32)
        return factors, unit * (1 + (len(terms) + 8) * 2.0**-52)


def largest(sums: Int32, k: int) -> Int64:
    """Return the ordinals (m,) of all sums > 0 that are among the k largest, and of few others.

    Documents are dealt out to groups, at least 8k of them if there are so many documents. The
    k-th largest of the groups' maxima is at most the k-th largest sum, seldom much less, and
    found ten times as fast.
    """
    group_size = max(1, min(64, len(sums) // (8 * k)))
    groups = len(sums) // group_size
    maxima = sums[: groups * group_size].reshape(group_size, groups).max(axis=0)
    least = int(np.partition(maxima, groups - k)[groups - k]) if k < groups else 0
    return np.flatnonzero(sums >= max(least, 1))


# ---- building ------------------------------------------------------------------------------


class _Runs:
    """Postings of blocks of documents, each block sorted by term, one after the other in a file."""

    def __init__(
        self, file: IO[bytes], vectors: SparseVectors, vocabulary_size: int, block: int
    ) -> None:
        """Sort each block of documents by term, and write it.

        Raises:
            ValueError: if a term is not below `vocabulary_size`.
        """
        self._file = file
        self._starts: list[int] = []  # how many postings stand before each block
        self._indptrs: list[Int32] = []  # where in a block each term starts, (V + 1,)
        # NumPy sorts 16 bits by counting, more bits by comparing.
        sorted_as = np.uint16 if vocabulary_size <= 1 << 16 else np.int32
        for start, end in _ranges(vectors.indptr, block):
            rows = vectors.rows(start, end)
            if rows.terms.max() >= vocabulary_size:
                raise ValueError(f"term {rows.terms.max()} in a vocabulary of {vocabulary_size}")
            order = np.argsort(rows.terms.astype(sorted_as), kind="stable")
            owners = np.repeat(np.arange(start, end, dtype=np.int32), np.diff(rows.indptr))
            postings = np.empty(len(order), dtype=_POSTING)
            postings["ordinal"] = owners[order]
            postings["weight"] = rows.weights[order]
            file.write(postings.data)
            release_pages(vectors.terms)
            release_pages(vectors.weights)
            self._starts.append(int(vectors.indptr[start]))
            frequency = np.bincount(rows.terms, minlength=vocabulary_size)
            self._indptrs.append(_indptr(frequency).astype(np.int32))
        self.frequency = np.zeros(vocabulary_size, dtype=np.int64)
        for indptr in self._indptrs:
            self.frequency += np.diff(indptr)

    def read(self, first: int, end: int) -> tuple[Int64, Int32, Float32]:
        """Return terms, ordinals and weights (n,) of terms first..end-1, by term and ordinal."""
        terms, parts = [], []
        for start, indptr in zip(self._starts, self._indptrs, strict=True):
            self._file.seek((start + int(indptr[first])) * _POSTING.itemsize)
            content = self._file.read(int(indptr[end] - indptr[first]) * _POSTING.itemsize)
            parts.append(np.frombuffer(content, dtype=_POSTING))
            terms.append(np.repeat(np.arange(first, end), np.diff(indptr[first : end + 1])))
        joined = np.concatenate(terms)
        order = np.argsort(joined, kind="stable")  # keeps blocks, and so ordinals, in order
        postings = np.concatenate(parts)[order]
        return joined[order], postings["ordinal"], postings["weight"]


def _merge(runs: _Runs, folder: Path, documents: int, block: int) -> None:
    """Write all files, a block of terms at a time."""
    is_frequent = runs.frequency * FREQUENT > documents
    frequent = np.flatnonzero(is_frequent).astype(np.int32)
    indptr = _indptr(np.where(is_frequent, 0, runs.frequency))
    postings = (int(indptr[-1]),)
    steps = np.zeros(len(runs.frequency), dtype=np.float64)
    with ExitStack() as stack:
        new = partial(_new_npy, stack, folder)
        ordinal_file, impact_file = new("ordinals", postings), new("impacts", postings)
        row_file = new("rows", (len(frequent), documents))
        for first, end in _ranges(_indptr(runs.frequency), block):
            terms, ordinals, weights = runs.read(first, end)
            weights = weights.astype(np.float64)  # a 255th of a float32 may be 0
            np.maximum.at(steps, terms, weights / LARGEST_IMPACT)
            impacts = np.ceil(weights / steps[terms]).clip(1, LARGEST_IMPACT).astype(np.uint8)
            for term in first + np.flatnonzero(is_frequent[first:end]):
                own = slice(*np.searchsorted(terms, [term, term + 1]))
                row = np.zeros(documents, dtype=np.uint8)
                row[ordinals[own]] = impacts[own]
                row_file.write(row.data)
            listed = ~is_frequent[terms]
            ordinal_file.write(ordinals[listed].data)
            impact_file.write(impacts[listed].data)
        new("indptr", indptr.shape).write(indptr.data)
        new("steps", steps.shape).write(steps.data)
        new("frequent", frequent.shape).write(frequent.data)


def _new_npy(stack: ExitStack, folder: Path, name: str, shape: tuple[int, ...]) -> BinaryIO:
    """Begin a file, to be filled with an array of that shape; it appears when the stack closes."""
    file = stack.enter_context(replacing(folder / f"{name}.npy"))
    descr = np.lib.format.dtype_to_descr(np.dtype(_FILES[name][0]))
    write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file


def _ranges(indptr: Int64, block: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows that hold at most `block` entries, or are one row; no empty ones."""
    start = 0
    while start < len(indptr) - 1:
        fitting = int(np.searchsorted(indptr, indptr[start] + block, side="right")) - 1
        end = max(start + 1, fitting)
        if indptr[start] < indptr[end]:
            yield start, end
        start = end


def _indptr(lengths: Int64) -> Int64:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def _rises_to(indptr: Int64, last: int) -> bool:
    return bool(indptr[0] == 0 and np.all(np.diff(indptr) >= 0) and indptr[-1] == last)
