"""Brute force over all documents: the judge of every other store, and enough for small indexes.

Scores equal those of the forward store to the last bit.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, csr_array

from dupmae.indexes.scores import dense_scores
from dupmae.indexes.topk import top_k
from dupmae.types import Bool, Float32, Int32, Ranking, SparseVectors


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
        rows = csr_array(
            (vectors.weights, vectors.terms, vectors.indptr), shape=(len(vectors), vocabulary_size)
        )
        self._columns: csc_array[np.float32] = rows.tocsc()

    def __len__(self) -> int:
        return int(self._columns.shape[0])

    def search(self, queries: SparseVectors, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return at most k documents a query, best first."""
        return [self._search(terms, weights, k, allowed) for terms, weights in queries]

    def _search(self, terms: Int32, weights: Float32, k: int, allowed: Bool | None) -> Ranking:
        # Columns are added by rising term with exact products: the sum of `sparse_scores`.
        products = self._columns[:, terms] @ weights.astype(np.float64)
        scores = np.asarray(products, dtype=np.float64)
        if allowed is not None:
            scores = scores * allowed
        sharing = np.flatnonzero(scores > 0)  # products of weights > 0 never vanish in float64
        return top_k(scores[sharing], k, sharing)
