"""Dense candidates by Faiss, searching the forward store's own matrix: no second copy of it."""

from __future__ import annotations

from functools import cached_property

import faiss
import numpy as np

from dupmae.indexes.topk import top_k
from dupmae.types import Bool, Float32, Int64, Ranking

_UNIT_FLOAT32 = 2.0**-24
_UNIT_FLOAT64 = 2.0**-53
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


class FaissFlat:
    """Exact search up to float32 rounding; `vectors` (N, dim) float32 may be memory-mapped.

    Of documents that Faiss scores the same at the last place any may be listed.
    """

    def __init__(self, vectors: Float32) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
            # Faiss would copy anything else at every search.
            raise ValueError("expected a row-wise (N, dim) matrix of float32")
        self._vectors = vectors

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Float32, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return min(k, N) documents for each query (m, dim), best first."""
        k = min(k, len(self) if allowed is None else int(np.count_nonzero(allowed)))
        if k == 0 or len(queries) == 0:
            return [top_k(np.zeros(0), 0) for _ in queries]
        if allowed is None:
            scores, ordinals = faiss.knn(queries, self._vectors, k, faiss.METRIC_INNER_PRODUCT)
        else:
            scores, ordinals = self._knn_allowed(queries, k, allowed)
        return [
            top_k(row.astype(np.float64), k, found)
            for row, found in zip(scores, ordinals, strict=True)
        ]

    def _knn_allowed(self, queries: Float32, k: int, allowed: Bool) -> tuple[Float32, Int64]:
        """Do what `faiss.knn` does, which takes no selector, over some documents."""
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        queries = np.ascontiguousarray(queries)
        scores = np.empty((len(queries), k), dtype=np.float32)
        ordinals = np.empty((len(queries), k), dtype=np.int64)
        faiss.knn_inner_product(
            faiss.swig_ptr(queries),
            faiss.swig_ptr(self._vectors),
            self.dim,
            len(queries),
            len(self),
            k,
            faiss.swig_ptr(scores),
            faiss.swig_ptr(ordinals),
            selector,
        )
        return scores, ordinals

    def error_bound(self, query: Float32) -> float:
        """Return the most by which a forward score can exceed Faiss' float32 sum of products.

        γ_dim·Σ|q_i·d_i| ≤ γ_dim·‖q‖·max‖d‖ with γ_n = n·u / (1 − n·u), whatever the order of the
        sum, in float32 for Faiss and in float64 for the forward store; and what products too
        small for float32 may lose.

        Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), eq. 3.5.
        """
        norm = float(np.linalg.norm(query.astype(np.float64)))
        gamma = _gamma(self.dim, _UNIT_FLOAT32) + _gamma(self.dim, _UNIT_FLOAT64)
        bound = gamma * norm * self._largest_norm + 2 * self.dim * _SMALLEST_NORMAL
        return bound * (1 + 1e-9)  # covers the rounding of the lines above

    @cached_property
    def _largest_norm(self) -> float:
        """An upper bound of all ‖d‖: one pass over the matrix, about the cost of one query."""
        if len(self) == 0:
            return 0.0
        squares = np.einsum("ij,ij->i", self._vectors, self._vectors)  # float32, by C not BLAS
        largest = float(squares.max()) + 2 * self.dim * _SMALLEST_NORMAL
        return float(np.sqrt(largest / (1 - _gamma(self.dim, _UNIT_FLOAT32)))) * (1 + 1e-9)


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)
