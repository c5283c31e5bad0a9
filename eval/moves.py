"""The queries that moved most between two systems, and how our model scores their first hits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dupmae.eval.report import Report

LISTED = 5
"""Queries a system."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A document as our model sees it: `score` = w_d · `dense` + w_s · `sparse`, at this rank.

    `terms` are those that add most to the sparse part, with what they add.
    """

    doc_id: str
    rank: int
    score: float
    dense: float
    sparse: float
    terms: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        terms = ", ".join(f"{text} {product:.2f}" for text, product in self.terms)
        return (
            f"{self.doc_id} (ours: rank {self.rank:,}, {self.score:.2f}; dense {self.dense:.2f}, "
            f"sparse {self.sparse:.2f}{': ' if terms else ''}{terms})"
        )


Explainer = Callable[[str, str], Explained | None]
"""Query text, document id → how our model scores it; None if our index does not have it."""


@dataclass(frozen=True, slots=True)
class Move:
    """A query for which a system and the baseline differ; `top` documents are their first hits."""

    system: str
    measure: str
    query_id: str
    query: str
    baseline_value: float
    value: float
    baseline_top: Explained | None
    top: Explained | None

    @property
    def difference(self) -> float:
        """How far the measure is above the baseline's."""
        return self.value - self.baseline_value


def largest_moves(
    report: Report, queries: Mapping[str, str], baseline: str, explain: Explainer
) -> Iterator[Move]:
    """Yield for each other system the queries whose first measure differs most, largest first.

    Args:
        report: with the values and first hits of each query.
        queries: id → text.
        baseline: one of the report's systems.
        explain: how our model scores a document.
    """
    measure = next(iter(report.per_query[baseline]))
    before = report.per_query[baseline][measure]

    def top(system: str, query_id: str) -> Explained | None:
        hits = report.top[system][query_id]
        return explain(queries[query_id], hits[0][0]) if hits else None

    for system in report.systems:
        after = report.per_query[system][measure]
        moved = [query_id for query_id in before if after[query_id] != before[query_id]]
        moved.sort(key=lambda query_id: -abs(after[query_id] - before[query_id]))
        for query_id in moved[:LISTED]:
            yield Move(
                system=system,
                measure=measure,
                query_id=query_id,
                query=queries[query_id],
                baseline_value=before[query_id],
                value=after[query_id],
                baseline_top=top(baseline, query_id),
                top=top(system, query_id),
            )
