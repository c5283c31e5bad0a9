"""Fusions that others use, computed on our own dense and sparse lists, to compare our sum with.

All of them see lists that were cut: a document that one list lacks gets nothing from it. Equal
scores keep the order in which the documents come first in the dense list, then in the sparse one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dupmae.eval.beir import Collection
from dupmae.eval.metrics import measure_run
from dupmae.eval.runs import Ranked, Run, columns
from dupmae.eval.systems import Answers, System, without_itself
from dupmae.types import Float64

RRF_K = 60
"""Source: Cormack, Clarke and Büttcher, SIGIR 2009; also the default of most engines."""

TUNED_FOR = "nDCG@10"
_TUNED_DEPTH = 10  # hits that TUNED_FOR looks at
_ALPHAS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, slots=True)
class Fused:
    """Two systems and what makes one list of theirs.

    The query's own document is dropped before lists are fused, lest it stretch the scale of the
    others, and so are documents without a score in the sparse list: they share no term.
    """

    dense: System
    sparse: System
    fuse: Callable[[Ranked, Ranked], Ranked]

    def search(self, queries: Mapping[str, str], k: int) -> Answers:
        """Fuse the k best of both."""
        pairs = _pairs(self.dense, self.sparse, queries, k)
        return Answers({query_id: self.fuse(*lists)[:k] for query_id, lists in pairs})


def reciprocal_rank(dense: Ranked, sparse: Ranked) -> Ranked:
    """Score a document by the sum over both lists of 1 / (60 + its rank there)."""
    scores: dict[str, float] = {}
    for ranked in (dense, sparse):
        for rank, (doc_id, _) in enumerate(ranked, start=1):
            scores[doc_id] = scores.get(doc_id, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda hit: -hit[1])


def min_max(dense: Ranked, sparse: Ranked) -> Ranked:
    """Score a document by the mean of both scores, each list's brought to 0..1."""
    return _Scaled.of(dense, sparse).ranked(0.5)


def convex(alpha: float) -> Callable[[Ranked, Ranked], Ranked]:
    """Return the fusion α·dense + (1 − α)·sparse of scores brought to 0..1.

    Source: Bruch, Gai and Ingber, TOIS 2023.
    """
    return lambda dense, sparse: _Scaled.of(dense, sparse).ranked(alpha)


def tune_alpha(dense: System, sparse: System, collection: Collection, k: int) -> float:
    """Return the α of 0, .05, …, 1 with the best mean nDCG@10; of equals, the one nearest .5.

    Args:
        dense: what gives the dense lists.
        sparse: what gives the sparse lists.
        collection: never the one to be evaluated.
        k: hits a list.
    """
    lists = {
        query_id: _Scaled.of(*pair)
        for query_id, pair in _pairs(dense, sparse, collection.queries, k)
    }

    def worth(alpha: float) -> tuple[float, float]:
        run: Run = {
            query_id: scaled.ranked(alpha)[:_TUNED_DEPTH] for query_id, scaled in lists.items()
        }
        values = measure_run(run, collection.qrels, [TUNED_FOR])[TUNED_FOR]
        return float(np.mean(list(values.values()))), -abs(alpha - 0.5)

    return max(_ALPHAS, key=worth)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """The documents of two lists with both scores brought to 0..1; 0 where a list lacks one."""

    doc_ids: list[str]
    dense: Float64
    sparse: Float64

    @classmethod
    def of(cls, dense: Ranked, sparse: Ranked) -> _Scaled:
        by_dense, by_sparse = (_unit(ranked) for ranked in (dense, sparse))
        doc_ids = list({**by_dense, **by_sparse})
        parts = [
            np.array([scores.get(doc_id, 0.0) for doc_id in doc_ids])
            for scores in (by_dense, by_sparse)
        ]
        return cls(doc_ids, *parts)

    def ranked(self, alpha: float) -> Ranked:
        scores = alpha * self.dense + (1 - alpha) * self.sparse
        return [(self.doc_ids[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")]


def _unit(ranked: Ranked) -> dict[str, float]:
    """Bring scores to 0..1 by the list's least and greatest; all to 1 where these are equal."""
    doc_ids, listed = columns(ranked)
    scores = np.array(listed)
    if len(scores) == 0 or scores[0] == scores[-1]:
        return dict.fromkeys(doc_ids, 1.0)
    unit = (scores - scores[-1]) / (scores[0] - scores[-1])
    return dict(zip(doc_ids, unit.tolist(), strict=True))


def _pairs(
    dense: System, sparse: System, queries: Mapping[str, str], k: int
) -> Iterator[tuple[str, tuple[Ranked, Ranked]]]:
    dense_run, sparse_run = dense.search(queries, k).run, sparse.search(queries, k).run
    for query_id in queries:
        matching = [hit for hit in sparse_run[query_id] if hit[1] > 0]
        yield (
            query_id,
            (
                without_itself(query_id, dense_run[query_id]),
                without_itself(query_id, matching),
            ),
        )
