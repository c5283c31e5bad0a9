"""Answers without the promise of a proof: few documents are looked at, and these exactly.

A walk through each segment's graph (`dupmae.indexes.hnsw`) names about n documents that are near to
the query's dense vector, and the sparse store lists its best n as for a proof. All of them are
scored exactly, from the forward store. So every score is true and the order of those found is
right; what can be wrong is that a document is missing, which no walk met and no list held.

How much that may cost: dense(d) ≤ ‖q‖·max‖d‖, whatever the graph, and what the sparse store does
not list has at most its last bound s_n. So a document that is not scored has at most

    B = w_d·‖q‖·max‖d‖ + w_s·s_n,

and one that is missing is above the k-th hit by at most B less the k-th score. That is far from
tight, since no document points the query's way; where the k-th score is above B all the same the
answer is proven, as in `fusion.py`. With feedback the query is moved towards the documents found.

Exact answers come instead where they cost little: where n is all documents, where all are wanted,
and where a filter leaves so few that no graph is worth a walk. So do they where fewer than k were
found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dupmae.engine.fusion import (
    DEPTH_PER_HIT,
    FIRST_DEPTH,
    Fused,
    Stores,
    check_asked,
    fuse_batch,
    fuse_listed,
)
from dupmae.engine.lists import Listing, dense_ceiling, sparse_lists
from dupmae.engine.manifest import HNSW_NAME, SegmentRecord
from dupmae.engine.parts import Part
from dupmae.engine.weights import Weights
from dupmae.errors import UsageError
from dupmae.types import Encoded, Float32, SparseVectors

MODES = ("exact", "fast")

SPARSEST = 8
"""A graph of which a filter leaves less than one document in this many is not walked through: a
walk meets so few of them that reading all of these is as fast."""

_NOTHING = Listing(np.zeros(0, dtype=np.int64), 0.0)

Fuse = Callable[[Encoded, Stores, int, Weights], list[Fused]]


def has_graph(record: SegmentRecord) -> bool:
    """Say whether a segment has a graph."""
    return any(f"/{HNSW_NAME}/" in file.path for file in record.files)


def choose_fuse(mode: str, parts: Sequence[Part]) -> Fuse:
    """Return what answers queries in a mode, over these parts or fewer documents of them.

    Raises:
        UsageError: if there is no such mode, or no part has the graph that it needs.
    """
    if mode not in MODES:
        raise UsageError(f"the mode must be {' or '.join(MODES)}, found {mode!r}")
    if mode == "exact":
        return fuse_batch
    if parts and all(part.segment.graph is None for part in parts):
        raise UsageError(
            "the index has no graph, which the mode fast needs; index with --hnsw (of an index "
            "without: export, then index --vectors --hnsw), or search in the mode exact"
        )
    return fuse_fast


def fuse_fast(
    queries: Encoded, stores: Stores, k: int, weights: Weights, *, first_depth: int = FIRST_DEPTH
) -> list[Fused]:
    """Return a good top k of every query, each hit with its exact score.

    Args:
        queries: m encoded queries with finite vectors.
        stores: N documents.
        k: hits a query, ≥ 1; N or more means all.
        weights: the weight of each part.
        first_depth: n, ≥ 1; raised to 2k where that is more.

    Returns:
        m results with min(k, N) documents each; `depth` is how many were scored.

    Raises:
        UsageError, ValueError: as `fuse_batch`.
    """
    check_asked(queries, k)
    depth = max(first_depth, DEPTH_PER_HIT * k)
    if stores.near is None or depth >= len(stores.forward) or k >= stores.documents:
        return fuse_batch(queries, stores, k, weights, first_depth=first_depth)
    near = stores.near(queries.dense, depth) if weights.dense else [_NOTHING] * len(queries)
    sharing = sparse_lists(queries.sparse, stores.sparse, weights, depth)
    answers = []
    for query, lists in enumerate(zip(near, sharing, strict=True)):
        ordinals = np.union1d(*(listing.ordinals for listing in lists))
        ceiling = weights.combine(*(listing.ceiling for listing in lists))
        listing = Listing(ordinals, float(ceiling))
        answer = fuse_listed(queries, query, stores, k, weights, listing)
        if len(answer.ranking) < k:
            one = Encoded(
                queries.dense[[query]], SparseVectors.from_rows([queries.sparse.row(query)])
            )
            (answer,) = fuse_batch(one, stores, k, weights, first_depth=first_depth)
        answers.append(answer)
    return answers


def near_lists(parts: Sequence[Part]) -> Callable[[Float32, int], list[Listing]] | None:
    """Return what lists near documents of some parts; None if none has a graph worth a walk."""
    return partial(_near, parts) if any(map(_is_walked, parts)) else None


def _is_walked(part: Part) -> bool:
    segment = part.segment
    return segment.graph is not None and SPARSEST * part.vectors.size >= len(segment.forward)


def _near(parts: Sequence[Part], queries: Float32, depth: int) -> list[Listing]:
    """List at most `depth` near documents of each part for each query, and bound all others."""
    found = [_near_in(part, queries, depth) for part in parts]
    return [
        Listing(
            np.concatenate([listing.ordinals for listing in listings]),
            max(listing.ceiling for listing in listings),
        )
        for listings in zip(*found, strict=True)
    ]


def _near_in(part: Part, queries: Float32, depth: int) -> list[Listing]:
    """List near documents of one part, by ordinals in the view; without a graph the nearest."""
    segment = part.segment
    if segment.graph is not None and segment.outline is not None and _is_walked(part):
        walks = segment.graph.search(queries, depth, part.mask)
        ceilings = map(segment.outline.ceiling, queries)
        pairs = zip(walks, ceilings, strict=True)
        return [Listing(part.vectors.ordinals(local), ceiling) for local, ceiling in pairs]
    rankings = segment.dense.search(queries, depth, part.mask)
    errors = map(segment.dense.error_bound, queries)
    return [
        Listing(part.vectors.ordinals(ranking.ordinals), dense_ceiling(ranking, error))
        for ranking, error in zip(rankings, errors, strict=True)
    ]
