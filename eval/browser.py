"""Queries to look at, as HTML: those that moved most, and the worst with their documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from textwrap import shorten

from dupmae.eval.beir import Collection
from dupmae.eval.moves import Explained, Move
from dupmae.eval.report import Report
from dupmae.eval.runs import Ranked
from dupmae.types import Document

WORST = 20
"""Queries whose documents are shown."""

_JUDGED = 10  # relevant documents shown a query
_SNIPPET = 220  # characters


@dataclass(frozen=True, slots=True)
class Chapter:
    """What the page says of one collection."""

    report: Report
    collection: Collection
    moves: Sequence[Move]
    documents: Mapping[str, Document]
    """At least those of `shown_documents`."""


def worst_queries(report: Report) -> list[str]:
    """Return the queries for which the first system's first measure is lowest."""
    values = next(iter(report.per_query.values()))[report.measures[0]]
    return sorted(values, key=lambda query_id: values[query_id])[:WORST]


def shown_documents(report: Report, collection: Collection) -> set[str]:
    """Return the ids of the documents whose texts the page shows."""
    return {
        doc_id
        for query_id in worst_queries(report)
        for doc_id in (
            *(hit[0] for hit in _hits(report, query_id)),
            *_relevant(collection.qrels[query_id]),
        )
    }


def moved_most(chapter: Chapter) -> Iterator[str]:
    """Yield a section with a table for each system that was compared."""
    if not chapter.moves:
        return
    yield "<h3>Queries that moved most</h3>"
    for system, moves in groupby(chapter.moves, key=lambda move: move.system):
        yield (
            f'<details><summary>{escape(system)}</summary><div class="wide">'
            '<table class="moves"><tr><th></th><th>query</th><th>first hit of the baseline</th>'
            f"<th>first hit of {escape(system)}</th></tr>{''.join(map(_moved, moves))}"
            "</table></div></details>"
        )


def _moved(move: Move) -> str:
    kind = "better" if move.difference > 0 else "worse"
    return (
        f'<tr><td class="number {kind}">{move.difference:+.3f}</td>'
        f"<td><b>{escape(move.query_id)}</b> {escape(move.query)}</td>"
        f"<td>{_top(move.baseline_top)}</td><td>{_top(move.top)}</td></tr>"
    )


def _top(explained: Explained | None) -> str:
    return escape(str(explained)) if explained else '<span class="soft">not in our index</span>'


def worst(chapter: Chapter) -> Iterator[str]:
    """Yield a section with the worst queries of the first system, judged beside returned."""
    report = chapter.report
    system, measure = next(iter(report.systems)), report.measures[0]
    values = report.per_query[system][measure]
    queries = worst_queries(report)
    yield f"<h3>The {len(queries)} worst queries of {escape(system)} by {escape(measure)}</h3>"
    for query_id in queries:
        text = chapter.collection.queries[query_id]
        yield (
            f"<details><summary><b>{values[query_id]:.3f}</b>{escape(query_id)}: {escape(text)}"
            f'</summary><div class="sides">{_judged(chapter, query_id)}'
            f"{_returned(chapter, query_id)}</div></details>"
        )


def _judged(chapter: Chapter, query_id: str) -> str:
    grades, hits = chapter.collection.qrels[query_id], _hits(chapter.report, query_id)
    ranks = {doc_id: f"rank {rank}" for rank, (doc_id, _) in enumerate(hits, start=1)}
    lines = [
        _line(
            _document(chapter, doc_id),
            f"grade {grades[doc_id]}, {ranks.get(doc_id, f'not in the first {len(hits)}')}",
        )
        for doc_id in _relevant(grades)
    ]
    total = sum(grade > 0 for grade in grades.values())
    return f"<div><h4>Judged relevant ({total:,})</h4><ul>{''.join(lines)}</ul></div>"


def _returned(chapter: Chapter, query_id: str) -> str:
    grades = chapter.collection.qrels[query_id]
    lines = [
        _line(_document(chapter, doc_id, relevant=grades.get(doc_id, 0) > 0), f"{score:.3f}")
        for doc_id, score in _hits(chapter.report, query_id)
    ]
    return f"<div><h4>Returned</h4><ol>{''.join(lines)}</ol></div>"


def _line(document: str, remark: str) -> str:
    return f'<li>{document} <span class="soft">{escape(remark)}</span></li>'


def _hits(report: Report, query_id: str) -> Ranked:
    """Return the first system's first hits."""
    return next(iter(report.top.values()))[query_id]


def _relevant(grades: Mapping[str, int]) -> list[str]:
    """Return the relevant documents that are shown, best grade first."""
    relevant = [doc_id for doc_id, grade in grades.items() if grade > 0]
    return sorted(relevant, key=lambda doc_id: -grades[doc_id])[:_JUDGED]


def _document(chapter: Chapter, doc_id: str, *, relevant: bool = False) -> str:
    kind = ' class="relevant"' if relevant else ""
    document = chapter.documents.get(doc_id)
    if document is None:
        return f"<b{kind}>{escape(doc_id)}</b> (not in the corpus)"
    snippet = shorten(document.text, _SNIPPET, placeholder=" …")
    title = f"<i>{escape(document.title)}</i> " if document.title else ""
    return f"<b{kind}>{escape(doc_id)}</b> {title}{escape(snippet)}"
