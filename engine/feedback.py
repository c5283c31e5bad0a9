"""Pseudo-relevance feedback: a query moved towards the documents that answer it best.

The first answer's m best documents d_i, with exact scores s_1 ≥ s_2 ≥ …, are taken for relevant
with probability p_i ∝ exp((s_i / s_1 − 1) / τ). Each part of the query then becomes

    q' = ‖q‖ · (q/‖q‖ + β·f/‖f‖) ÷ ‖q/‖q‖ + β·f/‖f‖‖,   f = Σ_i p_i · v(d_i),

where v(d) is the document's dense vector, or its terms weighted by this index's idf and taken to
length 1, of whose mixture the heaviest are kept. A query keeps its length, so the two parts of a
score weigh as before, and the second answer is as exact and as proven as the first: q' is a query
like any other. It depends on the index and on the weights of the two parts, not on k.

A clear winner leaves p_1 ≈ 1 and little to learn; a tie of many mixes them.

Source: Rocchio 1971; weights by probability of relevance as in RM3 (Lavrenko and Croft 2001;
Abdul-Jaleel et al. 2004), here by a softmax of exact scores; for dense vectors Li et al. 2021
(arXiv 2108.11044).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dupmae.engine.view import View
from dupmae.types import Encoded, Float32, Float64, Int32, Ranking, SparseVectors

FEEDBACK_DOCUMENTS = 10
"""m, documents that are looked at; RM3's usual number."""
FEEDBACK_TERMS = 32
"""Terms of the mixture that are kept; 16 to 96 measure alike."""
TEMPERATURE = 0.02
"""τ, relative to the best score: 2 % behind the best is e times less probable."""


def feed_back(queries: Encoded, answers: Sequence[Ranking], view: View, weight: float) -> Encoded:
    """Return each query moved towards the best documents of its answer.

    Args:
        queries: m encoded queries.
        answers: of each, the vectors of its best documents, or of their best passages, with exact
            scores; FEEDBACK_DOCUMENTS are read. A query whose best score is not above 0 stays as
            it is.
        view: where the documents' vectors lie.
        weight: β ≥ 0.
    """
    dense = queries.dense.copy()
    rows: list[tuple[Int32, Float32]] = []
    for query, answer in enumerate(answers):
        terms, weights = queries.sparse.row(query)
        if len(answer) and answer.scores[0] > 0:
            ordinals = answer.ordinals[:FEEDBACK_DOCUMENTS]
            relevance = _relevance(answer.scores[:FEEDBACK_DOCUMENTS])
            mixture = relevance @ view.dense_rows(ordinals).astype(np.float64)
            dense[query] = _moved(dense[query].astype(np.float64), mixture, weight)
            terms, weights = _moved_terms(
                terms, weights, *_mixed_terms(view, ordinals.tolist(), relevance), weight
            )
        rows.append((terms, weights))
    return Encoded(dense, SparseVectors.from_rows(rows))


def _relevance(scores: Float64) -> Float64:
    """Return p (m,), which adds up to 1, of falling scores of which the first is above 0."""
    odds: Float64 = np.exp((scores / scores[0] - 1) / TEMPERATURE)
    relevance: Float64 = odds / odds.sum()
    return relevance


def _mixed_terms(view: View, ordinals: Sequence[int], relevance: Float64) -> tuple[Int32, Float64]:
    """Return the mixture's heaviest terms, increasing, and their weights; ties by term."""
    documents = SparseVectors.from_rows([view.sparse_row(ordinal) for ordinal in ordinals])
    weighed = documents.weights * view.corpus.idf(documents.terms)
    for row, share in enumerate(relevance.tolist()):
        own = slice(documents.indptr[row], documents.indptr[row + 1])
        weighed[own] = share * _unit(weighed[own])
    distinct, places = np.unique(documents.terms, return_inverse=True)
    # With weights a sum is float64, which NumPy's types do not say.
    mixture = np.bincount(places, weights=weighed, minlength=len(distinct)).astype(np.float64)
    kept = np.sort(np.argsort(-mixture, kind="stable")[:FEEDBACK_TERMS])
    return distinct[kept], mixture[kept]


def _moved_terms(
    terms: Int32, weights: Float32, mixed: Int32, mixture: Float64, weight: float
) -> tuple[Int32, Float32]:
    """Return a query's terms and weights, moved; a query without terms stays without."""
    if not len(terms):
        return terms, weights
    both = np.union1d(terms, mixed)
    query, feedback = np.zeros(len(both)), np.zeros(len(both))
    query[np.searchsorted(both, terms)] = weights
    feedback[np.searchsorted(both, mixed)] = mixture
    moved = _moved(query, feedback, weight).astype(np.float32)
    kept = moved > 0  # a weight may vanish in float32
    return both[kept], moved[kept]


def _moved(query: Float64, feedback: Float64, weight: float) -> Float64:
    """Return a vector of the query's length between its direction and the feedback's."""
    length = math.sqrt(query @ query)
    return length * _unit(_unit(query) + weight * _unit(feedback))


def _unit(vector: Float64) -> Float64:
    """Return the vector with length 1; one of length 0 as it is."""
    length = math.sqrt(vector @ vector)
    return vector / length if length else vector
