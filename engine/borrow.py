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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from dupmae.engine.rows import Rows
from dupmae.errors import UsageError
from dupmae.types import (
    Bool,
    BorrowingEncoder,
    Encoded,
    Float32,
    Float64,
    Int64,
    SparseVectors,
)

_BORROWERS = 4096
"""Documents whose neighbours are looked for at once; each block reads all lenders."""
_LENDERS = 16384
_SPARE = 6
"""Neighbours more than needed, for the order of those that are nearly as near is not sure."""
_JOINED = 512
"""Documents whose neighbours' terms, some 800,000, are in memory."""


@dataclass(frozen=True, slots=True)
class Borrow:
    """How documents borrow."""

    neighbours: int = 10
    terms: int = 30
    """At most so many a document."""
    spread: float = 0.1
    """Of cosines; the smaller, the more the nearest counts."""

    def __post_init__(self) -> None:
        whole = type(self.neighbours) is type(self.terms) is int
        if not whole or self.neighbours < 1 or self.terms < 1 or not self.spread > 0:
            raise UsageError(
                f"documents borrow from at least 1 neighbour at least 1 term, and the spread is "
                f"above 0; found {self}"
            )

    def __str__(self) -> str:
        return (
            f"{self.terms} borrowed terms of {self.neighbours} neighbours, spread {self.spread:g}"
        )


def usual_borrow(encoder: object) -> Borrow | None:
    """Return how the documents of an encoder borrow unless told otherwise; None: not at all."""
    if isinstance(encoder, BorrowingEncoder) and encoder.borrowed_terms:
        return Borrow(terms=encoder.borrowed_terms)
    return None


def borrow_terms(rows: Rows, first: int, settings: Borrow) -> Iterator[tuple[Encoded, Bool]]:
    """Yield the vectors from `first` on with what they borrow, and which terms that is.

    In blocks; memory is bounded by a few of them. What is yielded depends on the vectors and their
    order alone, and not on the stores that they lie in, nor on threads.
    """
    idf = rows.idf()
    for begin in range(first, len(rows), _BORROWERS):
        places = rows.places(begin, _BORROWERS)
        dense = rows.dense(places)
        near = _near(rows, places, dense, settings.neighbours + _SPARE)
        for start in range(0, len(places), _JOINED):
            some = slice(start, start + _JOINED)
            nearest, cosines = _nearest(rows, dense[some], near[some], settings.neighbours)
            shares = np.exp((cosines - cosines[:, :1]) / settings.spread)
            shares /= shares.sum(axis=1, keepdims=True)
            sparse, is_borrowed = _joined(rows, places[some], nearest, shares, idf, settings.terms)
            yield Encoded(dense[some], sparse), is_borrowed


def _near(rows: Rows, places: Int64, dense: Float32, count: int) -> Int64:
    """Return others that are near the vectors at some places, (n, count) or as many as there are.

    Their order, and who is the last, may depend on threads, by which a product's last bits do.
    """
    count = min(count, len(rows) - 1)
    near = np.zeros((len(places), 0), dtype=np.int64)
    cosines = np.zeros((len(places), 0), dtype=np.float32)
    queries = _unit(dense)
    for begin in range(0, len(rows), _LENDERS):
        lenders = _unit(rows.dense(rows.places(begin, _LENDERS)))
        # One more than asked for: a vector is the nearest of itself.
        kept = min(count + 1, len(lenders))
        found, best = faiss.knn(queries, lenders, kept, metric=faiss.METRIC_INNER_PRODUCT)
        best += begin
        found[best == places[:, np.newaxis]] = -np.inf
        cosines, near = np.hstack([cosines, found]), np.hstack([near, best])
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        near = np.take_along_axis(near, order, 1)
        cosines = np.take_along_axis(cosines, order, 1)
    return near


def _nearest(rows: Rows, dense: Float32, near: Int64, count: int) -> tuple[Int64, Float64]:
    """Return the nearest of those near some vectors, and their cosines, falling.

    Of equal ones the first comes first. Sums are of one order, whatever else is summed.
    """
    lenders = _unit(rows.dense(near.ravel()).astype(np.float64))
    lenders = lenders.reshape(*near.shape, dense.shape[1])
    cosines = (_unit(dense.astype(np.float64))[:, np.newaxis] * lenders).sum(axis=2)
    order = np.lexsort((near, -cosines), axis=1)[:, :count]
    return np.take_along_axis(near, order, 1), np.take_along_axis(cosines, order, 1)


def _joined(
    rows: Rows, places: Int64, near: Int64, shares: Float64, idf: Float64, count: int
) -> tuple[SparseVectors, Bool]:
    """Return own and borrowed terms of the vectors at some places, and which are borrowed."""
    size, some = len(idf), len(near)
    owners, terms, weights = rows.own_terms(places)
    own_keys = owners * size + terms
    has_terms = np.bincount(owners, minlength=some) > 0
    slots, lent, lent_weights = rows.own_terms(near.ravel())
    keys, owner = np.unique(slots // max(1, near.shape[1]) * size + lent, return_inverse=True)
    share = shares.ravel()[slots]
    mean = np.bincount(owner, share * lent_weights, minlength=len(keys)).astype(np.float32)
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


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[Any] = vectors / np.maximum(norms, np.float32(1e-12))
    return unit
