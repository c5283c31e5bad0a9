"""What a candidate store promises; `dupmae.indexes.exact` is the judge of all others.

The forward store (`forward.py`) holds every vector and defines what a score is. Candidate stores
are derived from it: built once for N documents with ordinals 0..N-1, then read-only. A search may
be restricted to some of them, `allowed` (N,) bool, and is then one of a store that holds no others.
"""

from __future__ import annotations

from typing import Protocol

from dupmae.types import Bool, Float32, Ranking, SparseVectors


class DenseIndex(Protocol):
    """Best documents by ⟨q, d⟩ over dense vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def __len__(self) -> int: ...

    def search(self, queries: Float32, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return min(k, N) documents a query, best first.

        Args:
            queries: (m, dim) float32, finite.
            k: how many, ≥ 1; above N means all.
            allowed: (N,), which documents count, N being then their number; all if not given.
        """
        ...

    def error_bound(self, query: Float32) -> float:
        """Return ε such that the true ⟨q, d⟩ of any document is at most its listed score + ε.

        An allowed document that is not listed scores at most the last listed score + ε.
        """
        ...


class SparseIndex(Protocol):
    """Best documents by ⟨q, d⟩ over sparse vectors; scores are upper bounds.

    `search` returns at most k of the allowed documents that share a term with the query: every
    listed score is ≥ the true one, and every allowed document that is not listed truly scores ≤ the
    last listed score (or 0 if fewer than k are listed). Among documents tied at the last place any
    may be listed. `exact.py` gives true scores; a rounding store gives scores rounded up.
    """

    def __len__(self) -> int: ...

    def search(self, queries: SparseVectors, k: int, allowed: Bool | None = None) -> list[Ranking]:
        """Return at most k documents a query, best first; k ≥ 1, above N means all."""
        ...
