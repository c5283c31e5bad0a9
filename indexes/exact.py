"""Brute force over all documents: the judge of every other store, and enough for small indexes.

Scores equal those of the forward store to the last bit.
"""

from __future__ import annotations

import numpy as np

from dupmae.indexes.scores import dense_scores
from dupmae.indexes.topk import top_k
from dupmae.types import Bool, Float32, Int32, Int64, Ranking, SparseVectors


class ExactDense:
    """All documents by ⟨q, d⟩; `vectors` (N, dim) float32 may be memory-mapped."""

    def __init__(self, vectors: Float32) -> None:
        self._vectors = vectors

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Float32, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return min(k, N) documents for each query (m, dim), best first."""
        ordinals = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        return [
            top_k(dense_scores(self._vectors, query, ordinals), k, ordinals) for query in queries
        ]

    def error_bound(self, query: Float32) -> float:
        """Return 0: these scores are the definition."""
        return 0.0


class ExactSparse:
    """All documents that share a term with the query, by ⟨q, d⟩; holds a transposed copy."""

    def __init__(self, vectors: SparseVectors, vocabulary_size: int) -> None:
        order = np.argsort(vectors.terms, kind="stable")
        owners = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
        self._size = len(vectors)
        self._indptr: Int64 = np.searchsorted(vectors.terms[order], np.arange(vocabulary_size + 1))
        self._ordinals: Int64 = owners[order]
        self._weights: Float32 = vectors.weights[order]

    def __len__(self) -> int:
        return self._size

    def search(self, queries: SparseVectors, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return at most k documents a query, best first."""
        return [self._search(terms, weights, k, allowed) for terms, weights in queries]

    def _search(self, terms: Int32, weights: Float32, k: int, allowed: Bool | None) -> Ranking:
        scores = np.zeros(self._size)
        # Exact products, added by rising term: the sum of `sparse_scores`.
        for term, weight in zip(terms.tolist(), weights.astype(np.float64), strict=True):
            own = slice(self._indptr[term], self._indptr[term + 1])
            scores[self._ordinals[own]] += weight * self._weights[own]
        if allowed is not None:
            scores = scores * allowed
        sharing = np.flatnonzero(scores > 0)  # products of weights > 0 never vanish in float64
        return top_k(scores[sharing], k, sharing)
