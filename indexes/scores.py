"""What a score is, to the last bit: float64 sums of exact products, one document at a time.

A product of two float32 numbers is exact in float64, so only the order of a sum decides its
bits. Both functions fix that order by the document alone: a score never depends on which other
documents are scored beside it. (BLAS does not keep that: it sums differently for other shapes.)
"""

from __future__ import annotations

import numpy as np

from dupmae.indexes.kernels import score_dense, score_sparse
from dupmae.types import Float32, Float64, Int32, Int64, SparseVectors


def dense_scores(vectors: Float32, query: Float32, ordinals: Int64) -> Float64:
    """Return ⟨query, vectors[ordinal]⟩ for each ordinal, (m,) float64; reads only those rows.

    Each row is summed by NumPy's pairwise scheme over its own products.

    Args:
        vectors: (N, dim) float32, may be memory-mapped.
        query: (dim,) float32.
        ordinals: (m,) int64, any order.

    Raises:
        IndexError: if there is no such ordinal.
    """
    if query.shape != vectors.shape[1:]:
        raise ValueError(f"expected a query of shape {vectors.shape[1:]}, found {query.shape}")
    return score_dense(vectors, query.astype(np.float64), _checked(ordinals, len(vectors)))


def sparse_scores(
    vectors: SparseVectors, query_terms: Int32, query_weights: Float32, ordinals: Int64
) -> Float64:
    """Return the sparse dot product for each ordinal, (m,) float64; reads only those rows.

    Products of shared terms are added one by one, by rising term.

    Args:
        vectors: N documents, may be memory-mapped.
        query_terms: (nnz,) int32, strictly increasing.
        query_weights: (nnz,) float32.
        ordinals: (m,) int64, any order.

    Raises:
        IndexError: if there is no such ordinal.
    """
    ordinals = _checked(ordinals, len(vectors))
    if len(query_terms) == 0:
        return np.zeros(len(ordinals))
    # Looked up, not searched for: most of a document's terms are not the query's.
    query = np.zeros(int(query_terms.max()) + 1)
    query[query_terms] = query_weights
    return score_sparse(vectors, query, ordinals)


def _checked(ordinals: Int64, documents: int) -> Int64:
    """Return ordinals as compiled code can read them, which would read what is not there too."""
    outside = ordinals[(ordinals < 0) | (ordinals >= documents)]
    if len(outside):
        raise IndexError(f"expected ordinals from 0 to below {documents}, found {outside[0]}")
    return np.ascontiguousarray(ordinals, dtype=np.int64)
