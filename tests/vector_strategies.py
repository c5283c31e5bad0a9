"""Vectors written out, skewed as words are, and random, from tame to the edges of float32."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import SearchStrategy

from dupmae.types import Float32, SparseVectors

VOCABULARY = 12
LARGE_VOCABULARY = 3000

WEIGHTS = st.one_of(
    st.sampled_from([0.5, 1.0, 2.0]),  # ties
    st.floats(0.015625, 4.0, width=32),
    st.floats(0.0, exclude_min=True, width=32, allow_infinity=False),
)


def sparse_vectors(
    min_size: int = 0, max_size: int = 12, weights: SearchStrategy[float] = WEIGHTS
) -> SearchStrategy[SparseVectors]:
    """Batches over a vocabulary of 12 terms; rows may be empty."""
    row = st.dictionaries(st.integers(0, VOCABULARY - 1), weights, max_size=VOCABULARY)
    return st.lists(row, min_size=min_size, max_size=max_size).map(lambda rows: batch(*rows))


def batch(*rows: dict[int, float]) -> SparseVectors:
    """Return rows of weights by term as vectors."""
    return SparseVectors.from_rows(
        [
            (np.array(sorted(row), np.int32), np.array([row[t] for t in sorted(row)], np.float32))
            for row in rows
        ]
    ).check()


def skewed(size: int, nonzeros: int, seed: int) -> SparseVectors:
    """Return vectors whose terms are as unequally frequent as the words of a large vocabulary."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(size):
        terms = np.unique((LARGE_VOCABULARY ** rng.random(nonzeros)).astype(np.int32) - 1)
        weights = rng.exponential(0.4, len(terms)).astype(np.float32) + np.float32(0.01)
        rows.append((terms, weights))
    return SparseVectors.from_rows(rows).check()


def dense_vectors(rows: SearchStrategy[int], dim: int) -> SearchStrategy[Float32]:
    """Matrices (n, dim) float32, of whole numbers (ties) or of any up to 1e6."""
    whole = st.integers(-3, 3).map(float)
    real = st.floats(-1e6, 1e6, width=32)
    return rows.flatmap(
        lambda n: st.one_of(
            *(arrays(np.float32, (n, dim), elements=elements) for elements in (whole, real))
        )
    )
