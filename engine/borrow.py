"""Terms that documents borrow from their nearest neighbours in the corpus.

Documents about one subject say it in different words. Each takes over, of the terms that its
nearest documents have and it lacks, those of the largest weight × idf, at their mean weight:

    w(t) = Σⱼ pⱼ · wⱼ(t),   pⱼ ∝ exp(cosⱼ / spread),   j over the nearest by cosine of dense vectors

Its own terms stay as they are, and lenders lend own terms alone, so nothing is handed on. A
document without terms borrows none. Where documents are split, all of this is about passages.

Source: document expansion by the corpus (Tao et al., Language model information retrieval with
document expansion, NAACL 2006), here by dense neighbours and for lacking terms only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from dupmae.engine.numbers import Numbers, split_ordinals
from dupmae.errors import UsageError
from dupmae.indexes.forward import ForwardStore
from dupmae.indexes.kernels import row_positions
from dupmae.types import Bool, Encoded, Float32, Float64, Int32, Int64, SparseVectors

_BORROWERS = 512
"""Documents that borrow at a time: their cosines with a block of lenders take 32 MB."""
_LENDERS = 16384


@dataclass(frozen=True, slots=True)
class Borrow:
    """How documents borrow."""

    neighbours: int = 10
    terms: int = 30
    """At most so many a document."""
    spread: float = 0.1
    """Of cosines; the smaller, the more the nearest counts."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.terms < 1 or not self.spread > 0:
            raise UsageError(
                f"documents borrow from at least 1 neighbour at least 1 term, and the spread is "
                f"above 0; found {self}"
            )

    def __str__(self) -> str:
        return (
            f"{self.terms} borrowed terms of {self.neighbours} neighbours, spread {self.spread:g}"
        )


class Rows:
    """The vectors of several stores in one row, of each those at some ordinals."""

    def __init__(self, stores: Sequence[tuple[ForwardStore, Int64]]) -> None:
        self._stores = [store for store, rows in stores if len(rows)]
        chosen = [rows for _, rows in stores if len(rows)]
        starts = accumulate(map(len, chosen), initial=0)
        self._numbers = [
            Numbers(start, len(rows), rows) for start, rows in zip(starts, chosen, strict=False)
        ]

    def __len__(self) -> int:
        return sum(numbers.size for numbers in self._numbers)

    def dense(self, start: int, end: int) -> Float32:
        """Return copies of dense vectors."""
        places = np.arange(start, min(end, len(self)))
        found = np.empty((len(places), self._stores[0].dim), dtype=np.float32)
        for store, inside, rows in self._split(places):
            found[inside] = store.dense[rows]
        return found

    def own_terms(self, places: Int64) -> tuple[Int64, Int32, Float32]:
        """Return each own term of some vectors: at which of the places, its id, its weight.

        In the order of places and, there, of terms.
        """
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
        for store, inside, rows in self._split(places):
            owners, positions = row_positions(store.sparse, rows)
            if store.borrowed is not None:
                is_own = ~store.borrowed[positions]
                owners, positions = owners[is_own], positions[is_own]
            terms, weights = store.sparse.terms[positions], store.sparse.weights[positions]
            found.append((inside[owners], terms, weights))
        owners, terms, weights = map(np.concatenate, zip(*found, strict=True))
        # Else sums, to their last bit, would depend on the stores that vectors lie in.
        order = np.argsort(owners, kind="stable")
        return owners[order], terms[order], weights[order]

    def idf(self) -> Float64:
        """Return BM25's idf of each term among all these vectors, by their own terms."""
        frequency = np.zeros(len(self._stores[0].frequency))
        for start in range(0, len(self), _BORROWERS):
            places = np.arange(start, min(start + _BORROWERS, len(self)))
            frequency += np.bincount(self.own_terms(places)[1], minlength=len(frequency))
        found: Float64 = np.log1p((len(self) - frequency + 0.5) / (frequency + 0.5))
        return found

    def _split(self, places: Int64) -> Iterator[tuple[ForwardStore, Int64, Int64]]:
        """Yield each store, which of the places are there, and the rows that these are."""
        pairs = list(zip(self._stores, self._numbers, strict=True))
        for (store, numbers), inside in split_ordinals(pairs, self._numbers, places):
            yield store, inside, numbers.local(places[inside])


def borrow_terms(rows: Rows, first: int, settings: Borrow) -> Iterator[tuple[Encoded, Bool]]:
    """Yield the vectors from `first` on with what they borrow, and which terms that is.

    In blocks; memory is bounded by a few of them. What is yielded depends on the vectors and their
    order alone, and not on the stores that they lie in.
    """
    idf = rows.idf()
    for start in range(first, len(rows), _BORROWERS):
        end = min(start + _BORROWERS, len(rows))
        dense = rows.dense(start, end)
        near, cosines = _nearest(rows, dense, start, settings.neighbours)
        shares = np.exp((cosines - cosines[:, :1]) / settings.spread)
        shares /= shares.sum(axis=1, keepdims=True)
        sparse, is_borrowed = _joined(rows, start, end, near, shares, idf, settings.terms)
        yield Encoded(dense, sparse), is_borrowed


def _nearest(rows: Rows, dense: Float32, start: int, count: int) -> tuple[Int64, Float32]:
    """Return the nearest others of the vectors from `start` on, and their cosines, falling.

    There are fewer than `count` columns where there are fewer others. Of equal ones the first comes
    first.
    """
    count = min(count, len(rows) - 1)
    near = np.zeros((len(dense), 0), dtype=np.int64)
    cosines = np.zeros((len(dense), 0), dtype=np.float32)
    queries, selves = _unit(dense), np.arange(start, start + len(dense))
    for begin in range(0, len(rows), _LENDERS):
        found = queries @ _unit(rows.dense(begin, begin + _LENDERS)).T
        inside = np.flatnonzero((selves >= begin) & (selves < begin + found.shape[1]))
        found[inside, selves[inside] - begin] = -np.inf
        kept = min(count, found.shape[1])
        best = np.argpartition(-found, max(0, kept - 1), axis=1)[:, :kept]
        cosines = np.hstack([cosines, np.take_along_axis(found, best, 1)])
        near = np.hstack([near, best + begin])
        order = np.lexsort((near, -cosines), axis=1)[:, :count]
        near = np.take_along_axis(near, order, 1)
        cosines = np.take_along_axis(cosines, order, 1)
    return near, cosines


def _joined(
    rows: Rows, start: int, end: int, near: Int64, shares: Float32, idf: Float64, count: int
) -> tuple[SparseVectors, Bool]:
    """Return own and borrowed terms of some vectors, and which of them are borrowed."""
    size, some = len(idf), end - start
    owners, terms, weights = rows.own_terms(np.arange(start, end))
    own_keys = owners * size + terms
    has_terms = np.bincount(owners, minlength=some) > 0
    slots, lent, lent_weights = rows.own_terms(near.ravel())
    keys, places = np.unique(slots // max(1, near.shape[1]) * size + lent, return_inverse=True)
    share = shares.ravel().astype(np.float64)[slots]
    mean = np.bincount(places, share * lent_weights, minlength=len(keys)).astype(np.float32)
    lacking = ~np.isin(keys, own_keys) & has_terms[keys // size] & (mean > 0)
    keys, mean = keys[lacking], mean[lacking]
    order = np.lexsort((keys, -mean * idf[keys % size], keys // size))
    ranks = np.arange(len(order)) - np.searchsorted(keys // size, keys[order] // size)
    kept = order[ranks < count]
    all_keys = np.concatenate([own_keys, keys[kept]])
    order = np.argsort(all_keys)
    indptr = np.searchsorted(all_keys[order], np.arange(some + 1) * size)
    joined = SparseVectors(
        indptr.astype(np.int64),
        (all_keys[order] % size).astype(np.int32),
        np.concatenate([weights, mean[kept]])[order],
    )
    return joined, order >= len(own_keys)


def _unit(vectors: Float32) -> Float32:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32 = vectors / np.maximum(norms, np.float32(1e-12))
    return unit
