"""Records and protocols that cross packages; every record is frozen and checks itself when made.

Data flows one way: texts → `Encoded` → one `Ranking` a store → fused `Ranking` → `SearchResult`
(`results.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found, with the id by which users know it."""

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.doc_id:
            raise ValueError("a document needs a non-empty id")

    @property
    def content(self) -> str:
        """What is encoded: title and text joined by one space, BEIR's convention."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class SparseVectors:
    """A batch of sparse vectors over the vocabulary, in compressed rows (CSR).

    `indptr` (n + 1,) int64 starts at 0 and never falls; row i is
    `terms[indptr[i]:indptr[i + 1]]` (int32, strictly increasing in a row, not negative) with
    `weights` (float32, > 0 and finite) beside it. The arrays may be memory-mapped.
    """

    indptr: Int64
    terms: Int32
    weights: Float32

    def __post_init__(self) -> None:
        if self.indptr.ndim != 1 or len(self.indptr) == 0 or self.indptr[0] != 0:
            raise ValueError("indptr must be one-dimensional and start with 0")
        if np.any(np.diff(self.indptr) < 0) or self.indptr[-1] != len(self.terms):
            raise ValueError("indptr must not fall and must end with the number of terms")
        if len(self.terms) != len(self.weights):
            raise ValueError(f"{len(self.terms)} terms but {len(self.weights)} weights")
        dtypes = (self.indptr.dtype, self.terms.dtype, self.weights.dtype)
        if dtypes != (np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)):
            raise ValueError(f"expected dtypes int64, int32, float32, found {dtypes}")

    def check(self) -> SparseVectors:
        """Read every value and raise ValueError unless each row keeps the rules above."""
        if len(self.terms) == 0:
            return self
        if self.terms.min() < 0:
            raise ValueError("a term id is negative")
        row_starts = np.zeros(len(self.terms), dtype=bool)
        row_starts[self.indptr[:-1][np.diff(self.indptr) > 0]] = True
        if not np.all(row_starts[1:] | (np.diff(self.terms) > 0)):
            raise ValueError("terms must be strictly increasing in each row")
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise ValueError("weights must be finite and greater than 0")
        return self

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, index: int) -> tuple[Int32, Float32]:
        """Return terms (nnz,) and weights (nnz,) of one vector."""
        start, end = self.indptr[index], self.indptr[index + 1]
        return self.terms[start:end], self.weights[start:end]

    def rows(self, start: int, end: int) -> SparseVectors:
        """Return vectors start..end-1 as a batch of their own (views, not copies)."""
        first, last = self.indptr[start], self.indptr[end]
        return SparseVectors(
            self.indptr[start : end + 1] - first, self.terms[first:last], self.weights[first:last]
        )

    def __iter__(self) -> Iterator[tuple[Int32, Float32]]:
        return (self.row(index) for index in range(len(self)))

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[Int32, Float32]]) -> SparseVectors:
        """Join (terms, weights) pairs, one a vector."""
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(terms) for terms, _ in rows], out=indptr[1:])
        terms = [np.asarray(terms, dtype=np.int32) for terms, _ in rows]
        weights = [np.asarray(weights, dtype=np.float32) for _, weights in rows]
        return cls(
            indptr,
            np.concatenate(terms) if terms else np.zeros(0, dtype=np.int32),
            np.concatenate(weights) if weights else np.zeros(0, dtype=np.float32),
        )

    @classmethod
    def join(cls, batches: Sequence[SparseVectors]) -> SparseVectors:
        """Stack batches one below the other."""
        return cls.from_rows([row for batch in batches for row in batch])


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder says of n texts: `dense` (n, dim) float32 and n sparse vectors."""

    dense: Float32
    sparse: SparseVectors

    def __post_init__(self) -> None:
        if self.dense.ndim != 2 or self.dense.dtype != np.float32:
            raise ValueError(
                f"dense must be (n, dim) float32, found {self.dense.shape} {self.dense.dtype}"
            )
        if len(self.dense) != len(self.sparse):
            raise ValueError(f"{len(self.dense)} dense but {len(self.sparse)} sparse vectors")

    def __len__(self) -> int:
        return len(self.dense)


@dataclass(frozen=True, slots=True, eq=False)
class TermSpans:
    """Where terms occur in a text, by rising start.

    Term `terms[i]` (n,) int32 has the characters from `starts[i]` to `ends[i]`, (n,) int64. Several
    pieces of one character share its place.
    """

    terms: Int32
    starts: Int64
    ends: Int64

    def __post_init__(self) -> None:
        if not len(self.terms) == len(self.starts) == len(self.ends):
            raise ValueError("terms, starts and ends must be equally long")
        if np.any(self.starts < 0) or np.any(self.starts > self.ends):
            raise ValueError("a span must not start before the text or after its own end")
        if np.any(np.diff(self.starts) < 0):
            raise ValueError("spans must be in the order of the text")


@dataclass(frozen=True, slots=True)
class CorpusStatistics:
    """What an index knows of its terms: `frequency` (V,) int64, in how many documents each is."""

    documents: int
    frequency: Int64

    def idf(self, terms: Int32 | None = None) -> Float64:
        """Return log(1 + (N − df + ½) / (df + ½)) of terms, or of all: BM25's idf, above 0."""
        frequency = self.frequency if terms is None else self.frequency[terms]
        idf: Float64 = np.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))
        return idf


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents by falling score, ties by smaller ordinal.

    `ordinals` (m,) int64, distinct; `scores` (m,) float64, non-increasing. Scores are float64
    so that the exact sum of float32 products keeps its order.
    """

    ordinals: Int64
    scores: Float64

    def __post_init__(self) -> None:
        if self.ordinals.dtype != np.int64 or self.scores.dtype != np.float64:
            raise ValueError("expected int64 ordinals and float64 scores")
        if self.ordinals.shape != self.scores.shape or self.ordinals.ndim != 1:
            raise ValueError("ordinals and scores must be one-dimensional and equally long")
        before, after = self.scores[:-1], self.scores[1:]
        falls = after < before
        if not (falls.all() or np.all(falls | ((after == before) & (np.diff(self.ordinals) > 0)))):
            raise ValueError("scores must not rise, and ties must be ordered by ordinal")

    def __len__(self) -> int:
        return len(self.ordinals)


@dataclass(frozen=True, slots=True)
class Passage:
    """The `number`-th passage of a document, from 1: its text's characters `start` to `end` − 1."""

    number: int
    start: int
    end: int


class TextEncoder(Protocol):
    """What the engine needs of an encoder; `dupmae.encoder.Encoder` is one.

    `seal` is a hex digest of all that decides vectors (weights, tokenizer, pooling, lengths,
    activation); two encoders with equal seals give equal vectors up to float rounding.
    """

    @property
    def name(self) -> str:
        """What users call the encoder."""
        ...

    @property
    def seal(self) -> str:
        """Hex digest of all that decides the vectors."""
        ...

    @property
    def dense_dim(self) -> int:
        """Dimensions of a dense vector."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest term id."""
        ...

    def encode_queries(
        self, texts: Sequence[str], corpus: CorpusStatistics | None = None
    ) -> Encoded:
        """Encode texts as queries, in their order, for use on the given corpus or on any."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        """Encode texts as documents, in their order."""
        ...

    def term_texts(self, terms: Sequence[int]) -> list[str]:
        """Return the vocabulary's entries for the given term ids."""
        ...


@runtime_checkable
class TokenisingEncoder(Protocol):
    """An encoder whose `encode_documents` comes in two halves, of which two blocks may overlap."""

    def tokenise_documents(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Return each text's token ids; called in another thread than all else."""
        ...

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        """Encode what `tokenise_documents` returned, in its order."""
        ...


@runtime_checkable
class BorrowingEncoder(Protocol):
    """An encoder whose documents are meant to borrow terms of their neighbours in an index."""

    @property
    def borrowed_terms(self) -> int:
        """Terms that a document borrows at most, unless an index is told otherwise; 0: none."""
        ...


@runtime_checkable
class LocatingEncoder(Protocol):
    """An encoder that can say where in a text its terms stand."""

    def locate_terms(
        self, texts: Sequence[str], wanted: Sequence[Int32 | None] | None = None
    ) -> list[TermSpans]:
        """Return where each text's own terms occur, as far as it is read as a document.

        Args:
            texts: any strings.
            wanted: of each text that is read whole, which terms (m,) to look for; others need not
                be in the answer. None: all.
        """
        ...


@runtime_checkable
class RuntimeEncoder(Protocol):
    """An encoder that says what runs it; two of equal seal and runtime give equal vectors."""

    @property
    def runtime(self) -> str:
        """Library and version, precision and processor, in one line."""
        ...


@runtime_checkable
class ReadingEncoder(TokenisingEncoder, Protocol):
    """A `TokenisingEncoder` that can say how much of a text it reads."""

    @property
    def max_document_length(self) -> int:
        """Tokens of a document that are read, special ones included."""
        ...

    def read_documents(self, texts: Sequence[str]) -> tuple[Sequence[Sequence[int]], list[bool]]:
        """Return what `tokenise_documents` does, and which texts go on behind what is read."""
        ...

    def token_spans(self, texts: Sequence[str]) -> list[Int64]:
        """Return the characters (first, one behind the last) of all of each text's tokens, (n, 2).

        Nothing is cut off; special tokens are left out.
        """
        ...
