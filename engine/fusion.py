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

Where documents are split into passages, the lists hold passages, B is the most that one in neither
list scores, and a document scores as its best passage does, of equal ones the first. The proof
stays: if the k-th best document so far scores above B, no unlisted passage lifts a document to it,
and none is the best of one of the k. At B one may tie with the k-th hit's passage, and then comes
later in the order of passages, which is that of documents, if all smaller ordinals are scored. ∎

Until the proof holds n grows; at n = N every document has been scored and nothing is left to prove.

Stores that can bound the sum of both parts for every document are not asked for lists: see
`scan.py`, which names documents to score and the ceiling of all others in the same way.

Source: Fagin, Lotem, Naor 2003, "Optimal aggregation algorithms for middleware" (the threshold
algorithm, here with lists read in whole rounds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dupmae.engine.lists import DenseLists, Listing, SparseLists, read_lists
from dupmae.engine.weights import Weights
from dupmae.errors import UsageError
from dupmae.indexes.topk import top_k
from dupmae.types import Encoded, Float32, Float64, Int32, Int64, Ranking

FIRST_DEPTH = 64
"""Proves nearly every top 10 in one round: on real text a depth of 66 was the most needed."""

DEPTH_PER_HIT = 2
"""The first round reads at least this many times k: fewer seldom prove, more seldom help."""

GROWTH = 4
"""Each round reads lists this many times deeper; their cost grows far more slowly than n."""


class ForwardScorer(Protocol):
    """What fusion needs of the forward store: the definition of a score's two parts."""

    def __len__(self) -> int: ...

    def score(
        self, dense_query: Float32, query_terms: Int32, query_weights: Float32, ordinals: Int64
    ) -> tuple[Float64, Float64]:
        """Return ⟨q, d⟩ of the dense and of the sparse vectors, each (m,), for m documents."""
        ...


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

    `owners` (N,) int64 says whose passage each of the N vectors is: documents 0, 1, …, each with
    one or more in a row. None where a vector is a document.
    `scan` begins a scan: of a query's dense vector, terms and weights, to so many documents first.
    `near` lists documents near to dense vectors, at least so many, without promise that they are
    the nearest; see `dupmae.engine.fast`.
    """

    forward: ForwardScorer
    dense: DenseLists
    sparse: SparseLists
    owners: Int64 | None = None
    scan: Callable[[tuple[Float32, Int32, Float32], Weights, int], Candidates] | None = None
    near: Callable[[Float32, int], list[Listing]] | None = None

    def __post_init__(self) -> None:
        lengths = (len(self.forward), len(self.dense), len(self.sparse))
        if len(set(lengths)) != 1:
            raise ValueError(f"forward, dense and sparse store hold {lengths} documents")

    @property
    def documents(self) -> int:
        """How many documents there are."""
        if self.owners is None or not len(self.owners):
            return len(self.forward)
        return int(self.owners[-1]) + 1


@dataclass(frozen=True, slots=True)
class Fused:
    """The best k of the scored documents, and whether they are the best k of all.

    `dense` and `sparse` (m,) are the parts of `ranking.scores`; `bound` is B (−inf if every
    document was scored); `depth` is n, the length to which both lists were read, or how many
    documents a scan left to score; `best` ranks the vectors that score so, each document's best
    passage, or the documents themselves.
    """

    ranking: Ranking
    dense: Float64
    sparse: Float64
    proven: bool
    bound: float
    depth: int
    best: Ranking


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
    check_asked(queries, k)
    total = len(stores.forward)
    wanted = min(k, stores.documents)
    depth = min(max(first_depth, DEPTH_PER_HIT * k), total)
    fused: dict[int, Fused] = {}
    if depth < total:
        scans = (
            (q, _scanned(queries, q, stores, wanted, weights, depth)) for q in range(len(queries))
        )
        fused = {query: answer for query, answer in scans if answer is not None}
    scored = {q: _NOTHING_SCORED for q in range(len(queries)) if q not in fused}
    while unproven := list(scored):
        if depth == total:
            listings = [Listing(np.arange(total), -np.inf)] * len(unproven)
        else:
            lists = (stores.dense, stores.sparse)
            listings = read_lists(queries, unproven, lists, weights, depth)
        for query, listing in zip(unproven, listings, strict=True):
            scored[query] = _score_new(queries, query, stores.forward, scored[query], listing)
            fused[query] = _best(
                scored[query], listing.ceiling, wanted, weights, depth, stores.owners
            )
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


def check_asked(queries: Encoded, k: int) -> None:
    """Raise UsageError if k is below 1, ValueError if a query's vectors are not finite."""
    if k < 1:
        raise UsageError(f"k must be at least 1, found {k}")
    if not np.isfinite(queries.dense).all():
        raise ValueError("the dense vectors of queries must be finite")
    queries.sparse.check()


def fuse_listed(
    queries: Encoded, query: int, stores: Stores, k: int, weights: Weights, listing: Listing
) -> Fused:
    """Return the best k of the listed documents; proven if the ceiling of all others allows it.

    There are at least k documents, of which fewer may be listed.
    """
    scored = _score_new(queries, query, stores.forward, _NOTHING_SCORED, listing)
    size = len(scored.ordinals)
    return _best(scored, listing.ceiling, k, weights, size, stores.owners)


def _scanned(
    queries: Encoded, query: int, stores: Stores, k: int, weights: Weights, depth: int
) -> Fused | None:
    """Answer a query by a scan; None where that cannot be, or too few documents share a term.

    There are at least k documents.
    """
    terms, term_weights = queries.sparse.row(query)
    if stores.scan is None or not len(terms) or weights.dense == 0 or weights.sparse == 0:
        return None
    scan = stores.scan((queries.dense[query], terms, term_weights), weights, depth)
    listing, scored = Listing(scan.sharing(), np.inf), _NOTHING_SCORED
    while True:
        scored = _score_new(queries, query, stores.forward, scored, listing)
        size = len(scored.ordinals)
        fused = _best(scored, listing.ceiling, k, weights, size, stores.owners)
        if fused.proven:
            return fused
        if len(fused.ranking) < k:  # no k-th score, so no floor
            return None
        listing = scan.block(float(fused.ranking.scores[-1]))


def _score_new(
    queries: Encoded, query: int, forward: ForwardScorer, scored: _Scored, listing: Listing
) -> _Scored:
    """Score the listed documents that no earlier round scored, and add them."""
    if not len(scored.ordinals):
        first = np.sort(listing.ordinals)
        return _Scored(first, *_score(queries, query, forward, first))
    new = np.setdiff1d(listing.ordinals, scored.ordinals, assume_unique=True)
    dense, sparse = _score(queries, query, forward, new)
    ordinals = np.concatenate([scored.ordinals, new])
    order = np.argsort(ordinals)
    return _Scored(
        ordinals[order],
        np.concatenate([scored.dense, dense])[order],
        np.concatenate([scored.sparse, sparse])[order],
    )


def _score(
    queries: Encoded, query: int, forward: ForwardScorer, ordinals: Int64
) -> tuple[Float64, Float64]:
    return forward.score(queries.dense[query], *queries.sparse.row(query), ordinals)


def best_of_each(scores: Float64, owners: Int64) -> Int64:
    """Return the place of each document's best passage, the first of equal ones.

    Args:
        scores: (n,) of passages.
        owners: (n,) their documents, never falling.
    """
    order = np.lexsort((-scores, owners))
    return order[np.flatnonzero(np.diff(owners[order], prepend=-1))]


def _best(
    scored: _Scored, bound: float, k: int, weights: Weights, depth: int, owners: Int64 | None
) -> Fused:
    """Return the best k of the scored documents; `bound` limits the score of all others.

    There are at least k documents, of which fewer may be scored so far.
    """
    scores = weights.combine(scored.dense, scored.sparse)
    if owners is None:
        top = top_k(scores, k)
        places = top.ordinals  # by rising ordinal too, so ties are broken as they should be
        documents = scored.ordinals[places]
    else:
        firsts = best_of_each(scores, owners[scored.ordinals])
        top = top_k(scores[firsts], k)
        places = firsts[top.ordinals]
        documents = owners[scored.ordinals[places]]
    best = Ranking(scored.ordinals[places], top.scores)
    are_enough = len(best) == k  # all lists together may hold passages of fewer documents
    proven = bound == -np.inf or (are_enough and _none_can_enter(best, bound, scored))
    parts = scored.dense[places], scored.sparse[places]
    return Fused(Ranking(documents, top.scores), *parts, proven, bound, depth, best)


def _none_can_enter(best: Ranking, bound: float, scored: _Scored) -> bool:
    """Say whether every unscored vector, at `bound` or below, ranks after that of the last hit."""
    last_score, last_ordinal = float(best.scores[-1]), int(best.ordinals[-1])
    if last_score == bound:  # it may tie: then all smaller ordinals must have been scored
        return int(np.searchsorted(scored.ordinals, last_ordinal)) == last_ordinal
    return last_score > bound
