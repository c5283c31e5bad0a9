"""Fusion of two candidate lists into the exact top k, with a proof.

A document scores s(d) = w_d·dense(d) + w_s·sparse(d), and `Weights.combine` is the only place
that computes it. Both stores list their best n documents: D, falling to d_n with error bound ε,
and S, upper bounds falling to s_n (s_n = 0 where S holds fewer than n). All listed documents are
scored exactly from the forward store.

Theorem. A document in neither list scores at most B = w_d·(d_n + ε) + w_s·s_n. So if the k-th
exact score is above B, or equal to B with every smaller ordinal scored, the top k is proven.

Proof. Not in D, so dense(d) ≤ d_n + ε; not in S, so sparse(d) ≤ s_n; the weights are not
negative. Rounding is monotone (x ≤ y gives fl(x) ≤ fl(y)) and B is computed by the same
`combine` as every score, so the inequality survives floating point without slack. Above B no
unlisted document reaches the k-th hit; at B it can tie, and then loses if its ordinal is larger. ∎

Until the proof holds n grows; at n = N every document has been scored and nothing is left to prove.

Stores that can bound the sum of both parts for every document are not asked for lists: see
`scan.py`, which names documents to score and the ceiling of all others in the same way.

Source: Fagin, Lotem, Naor 2003, "Optimal aggregation algorithms for middleware" (the threshold
algorithm, here with lists read in whole rounds).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np

from dupmae.errors import UsageError
from dupmae.indexes.topk import top_k
from dupmae.types import Encoded, Float32, Float64, Int32, Int64, Ranking, SparseVectors

FIRST_DEPTH = 64
"""Proves nearly every top 10 in one round: on real text a depth of 66 was the most needed."""

DEPTH_PER_HIT = 2
"""The first round reads at least this many times k: fewer seldom prove, more seldom help."""

GROWTH = 4
"""Each round reads lists this many times deeper; their cost grows far more slowly than n."""

MAX_WEIGHT = 1e100
"""Below this no sum of float32 products can overflow float64, so no score is ever infinite."""


class ForwardScorer(Protocol):
    """What fusion needs of the forward store: the definition of a score's two parts."""

    def __len__(self) -> int: ...

    def score(
        self, dense_query: Float32, query_terms: Int32, query_weights: Float32, ordinals: Int64
    ) -> tuple[Float64, Float64]:
        """Return ⟨q, d⟩ of the dense and of the sparse vectors, each (m,), for m documents."""
        ...


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
class Weights:
    """How much each part counts: s = `dense`·⟨q, d⟩_dense + `sparse`·⟨q, d⟩_sparse.

    `feedback` is β of `feedback.py`, which makes q; with 0 it is what the encoder gave.
    """

    dense: float = 1.0
    sparse: float = 1.0
    feedback: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dense", "sparse", "feedback"):
            weight = getattr(self, name)
            if not 0 <= weight <= MAX_WEIGHT:  # false for NaN too
                raise UsageError(
                    f"the {name} weight must be from 0 to {MAX_WEIGHT:g}, found {weight}"
                )
        if self.dense == 0 and self.sparse == 0:
            raise UsageError("one of the two weights must be above 0, found both 0")

    @overload
    def combine(self, dense: float, sparse: float) -> float: ...

    @overload
    def combine(self, dense: Float64, sparse: Float64) -> Float64: ...

    def combine(self, dense: float | Float64, sparse: float | Float64) -> float | Float64:
        """Return the score of parts: two products, each rounded, then their rounded sum."""
        return self.dense * dense + self.sparse * sparse


@dataclass(frozen=True, slots=True)
class Listing:
    """Documents to score, and the most that any other document's part or score can be."""

    ordinals: Int64
    ceiling: float


class Candidates(Protocol):
    """What fusion needs of a scan of one query; see `dupmae.engine.scan.Scan`."""

    def sharing(self) -> Int64:
        """Return the first documents to score, rising."""
        ...

    def block(self, floor: float) -> Listing:
        """Return the next ones, the k-th score being `floor`, and the ceiling of all others."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The forward store and the two candidate stores made from it.

    `scan` begins a scan: of a query's dense vector, terms and weights, to so many documents first.
    """

    forward: ForwardScorer
    dense: DenseLists
    sparse: SparseLists
    scan: Callable[[tuple[Float32, Int32, Float32], Weights, int], Candidates] | None = None

    def __post_init__(self) -> None:
        lengths = (len(self.forward), len(self.dense), len(self.sparse))
        if len(set(lengths)) != 1:
            raise ValueError(f"forward, dense and sparse store hold {lengths} documents")


@dataclass(frozen=True, slots=True)
class Fused:
    """The best k of the scored documents, and whether they are the best k of all.

    `dense` and `sparse` (m,) are the parts of `ranking.scores`; `bound` is B (−inf if every
    document was scored); `depth` is n, the length to which both lists were read, or how many
    documents a scan left to score.
    """

    ranking: Ranking
    dense: Float64
    sparse: Float64
    proven: bool
    bound: float
    depth: int


@dataclass(frozen=True, slots=True)
class _Scored:
    """Exact parts of the documents scored so far, by rising ordinal."""

    ordinals: Int64
    dense: Float64
    sparse: Float64


_NO_ORDINALS = np.zeros(0, dtype=np.int64)
_NOTHING_SCORED = _Scored(_NO_ORDINALS, np.zeros(0), np.zeros(0))


def fuse_batch(
    queries: Encoded, stores: Stores, k: int, weights: Weights, *, first_depth: int = FIRST_DEPTH
) -> list[Fused]:
    """Return the exact top k of every query; all are proven.

    Queries share each round's list reading; a proven query is never asked about again. The
    answer to a query does not depend on the others.

    Args:
        queries: m encoded queries with finite vectors.
        stores: N documents.
        k: hits a query, ≥ 1; N or more means all.
        weights: the weight of each part.
        first_depth: list length of the first round, ≥ 1; raised to 2k where that is more.

    Returns:
        m results with min(k, N) documents each.

    Raises:
        UsageError: if k is below 1.
        ValueError: if a query's vectors are not finite; no order, and so no proof, would hold.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, found {k}")
    if not np.isfinite(queries.dense).all():
        raise ValueError("the dense vectors of queries must be finite")
    queries.sparse.check()
    total = len(stores.forward)
    depth = min(max(first_depth, DEPTH_PER_HIT * k), total)
    fused: dict[int, Fused] = {}
    if depth < total:
        scans = ((q, _scanned(queries, q, stores, k, weights, depth)) for q in range(len(queries)))
        fused = {query: answer for query, answer in scans if answer is not None}
    scored = {q: _NOTHING_SCORED for q in range(len(queries)) if q not in fused}
    while unproven := list(scored):
        if depth == total:
            listings = [Listing(np.arange(total), -np.inf)] * len(unproven)
        else:
            listings = _read_lists(queries, unproven, stores, weights, depth)
        for query, listing in zip(unproven, listings, strict=True):
            scored[query] = _score_new(queries, query, stores.forward, scored[query], listing)
            fused[query] = _best(scored[query], listing.ceiling, k, weights, depth)
            if fused[query].proven:
                del scored[query]  # where all N were scored, a batch of these would fill memory
        depth = min(depth * GROWTH, total)
    return [fused[query] for query in range(len(queries))]


def fuse(
    query: Encoded, stores: Stores, k: int, weights: Weights, *, first_depth: int = FIRST_DEPTH
) -> Fused:
    """Return the exact top k of one query; `fuse_batch` with a batch of one."""
    (fused,) = fuse_batch(query, stores, k, weights, first_depth=first_depth)
    return fused


def _scanned(
    queries: Encoded, query: int, stores: Stores, k: int, weights: Weights, depth: int
) -> Fused | None:
    """Answer a query by a scan; None where that cannot be, or k documents do not share a term."""
    terms, term_weights = queries.sparse.row(query)
    if stores.scan is None or not len(terms) or weights.dense == 0 or weights.sparse == 0:
        return None
    scan = stores.scan((queries.dense[query], terms, term_weights), weights, depth)
    listing, scored = Listing(scan.sharing(), np.inf), _NOTHING_SCORED
    if len(listing.ordinals) < k:
        return None
    while True:
        scored = _score_new(queries, query, stores.forward, scored, listing)
        fused = _best(scored, listing.ceiling, k, weights, len(scored.ordinals))
        if fused.proven:
            return fused
        listing = scan.block(float(fused.ranking.scores[-1]))


def _read_lists(
    queries: Encoded, which: Sequence[int], stores: Stores, weights: Weights, depth: int
) -> list[Listing]:
    """Read both lists to `depth` < N for some queries; join each pair and bound the rest."""
    dense_lists = _dense_lists(queries.dense[which], stores.dense, weights, depth)
    sparse = SparseVectors.from_rows([queries.sparse.row(query) for query in which])
    sparse_lists = _sparse_lists(sparse, stores.sparse, weights, depth)
    listings = []
    for dense, sparse_list in zip(dense_lists, sparse_lists, strict=True):
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
        ceiling, error = float(ranking.scores[-1]), index.error_bound(query)
        if error > 0:  # the sum may round down; the next number above cannot be below the true sum
            ceiling = float(np.nextafter(ceiling + error, np.inf))
        listings.append(Listing(ranking.ordinals, ceiling))
    return listings


def _sparse_lists(
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


def _score_new(
    queries: Encoded, query: int, forward: ForwardScorer, scored: _Scored, listing: Listing
) -> _Scored:
    """Score the listed documents that no earlier round scored, and add them."""
    new = np.setdiff1d(listing.ordinals, scored.ordinals, assume_unique=True)
    dense, sparse = forward.score(queries.dense[query], *queries.sparse.row(query), new)
    ordinals = np.concatenate([scored.ordinals, new])
    order = np.argsort(ordinals)
    return _Scored(
        ordinals[order],
        np.concatenate([scored.dense, dense])[order],
        np.concatenate([scored.sparse, sparse])[order],
    )


def _best(scored: _Scored, bound: float, k: int, weights: Weights, depth: int) -> Fused:
    """Return the best k of the scored documents; `bound` limits the score of all others."""
    best = top_k(weights.combine(scored.dense, scored.sparse), k)
    places = best.ordinals  # by rising ordinal too, so ties are broken as they should be
    ranking = Ranking(scored.ordinals[places], best.scores)
    proven = bound == -np.inf or _none_can_enter(ranking, bound, scored)
    return Fused(ranking, scored.dense[places], scored.sparse[places], proven, bound, depth)


def _none_can_enter(ranking: Ranking, bound: float, scored: _Scored) -> bool:
    """Say whether every unscored document, at `bound` or below, ranks after the last hit."""
    last_score, last_ordinal = float(ranking.scores[-1]), int(ranking.ordinals[-1])
    if last_score == bound:  # it may tie: then all smaller ordinals must have been scored
        return int(np.searchsorted(scored.ordinals, last_ordinal)) == last_ordinal
    return last_score > bound
