"""What a score is, to the last bit: float64 sums of exact products, one document at a time.

A product of two float32 numbers is exact in float64, so only the order of a sum decides its
bits. Both functions fix that order by the document alone: a score never depends on which other
documents are scored beside it. (BLAS does not keep that: it sums differently for other shapes.)
"""

from __future__ import annotations

import numpy as np

from dupmae.types import Float32, Float64, Int32, Int64, SparseVectors

_BLOCK = 1024
"""Documents gathered at a time: 1024 × 384 float64 (3 MiB) still fit a processor's cache."""


def dense_scores(vectors: Float32, query: Float32, ordinals: Int64) -> Float64:
    """Return ⟨query, vectors[ordinal]⟩ for each ordinal, (m,) float64; reads only those rows.

    Each row is summed by NumPy's pairwise scheme over its own products.

    Args:
        vectors: (N, dim) float32, may be memory-mapped.
        query: (dim,) float32.
        ordinals: (m,) int64, any order.
    """
    if query.shape != vectors.shape[1:]:
        raise ValueError(f"expected a query of shape {vectors.shape[1:]}, found {query.shape}")
    scores = np.empty(len(ordinals), dtype=np.float64)
    query = query.astype(np.float64)
    for start in range(0, len(ordinals), _BLOCK):
        block = slice(start, start + _BLOCK)
        np.add.reduce(vectors[ordinals[block]] * query, axis=1, out=scores[block])
    return scores


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
    """
    scores = np.zeros(len(ordinals), dtype=np.float64)
    if len(query_terms) == 0:
        return scores
    weights = query_weights.astype(np.float64)
    for start in range(0, len(ordinals), _BLOCK):
        block = ordinals[start : start + _BLOCK]
        owners, positions = row_positions(vectors, block)
        terms = vectors.terms[positions]
        places = np.minimum(np.searchsorted(query_terms, terms), len(query_terms) - 1)
        shared = np.flatnonzero(query_terms[places] == terms)
        products = weights[places[shared]] * vectors.weights[positions[shared]]
        # bincount adds in the order given: terms rise within each row, so the sum does too.
        scores[start : start + len(block)] = np.bincount(
            owners[shared], weights=products, minlength=len(block)
        )
    return scores


def row_positions(vectors: SparseVectors, ordinals: Int64) -> tuple[Int64, Int64]:
    """Return, for every non-zero of the rows asked for, its place in `ordinals` and in `terms`."""
    starts = vectors.indptr[ordinals]
    lengths = vectors.indptr[ordinals + 1] - starts
    ends = np.cumsum(lengths)
    owners = np.repeat(np.arange(len(ordinals), dtype=np.int64), lengths)
    positions = np.arange(len(owners), dtype=np.int64) + np.repeat(
        starts - (ends - lengths), lengths
    )
    return owners, positions
