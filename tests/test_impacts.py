from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_strategies import VOCABULARY, sparse_vectors

from dupmae.indexes.exact import ExactSparse
from dupmae.indexes.impacts import LARGEST_SUM, ImpactCells, QueryImpacts
from dupmae.types import SparseVectors

LEVELS = st.sampled_from([1, 2, 7, 31])


def collected(documents, cells, query):
    """Return what each document collects of a query: sums of whole numbers (N,) float64."""
    table = np.zeros(VOCABULARY * cells.levels)
    table[query.cells] = query.impacts
    return np.array([table[cells.number(terms, weights)].sum() for terms, weights in documents])


@given(sparse_vectors(min_size=1), sparse_vectors(min_size=1, max_size=1), LEVELS)
def test_what_a_document_collects_is_never_below_its_score(documents, queries, levels):
    cells = ImpactCells.fit(documents, VOCABULARY, levels)
    query = QueryImpacts.of(*queries.row(0), cells.tops(documents))

    sums = collected(documents, cells, query)

    (ranking,) = ExactSparse(documents, VOCABULARY).search(queries, len(documents))
    assert np.all(sums[ranking.ordinals] * query.unit >= ranking.scores)
    assert np.all(np.delete(sums, ranking.ordinals) == 0)
    assert sums.max() <= LARGEST_SUM
    assert np.all(query.impacts == np.rint(query.impacts))


@given(sparse_vectors(min_size=1), LEVELS)
def test_a_weight_is_overrated_by_less_than_its_terms_range_over_the_levels(documents, levels):
    cells = ImpactCells.fit(documents, VOCABULARY, levels)
    numbers = cells.number(documents.terms, documents.weights)
    weights = documents.weights.astype(np.float64)

    counted = cells.tops(documents).ravel()[numbers].astype(np.float64)

    ranges = (cells.highs.astype(np.float64) - cells.lows)[documents.terms]
    assert np.all(counted >= weights)
    assert np.all(counted - weights <= ranges / levels * (1 + 1e-9))
    assert np.array_equal(numbers // levels, documents.terms)


@given(sparse_vectors(min_size=1), sparse_vectors(min_size=1, max_size=1), LEVELS)
def test_whole_numbers_overrate_by_one_part_in_2_to_the_24_of_the_largest_sum_a_term(
    documents, queries, levels
):
    terms, weights = queries.row(0)
    cells = ImpactCells.fit(documents, VOCABULARY, levels)
    tops = cells.tops(documents)
    query = QueryImpacts.of(terms, weights, tops)
    products = weights[:, None].astype(np.float64) * tops[terms]
    largest = products.max(axis=1, initial=0).sum()

    excess = query.impacts * query.unit - products[products > 0]

    assert np.all(excess <= largest / (LARGEST_SUM - 100) + products[products > 0] * 1e-12)


def test_a_term_with_no_more_weights_than_levels_far_apart_stays_exact():
    weights = np.array([0.5, 1.0, 1.5, 2.0], np.float32)
    rows = [(np.array([3], np.int32), weights[i : i + 1]) for i in range(4)]
    documents = SparseVectors.from_rows(rows)
    cells = ImpactCells.fit(documents, VOCABULARY, 31)

    counted = cells.tops(documents).ravel()[cells.number(documents.terms, documents.weights)]

    assert counted.tolist() == weights.tolist()


def test_a_query_whose_terms_no_document_has_collects_nothing():
    documents = SparseVectors.from_rows([(np.array([3], np.int32), np.ones(1, np.float32))])
    tops = ImpactCells.fit(documents, VOCABULARY, 7).tops(documents)

    query = QueryImpacts.of(np.array([4], np.int32), np.ones(1, np.float32), tops)

    assert len(query.cells) == 0


def test_a_term_outside_the_vocabulary_is_refused():
    documents = SparseVectors.from_rows([(np.array([30], np.int32), np.ones(1, np.float32))])

    with pytest.raises(ValueError, match="term 30 in a vocabulary of 12"):
        ImpactCells.fit(documents, VOCABULARY, 7)
