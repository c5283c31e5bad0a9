"""Top-k selection under the one tie rule of all stores: score falling, then ordinal rising."""

from __future__ import annotations

import numpy as np

from dupmae.types import Float64, Int64, Ranking


def top_k(scores: Float64, k: int, ordinals: Int64 | None = None) -> Ranking:
    """Return the k best as a ranking; of documents tied at the last place the smallest ordinals.

    Args:
        scores: (n,) float64, finite.
        k: how many, ≥ 0; above n means all.
        ordinals: (n,) int64, distinct, in any order; 0..n-1 if not given.
    """
    if ordinals is None:
        ordinals = np.arange(len(scores), dtype=np.int64)
    if k <= 0:
        return Ranking(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64))
    if k < len(scores):
        # Keep all that tie with the k-th: a partition alone would keep any of them.
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= kth)
        scores, ordinals = scores[kept], ordinals[kept]
    best = np.lexsort((ordinals, -scores))[:k]
    return Ranking(ordinals[best], scores[best])
