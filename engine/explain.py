"""Why a document scores what it does: its dense part, its terms, and that they add up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from dupmae.engine.filter_grammar import to_filter
from dupmae.engine.filters import Filter
from dupmae.engine.fusion import best_of_each
from dupmae.engine.search import SearchEngine
from dupmae.engine.view import View
from dupmae.engine.weights import Weights
from dupmae.errors import DataError, UsageError
from dupmae.types import Bool, Encoded, Float32, Float64, Int32, Passage

_ADDS_UP_TO = 1e-12
"""Relative: far above what float64 sums of a few hundred terms lose, far below any display."""


@dataclass(frozen=True, slots=True)
class TermMatch:
    """A query term in a document; `document_weight` is 0 where the document lacks it."""

    text: str
    query_weight: float
    document_weight: float
    borrowed: bool = False
    """The document does not hold it, but its neighbours in the index do."""

    @property
    def product(self) -> float:
        """What the term adds to the sparse part; exact, both weights being float32."""
        return self.query_weight * self.document_weight


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a query scores one document: w_d·`dense` + w_s·`sparse`.

    `sparse` is the sum of the products of `terms`, which fall; `missing` holds the query's terms
    that the document lacks, by falling query weight; `rank` counts from 1 over all documents that
    match; `kth_score` is the score at rank `k`, or at the last rank if there are fewer. Of a split
    document all is about its best `passage`, whose text is `passage_text`.
    `query_terms`: the query's terms (m,) and weights (m,) as they were searched for.
    """

    query: str
    doc_id: str
    rank: int
    k: int
    kth_score: float
    weights: Weights
    score: float
    dense: float
    sparse: float
    terms: tuple[TermMatch, ...]
    missing: tuple[TermMatch, ...]
    passage: Passage | None = None
    passage_text: str = ""
    query_terms: tuple[Int32, Float32] | None = field(default=None, compare=False, repr=False)

    @property
    def gap(self) -> float:
        """By how much the score is below that at rank `k`; 0 for a document among the first k."""
        return max(0.0, self.kth_score - self.score)

    def __post_init__(self) -> None:
        products = math.fsum(term.product for term in self.terms)
        if not math.isclose(products, self.sparse, rel_tol=_ADDS_UP_TO):
            raise ValueError(f"terms add up to {products}, but the sparse part is {self.sparse}")
        if self.weights.combine(self.dense, self.sparse) != self.score:
            raise ValueError(f"the parts do not give the score {self.score}")


def explain(
    engine: SearchEngine,
    query: str,
    doc_id: str,
    *,
    k: int = 10,
    where: Filter | str | None = None,
    dense_weight: float | None = None,
    sparse_weight: float | None = None,
    feedback: float | None = None,
    encoded: Encoded | None = None,
) -> Explanation:
    """Take the score of one document apart and find its exact rank; reads all documents' vectors.

    With a filter the rank is that among the documents that match, and feedback learns from these.
    For a document beyond the k best, `gap` and `missing` say what it lacks.

    Args:
        engine: where the document is.
        query: any text.
        doc_id: the document.
        k: the rank that `gap` is counted from, ≥ 1.
        where: which documents count, as a filter or an expression; all if not given.
        dense_weight: w_d ≥ 0; the engine's if not given.
        sparse_weight: w_s ≥ 0; the engine's if not given.
        feedback: β ≥ 0; the engine's if not given.
        encoded: what `SearchEngine.encode` has made of the query with these weights and this
            filter; made here if not given.

    Raises:
        DataError: if no document has that id, or it does not match.
        UsageError: if k or a weight is out of its range, or the expression is wrong.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, found {k}")
    weights = engine.choose_weights(dense_weight, sparse_weight, feedback)
    view = engine.view  # one state throughout, whoever reloads meanwhile
    ordinal = view.documents.ordinal(doc_id)
    if where is not None:
        view, ordinal = _within(view, doc_id, to_filter(where))
    if encoded is None:
        encoded = engine.encode([query], weights, view)
    terms, term_weights = encoded.sparse.row(0)
    dense, sparse = view.score(encoded.dense[0], terms, term_weights, np.arange(len(view)))
    scores = weights.combine(dense, sparse)
    best = np.arange(len(view)) if view.owners is None else best_of_each(scores, view.owners)
    dense, sparse, scores = dense[best], sparse[best], scores[best]
    ahead = np.count_nonzero(scores > scores[ordinal])
    tied_ahead = np.count_nonzero(scores[:ordinal] == scores[ordinal])
    own, own_weights, borrowed = view.stored_row(int(best[ordinal]))
    (passage,) = view.passages(best[[ordinal]])
    shared, in_query, in_document = np.intersect1d(
        terms, own, assume_unique=True, return_indices=True
    )
    lacking = ~np.isin(terms, own)
    matches = _matches(
        engine, shared, term_weights[in_query], own_weights[in_document], borrowed[in_document]
    )
    nothing = np.zeros(lacking.sum())
    missing = _matches(
        engine, terms[lacking], term_weights[lacking], nothing, nothing.astype(np.bool_)
    )
    return Explanation(
        query=query,
        doc_id=doc_id,
        rank=int(1 + ahead + tied_ahead),
        k=k,
        kth_score=float(np.sort(scores)[max(0, len(scores) - k)]),
        weights=weights,
        score=float(scores[ordinal]),
        dense=float(dense[ordinal]),
        sparse=float(sparse[ordinal]),
        terms=tuple(sorted(matches, key=lambda match: -match.product)),
        missing=tuple(sorted(missing, key=lambda match: -match.query_weight)),
        passage=passage,
        passage_text="" if passage is None else _text(view, ordinal, passage),
        query_terms=(terms, term_weights),
    )


def _text(view: View, ordinal: int, passage: Passage) -> str:
    (document,) = view.documents.get([ordinal])
    return document.text[passage.start : passage.end]


def _within(view: View, doc_id: str, where: Filter) -> tuple[View, int]:
    """Return the view of what matches, and the ordinal there of a document of the index."""
    matching = view.restricted(where)
    ordinal = matching.documents.find(doc_id)
    if ordinal is None:
        raise DataError(f"document {doc_id!r} does not match the filter {where}")
    return matching, ordinal


def _matches(
    engine: SearchEngine,
    terms: Int32,
    in_query: Float32,
    in_document: Float32 | Float64,
    borrowed: Bool,
) -> list[TermMatch]:
    texts = engine.encoder.term_texts(terms.tolist())
    columns = (in_query.tolist(), in_document.tolist(), borrowed.tolist())
    return [TermMatch(*row) for row in zip(texts, *columns, strict=True)]
