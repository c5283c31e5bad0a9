"""The forward store: every vector by ordinal, the authority on what a document scores.

Five plain .npy files in one folder, all of which NumPy and SciPy read as they are:
`dense.npy` (N, dim) float32; the sparse vectors in compressed rows, `indptr.npy` (N + 1,) int64,
`terms.npy` int32, `weights.npy` float32; and `frequency.npy` (V,) int64, in how many documents each
term is. A sixth, `borrowed.npy` bool, says of each term whether it was borrowed from other
documents, where any may be. Scores are those of `scores.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dupmae.errors import IndexMissingError
from dupmae.indexes.kernels import row_positions
from dupmae.indexes.npy import NpyFiles, open_npy, release_pages
from dupmae.indexes.scores import dense_scores, sparse_scores
from dupmae.types import Bool, Encoded, Float32, Float64, Int32, Int64, SparseVectors

_BLOCK = 1 << 16
"""Non-zeros read at a time."""
_DOCUMENTS = 1024
"""Documents whose terms are counted at a time."""


class ForwardWriter(NpyFiles):
    """Writes encoded documents block by block; memory is bounded by one block.

    The store is readable once `close` has returned.

    Args:
        folder: made if missing.
        dim: of dense vectors.
        vocabulary_size: above all terms.
        keep: (documents, non-zeros) of an earlier store in that folder, finished or not, to go
            on after.
        borrows: whether terms may be borrowed.

    Raises:
        IndexMissingError: if the folder holds less than is to be kept.
    """

    def __init__(
        self,
        folder: Path,
        dim: int,
        vocabulary_size: int,
        *,
        keep: tuple[int, int] = (0, 0),
        borrows: bool = False,
    ) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._dim = dim
        self._vocabulary_size = vocabulary_size
        self._documents, self._nonzeros = keep
        self._dense = self.begin("dense.npy", np.float32, (dim,), keep=self._documents)
        self._indptr = self.begin_borders("indptr.npy", keep=self._documents)
        self._terms = self.begin("terms.npy", np.int32, keep=self._nonzeros)
        self._weights = self.begin("weights.npy", np.float32, keep=self._nonzeros)
        self._borrowed = self.begin("borrowed.npy", np.bool_) if borrows else None

    def __len__(self) -> int:
        return self._documents

    @property
    def nonzeros(self) -> int:
        """Terms of all documents so far."""
        return self._nonzeros

    def add(self, encoded: Encoded, borrowed: Bool | None = None) -> None:
        """Append documents; they get the next ordinals.

        Args:
            encoded: their vectors.
            borrowed: which of all their terms are, only in a store that `borrows`.

        Raises:
            ValueError: if vectors are not finite, not of this store's dimension or vocabulary,
                or a sparse vector breaks the rules of `SparseVectors`.
        """
        if encoded.dense.shape[1] != self._dim:
            raise ValueError(f"expected {self._dim} dimensions, found {encoded.dense.shape[1]}")
        if not np.isfinite(encoded.dense).all():
            raise ValueError("dense vectors must be finite")
        sparse = encoded.sparse.check()
        size = self._vocabulary_size
        if len(sparse.terms) and sparse.terms.max() >= size:
            raise ValueError(f"expected terms below {size}, found {sparse.terms.max()}")
        self._dense.append(encoded.dense)
        self._indptr.append(sparse.indptr[1:] + self._nonzeros)
        self._terms.append(sparse.terms)
        self._weights.append(sparse.weights)
        if self._borrowed is not None:
            assert borrowed is not None
            self._borrowed.append(borrowed)
        self._documents += len(encoded)
        self._nonzeros += len(sparse.terms)

    def close(self) -> None:
        """Finish all five files, safe on the disk."""
        frequency = self.begin("frequency.npy", np.int64)
        frequency.append(_frequency(self._terms.written(), self._vocabulary_size))
        super().close()


def _frequency(terms: Int32, vocabulary_size: int) -> Int64:
    """Return how often each term occurs, (V,), in blocks."""
    frequency = np.zeros(vocabulary_size, dtype=np.int64)
    for start in range(0, len(terms), _BLOCK):
        frequency += np.bincount(terms[start : start + _BLOCK], minlength=vocabulary_size)
        release_pages(terms)
    return frequency


@dataclass(frozen=True, slots=True, eq=False)
class ForwardStore:
    """All vectors of N documents, memory-mapped: `dense` (N, dim) float32 and `sparse`.

    `frequency` (V,) int64 is the number of documents that hold each term.
    """

    dense: Float32
    sparse: SparseVectors
    frequency: Int64
    borrowed: Bool | None = None
    """Of each term of `sparse`; None if none is."""

    @classmethod
    def open(cls, folder: Path) -> ForwardStore:
        """Map the files of a folder; reads `indptr` only.

        Raises:
            IndexMissingError: if a file is missing or damaged, or two do not fit together; the
                message names the file.
        """
        dense = open_npy(folder / "dense.npy", np.float32, ndim=2)
        indptr = open_npy(folder / "indptr.npy", np.int64, ndim=1)
        terms = open_npy(folder / "terms.npy", np.int32, ndim=1)
        weights = open_npy(folder / "weights.npy", np.float32, ndim=1)
        frequency = open_npy(folder / "frequency.npy", np.int64, ndim=1)
        if len(indptr) != len(dense) + 1:
            raise IndexMissingError(
                f"{folder / 'indptr.npy'}: expected {len(dense) + 1} entries as dense.npy has "
                f"{len(dense)} rows, found {len(indptr)}; build the index again"
            )
        if len(terms) != len(weights):
            raise IndexMissingError(
                f"{folder / 'weights.npy'}: expected {len(terms)} entries as in terms.npy, "
                f"found {len(weights)}; build the index again"
            )
        borrowed = None
        if (folder / "borrowed.npy").exists():
            borrowed = open_npy(folder / "borrowed.npy", np.bool_, ndim=1)
            if len(borrowed) != len(terms):
                raise IndexMissingError(
                    f"{folder / 'borrowed.npy'}: expected {len(terms)} entries as in terms.npy, "
                    f"found {len(borrowed)}; build the index again"
                )
        try:
            return cls(dense, SparseVectors(indptr, terms, weights), frequency, borrowed)
        except ValueError as error:
            raise IndexMissingError(
                f"{folder / 'indptr.npy'} does not fit terms.npy ({error}); build the index again"
            ) from error

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def dim(self) -> int:
        """Length of a dense vector."""
        return int(self.dense.shape[1])

    def score(
        self, dense_query: Float32, query_terms: Int32, query_weights: Float32, ordinals: Int64
    ) -> tuple[Float64, Float64]:
        """Return the exact dense and sparse scores of documents, two (m,) float64 arrays.

        A document's scores are the same to the last bit whichever others are asked for with it.

        Args:
            dense_query: (dim,) float32.
            query_terms: (nnz,) int32, strictly increasing; may be empty.
            query_weights: (nnz,) float32.
            ordinals: (m,) int64, any order; only these rows are read.
        """
        return (
            dense_scores(self.dense, dense_query, ordinals),
            sparse_scores(self.sparse, query_terms, query_weights, ordinals),
        )

    def sparse_row(self, ordinal: int) -> tuple[Int32, Float32]:
        """Return terms (nnz,) and weights (nnz,) of one document.

        Raises:
            IndexMissingError: if a term is not in the vocabulary, as damage can make of it.
        """
        terms, weights = self.sparse.row(ordinal)
        # Without a sign, one below 0 is above all: one pass, for exports read every document so.
        if len(terms) and terms.view(np.uint32).max() >= len(self.frequency):
            raise IndexMissingError(
                f"the forward store's terms.npy is damaged (vector {ordinal} has a term outside "
                f"0..{len(self.frequency) - 1}); build the index again"
            )
        return terms, weights

    def is_borrowed(self, ordinal: int) -> Bool:
        """Return which terms (nnz,) of one document are borrowed."""
        start, end = self.sparse.indptr[ordinal : ordinal + 2]
        if self.borrowed is None:
            return np.zeros(end - start, dtype=np.bool_)
        return self.borrowed[start:end]

    def own_row(self, ordinal: int) -> tuple[Int32, Float32]:
        """Return `sparse_row` without what is borrowed."""
        terms, weights = self.sparse_row(ordinal)
        if self.borrowed is None:
            return terms, weights
        is_own = ~self.is_borrowed(ordinal)
        return terms[is_own], weights[is_own]

    def count_own(self, ordinals: Int64) -> Int64:
        """Return how many terms each of some documents has that are not borrowed."""
        counts = self.sparse.indptr[ordinals + 1] - self.sparse.indptr[ordinals]
        if self.borrowed is None:
            return counts
        for start in range(0, len(ordinals), _DOCUMENTS):
            owners, positions = row_positions(self.sparse, ordinals[start : start + _DOCUMENTS])
            borrowed = np.bincount(owners[self.borrowed[positions]], minlength=_DOCUMENTS)
            counts[start : start + _DOCUMENTS] -= borrowed[: len(counts) - start]
        return counts

    def own_frequency(self) -> Int64:
        """Return how many documents have each term as their own, (V,)."""
        frequency = self.frequency.copy()
        if self.borrowed is None:
            return frequency
        for start in range(0, len(self.borrowed), _BLOCK):
            terms = self.sparse.terms[start : start + _BLOCK]
            borrowed = terms[self.borrowed[start : start + _BLOCK]]
            frequency -= np.bincount(borrowed, minlength=len(frequency))
        return frequency

    def count_terms(self, ordinals: Int64, *, own: bool = False) -> Int64:
        """Return in how many of some documents each term is, or is its own, (V,)."""
        frequency = np.zeros(len(self.frequency), dtype=np.int64)
        for start in range(0, len(ordinals), _DOCUMENTS):
            _, positions = row_positions(self.sparse, ordinals[start : start + _DOCUMENTS])
            if own and self.borrowed is not None:
                positions = positions[~self.borrowed[positions]]
            frequency += np.bincount(self.sparse.terms[positions], minlength=len(frequency))
        return frequency

    def release_pages(self) -> None:
        """Let go of the memory that what was read takes."""
        for array in (self.dense, self.sparse.terms, self.sparse.weights):
            release_pages(array)
