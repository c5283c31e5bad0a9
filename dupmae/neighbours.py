"""An order of rows in which neighbours are alike, so that a block of rows is hard to tell apart.

Labels teach nothing where any text but the own one is off the topic. Rows are split in two at the
median of their first principal component, again and again: each block at the end holds rows that
share many rare terms. It costs no encoding, and no text beyond a batch's own.

Source: the principal direction divisive partitioning of Boley (1998), here at medians.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from dupmae.types import Float32, Int64

POWER_STEPS = 6
"""Of the power iteration: a split needs a direction along which rows differ, not the best one."""


def neighbour_order(texts: Sequence[Sequence[int]], vocabulary_size: int, block: int) -> Int64:
    """Return a permutation of texts in which each run of about `block` is alike.

    Args:
        texts: token ids, without specials.
        vocabulary_size: one more than the largest id.
        block: at least 1; each leaf holds as many, but the last, which holds what is left.
    """
    order: Int64 = np.arange(len(texts))
    if len(texts) <= block:
        return order
    vectors = _tfidf(texts, vocabulary_size)
    pending = [(0, len(texts))]
    while pending:
        start, end = pending.pop()
        if end - start <= block:
            continue
        part = order[start:end]
        part = part[np.argsort(_first_component(vectors[part]), kind="stable")]
        order[start:end] = part
        # Whole blocks to the left: a median would leave leaves of all sizes.
        middle = start + max(1, round((end - start) / 2 / block)) * block
        if start < middle < end:
            pending += [(start, middle), (middle, end)]
    return order


def _tfidf(texts: Sequence[Sequence[int]], vocabulary_size: int) -> csr_matrix:
    """Return rows of length 1, weighted by log(1 + frequency) · idf."""
    indptr = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in texts], out=indptr[1:])
    ids = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in texts])
    counts = csr_matrix(
        (np.ones(len(ids), dtype=np.float32), ids, indptr), shape=(len(texts), vocabulary_size)
    )
    counts.sum_duplicates()
    frequency = np.bincount(counts.indices, minlength=vocabulary_size)
    idf = np.log(len(texts) / np.maximum(frequency, 1)).astype(np.float32)
    counts.data = np.log1p(counts.data) * idf[counts.indices]
    rows = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
    norm = np.sqrt(np.bincount(rows, weights=counts.data**2, minlength=len(texts)))
    counts.data /= np.maximum(norm, 1e-12)[rows].astype(np.float32)
    return counts


def _first_component(vectors: csr_matrix) -> Float32:
    """Return each row's coordinate (n,) along the direction in which rows differ most."""
    mean = np.asarray(vectors.mean(axis=0)).ravel().astype(np.float32)
    along: Float32 = np.random.default_rng(0).standard_normal(vectors.shape[0]).astype(np.float32)
    for _ in range(POWER_STEPS):
        direction = vectors.T @ along - mean * along.sum()
        direction /= max(float(np.linalg.norm(direction)), 1e-12)
        along = vectors @ direction - float(mean @ direction)
    return along
