"""The best of both candidate stores to some depth, and the bound of all that neither lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dupmae.engine.weights import Weights
from dupmae.types import Encoded, Float32, Int64, Ranking, SparseVectors

_NO_ORDINALS = np.zeros(0, dtype=np.int64)


class DenseLists(Protocol):
    """What fusion needs of a dense candidate store; see `dupmae.indexes.base.DenseIndex`."""

    def __len__(self) -> int: ...

    def search(self, queries: Float32, k: int) -> list[Ranking]:
        """Return min(k, N) documents a query, best first."""
        ...

    def error_bound(self, query: Float32) -> float:
        """Return by how much a true ⟨q, d⟩ can exceed what is listed."""
        ...


class SparseLists(Protocol):
    """What fusion needs of a sparse candidate store; see `dupmae.indexes.base.SparseIndex`."""

    def __len__(self) -> int: ...

    def search(self, queries: SparseVectors, k: int) -> list[Ranking]:
        """Return at most k documents a query that share a term with it, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Listing:
    """Documents to score, and the most that any other document's part or score can be."""

    ordinals: Int64
    ceiling: float


def read_lists(
    queries: Encoded,
    which: Sequence[int],
    stores: tuple[DenseLists, SparseLists],
    weights: Weights,
    depth: int,
) -> list[Listing]:
    """Read both lists to `depth` < N for some queries; join each pair and bound the rest."""
    dense_lists = _dense_lists(queries.dense[which], stores[0], weights, depth)
    sparse = SparseVectors.from_rows([queries.sparse.row(query) for query in which])
    listed = sparse_lists(sparse, stores[1], weights, depth)
    listings = []
    for dense, sparse_list in zip(dense_lists, listed, strict=True):
        lists = [dense.ordinals, sparse_list.ordinals]
        if weights.dense == 0 and sparse_list.ceiling == 0:
            # Everything unlisted scores exactly 0, so these `depth` ≥ k documents, which score 0
            # or more and have the smallest ordinals, rank before all that stay unlisted.
            lists.append(np.arange(depth))
        ceiling = weights.combine(dense.ceiling, sparse_list.ceiling)
        listings.append(Listing(np.unique(np.concatenate(lists)), float(ceiling)))
    return listings


def _dense_lists(
    queries: Float32, index: DenseLists, weights: Weights, depth: int
) -> list[Listing]:
    """List the dense store's best; an unused store lists nothing and adds nothing to a bound."""
    if weights.dense == 0:
        return [Listing(_NO_ORDINALS, 0.0)] * len(queries)
    listings = []
    for query, ranking in zip(queries, index.search(queries, depth), strict=True):
        listings.append(Listing(ranking.ordinals, dense_ceiling(ranking, index.error_bound(query))))
    return listings


def dense_ceiling(ranking: Ranking, error: float) -> float:
    """Return the most that a document can score which a dense store of that error left out."""
    ceiling = float(ranking.scores[-1])
    if error > 0:  # the sum may round down; the next number above cannot be below the true sum
        ceiling = float(np.nextafter(ceiling + error, np.inf))
    return ceiling


def sparse_lists(
    queries: SparseVectors, index: SparseLists, weights: Weights, depth: int
) -> list[Listing]:
    """List the sparse store's best; a query without terms, or of weight 0, is not even asked."""
    listings = [Listing(_NO_ORDINALS, 0.0)] * len(queries)
    if weights.sparse == 0:
        return listings
    asked = [query for query in range(len(queries)) if len(queries.row(query)[0])]
    if not asked:
        return listings
    rankings = index.search(SparseVectors.from_rows([queries.row(query) for query in asked]), depth)
    for query, ranking in zip(asked, rankings, strict=True):
        # A list that ends early holds all documents that share a term: the others have part 0.
        ceiling = float(ranking.scores[-1]) if len(ranking) == depth else 0.0
        listings[query] = Listing(ranking.ordinals, ceiling)
    return listings
