"""Corpora of any size, drawn from the vectors of real documents.

A drawn document lies between a real one, i, and one of its nearest neighbours, j. Its dense vector
is λ·d_i + (1 − λ)·d_j, λ from ½ to 1, plus half the difference of two other neighbours of i, so
that noise has the covariance that documents of this topic have, taken to the length of d_i. It
takes each term of i with a probability of ¾ and each of j with ¼, weights changed by a factor of
spread 0.2. So topics, lengths and frequencies of terms stay as they are; real corpora of a size
have more topics and rarer terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np

from dupmae.engine import read_manifest
from dupmae.engine.opened import open_segments
from dupmae.indexes.kernels import row_positions
from dupmae.types import Encoded, Float32, Int64, SparseVectors

NEIGHBOURS = 8
"""From which j and the noise are taken."""
KEPT = 0.75
WEIGHT_SPREAD = 0.2
BLOCK = 8192
"""Documents drawn at a time."""


def real_vectors(folders: Sequence[Path]) -> Encoded:
    """Return the vectors of all live documents of some indexes, with what they borrow."""
    blocks = []
    for folder in folders:
        segments = open_segments(folder, read_manifest(folder), {})
        for segment in segments.values():
            forward, live = segment.forward, segment.live_rows()
            rows = [forward.sparse_row(row) for row in live.tolist()]
            blocks.append(Encoded(forward.dense[live], SparseVectors.from_rows(rows)))
            segment.documents.close()
    return Encoded(
        np.concatenate([block.dense for block in blocks]),
        SparseVectors.join([block.sparse for block in blocks]),
    )


def draw(real: Encoded, size: int, rng: np.random.Generator) -> Iterator[Encoded]:
    """Yield `size` documents in blocks: real ones as long as there are enough, else drawn ones."""
    if size <= len(real):
        chosen = rng.choice(len(real), size, replace=False)
        rows = [real.sparse.row(row) for row in chosen.tolist()]
        yield Encoded(real.dense[chosen], SparseVectors.from_rows(rows))
        return
    _, near = faiss.knn(real.dense, real.dense, NEIGHBOURS + 1, faiss.METRIC_INNER_PRODUCT)
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        first = rng.integers(0, len(real), count)
        others = near[first[:, None], 1 + rng.random((count, NEIGHBOURS)).argsort(axis=1)[:, :3]]
        yield Encoded(
            _drawn_dense(real.dense, first, others, rng),
            _drawn_sparse(real.sparse, first, others[:, 0], rng),
        )


def _drawn_dense(dense: Float32, first: Int64, others: Int64, rng: np.random.Generator) -> Float32:
    """Mix rows `first` (n,) and `others` (n, 3) of real vectors."""
    share = rng.uniform(0.5, 1, (len(first), 1)).astype(np.float32)
    mixed = share * dense[first] + (1 - share) * dense[others[:, 0]]
    mixed += (dense[others[:, 1]] - dense[others[:, 2]]) / 2
    lengths = np.linalg.norm(dense[first], axis=1) / np.linalg.norm(mixed, axis=1)
    return mixed * lengths[:, None].astype(np.float32)


def _drawn_sparse(
    sparse: SparseVectors, first: Int64, second: Int64, rng: np.random.Generator
) -> SparseVectors:
    """Mix the terms of rows `first` (n,) and `second` (n,) of real vectors."""
    owners, positions = [], []
    for rows, share in ((first, KEPT), (second, 1 - KEPT)):
        own, places = row_positions(sparse, rows)
        kept = rng.random(len(own)) < share
        owners.append(own[kept])
        positions.append(places[kept])
    owner, position = np.concatenate(owners), np.concatenate(positions)
    size = int(sparse.terms.max()) + 1
    distinct, places = np.unique(owner * size + sparse.terms[position], return_index=True)
    weights = sparse.weights[position[places]] * np.exp(
        rng.normal(0, WEIGHT_SPREAD, len(places)).astype(np.float32)
    )
    row, terms = np.divmod(distinct, size)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(first)))])
    return SparseVectors(indptr.astype(np.int64), terms.astype(np.int32), weights)
