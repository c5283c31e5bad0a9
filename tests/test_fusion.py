from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from examples import examples
from fakes import ExactDense, Forward, NoisyDense, NoisySparse
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_strategies import batch

from dupmae.engine.fusion import Fused, Stores, fuse, fuse_batch
from dupmae.engine.weights import Weights
from dupmae.errors import UsageError
from dupmae.types import Encoded, SparseVectors


def exact_stores(dense: list[list[float]], sparse: list[dict[int, float]]) -> Stores:
    forward = Forward(np.array(dense, np.float32).reshape(len(sparse), 1), batch(*sparse))
    exact = np.zeros(len(sparse)), np.arange(len(sparse))
    return Stores(forward, ExactDense(forward, *exact), NoisySparse(forward, *exact))


def encoded(dense: list[list[float]], sparse: list[dict[int, float]]) -> Encoded:
    return Encoded(np.array(dense, np.float32), batch(*sparse))


def brute_force(query: Encoded, forward: Forward, k: int, weights: Weights) -> list[tuple]:
    parts = forward.score(query.dense[0], *query.sparse.row(0), np.arange(len(forward)))
    rows = zip(range(len(forward)), *parts, strict=True)
    scored = [(i, weights.dense * d + weights.sparse * s, d, s) for i, d, s in rows]
    return sorted(scored, key=lambda row: (-row[1], row[0]))[:k]


def as_rows(fused: Fused) -> list[tuple]:
    ranking = fused.ranking
    return list(zip(ranking.ordinals, ranking.scores, fused.dense, fused.sparse, strict=True))


# Twelve documents: dense parts fall by eighths, sparse parts favour the other end.
DENSE = [[eighths / 8] for eighths in (8, 7, 6, 5, 1, 0, 0, 0, 0, 0, -1, -8)]
SPARSE = [{}, {}, {}, {0: 4 / 8}, {0: 4 / 8}, {0: 8 / 8}, *[{}] * 6]


def test_a_first_round_that_proves_its_best_document() -> None:
    # n = 4 lists D = 0, 1, 2, 3 down to 5/8 and S = 5, 3, 4, which ends early: s_n = 0.
    # Best: document 3 with 5/8 + 4/8 = 9/8 > B = 5/8 + 0.
    stores = exact_stores(DENSE, SPARSE)
    fused = fuse(encoded([[1]], [{0: 1}]), stores, 1, Weights(), first_depth=4)
    assert fused.ranking.ordinals.tolist() == [3]
    assert fused.ranking.scores.tolist() == [float(Fraction(9, 8))]
    assert (fused.dense.tolist(), fused.sparse.tolist()) == ([5 / 8], [4 / 8])
    assert (fused.proven, fused.bound, fused.depth) == (True, 5 / 8, 4)


def test_a_first_round_that_proves_nothing_is_followed_by_a_deeper_one() -> None:
    # n = 2 lists D = 0 (8/8), 1 (7/8) and S = 5 (8/8), 3 (4/8): B = 7/8 + 4/8 = 11/8, but the
    # best exact score is 9/8 (document 3: 5/8 + 4/8). n = 8: B = 0 + 0, S being complete.
    stores = exact_stores(DENSE, SPARSE)
    fused = fuse(encoded([[1]], [{0: 1}]), stores, 1, Weights(), first_depth=2)
    assert fused.ranking.ordinals.tolist() == [3]
    assert fused.ranking.scores.tolist() == [9 / 8]
    assert (fused.proven, fused.bound, fused.depth) == (True, 0.0, 8)


def test_weights_change_scores_and_bound_by_the_same_rule() -> None:
    # n = 3: D ends with 6/8, S with 4/8. B = 1/2·6/8 + 3·4/8 = 15/8.
    # Document 5 scores 1/2·0 + 3·8/8 = 24/8, document 3 scores 1/2·5/8 + 3·4/8 = 29/16 < B.
    stores = exact_stores(DENSE, SPARSE)
    query = encoded([[1]], [{0: 1}])
    one = fuse(query, stores, 1, Weights(0.5, 3.0), first_depth=3)
    assert one.ranking.scores.tolist() == [24 / 8]
    assert (one.bound, one.depth) == (15 / 8, 3)
    # n = 4: D ends with 5/8 and S early, so B = 1/2·5/8 + 3·0 = 5/16.
    two = fuse(query, stores, 2, Weights(0.5, 3.0), first_depth=4)
    assert two.ranking.scores.tolist() == [24 / 8, 29 / 16]
    assert (two.bound, two.depth) == (5 / 16, 4)


def test_a_dense_error_bound_can_undo_a_proof() -> None:
    # Document 0 scores 8/8 in a list that ends with 7/8; an error of 1/4 would let another have
    # 9/8. At n = 8 the list ends with 0, and 0 + 1/4 is below 8/8.
    stores = exact_stores(DENSE, [{}] * 12)
    noisy = NoisyDense(stores.forward, np.array([0.0] * 11 + [-0.25]), np.arange(12))
    query = encoded([[1]], [{}])
    assert fuse(query, stores, 1, Weights(), first_depth=2).depth == 2
    fused = fuse(query, Stores(stores.forward, noisy, stores.sparse), 1, Weights(), first_depth=2)
    assert (fused.ranking.ordinals.tolist(), fused.depth) == ([0], 8)


def test_only_newly_listed_documents_are_scored_in_later_rounds() -> None:
    stores = exact_stores(DENSE, SPARSE)
    fuse(encoded([[1]], [{0: 1}]), stores, 1, Weights(), first_depth=1)
    scored = [ordinal for call in stores.forward.scored for ordinal in call]
    assert len(stores.forward.scored) > 1
    assert sorted(scored) == sorted(set(scored))


def test_proven_queries_are_not_asked_about_again() -> None:
    stores = exact_stores(DENSE, SPARSE)
    # The second query has no terms and the third none in the collection: both are proven at once.
    queries = encoded([[1], [1], [1]], [{0: 1}, {}, {3: 1}])
    fused = fuse_batch(queries, stores, 1, Weights(), first_depth=2)
    assert [f.depth for f in fused] == [8, 2, 2]
    assert stores.dense.asked == [(3, 2), (1, 8)]
    assert stores.sparse.asked == [(2, 2), (1, 8)]


def test_a_part_of_weight_zero_is_not_searched() -> None:
    stores = exact_stores(DENSE, SPARSE)
    query = encoded([[1]], [{0: 1}])
    dense_only = fuse(query, stores, 1, Weights(1, 0), first_depth=2)
    assert (stores.dense.asked, stores.sparse.asked) == ([(1, 2)], [])
    assert dense_only.ranking.ordinals.tolist() == [0]
    sparse_only = fuse(query, stores, 1, Weights(0, 1), first_depth=2)
    assert (stores.dense.asked, stores.sparse.asked) == ([(1, 2)], [(1, 2)])
    assert sparse_only.ranking.ordinals.tolist() == [5]


def test_without_dense_part_documents_that_share_no_term_follow_by_ordinal() -> None:
    stores = exact_stores([[0.0]] * 100, [{}] * 50 + [{0: 1.0}] + [{}] * 49)
    fused = fuse(encoded([[0]], [{0: 1}]), stores, 4, Weights(0, 1), first_depth=8)
    assert fused.ranking.ordinals.tolist() == [50, 0, 1, 2]
    assert fused.ranking.scores.tolist() == [1, 0, 0, 0]
    assert (fused.proven, fused.depth) == (True, 8)


def test_a_query_that_nothing_matches_is_proven_without_reading_deep() -> None:
    stores = exact_stores([[0.0]] * 1000, [{}] * 1000)
    fused = fuse(encoded([[1]], [{}]), stores, 3, Weights())
    assert (fused.ranking.ordinals.tolist(), fused.depth) == ([0, 1, 2], 64)
    assert sum(len(call) for call in stores.forward.scored) == 64


def test_a_tie_with_the_bound_is_no_proof_while_a_smaller_ordinal_is_unread() -> None:
    # All 20 documents tie; the store lists the largest ordinals first, as its protocol allows.
    forward = Forward(np.ones((20, 1), np.float32), batch(*[{}] * 20))
    backwards = np.zeros(20), np.arange(20)[::-1].copy()
    stores = Stores(forward, ExactDense(forward, *backwards), NoisySparse(forward, *backwards))
    fused = fuse(encoded([[1]], [{}]), stores, 2, Weights(), first_depth=2)
    assert (fused.ranking.ordinals.tolist(), fused.depth) == ([0, 1], 20)


def test_negative_dense_scores_are_bounded_as_well() -> None:
    stores = exact_stores([[-1.0], [-2.0], [-3.0], [-4.0]], [{}, {}, {}, {0: 2.5}])
    fused = fuse(encoded([[1]], [{0: 1}]), stores, 1, Weights(), first_depth=1)
    # n = 2: D scores -1 and -2, S -4 + 2.5; S ends early, so B = -2 + 0, which -1 is above.
    assert (fused.ranking.ordinals.tolist(), fused.ranking.scores.tolist()) == ([0], [-1])
    assert (fused.bound, fused.depth) == (-2, 2)


def test_an_index_without_documents_answers_nothing_and_says_it_is_proven() -> None:
    fused = fuse(encoded([[1]], [{0: 1}]), exact_stores([], []), 5, Weights())
    assert (len(fused.ranking), fused.proven, fused.bound, fused.depth) == (0, True, -np.inf, 0)


def test_the_first_round_reads_twice_as_deep_as_hits_are_asked_for() -> None:
    stores = exact_stores([[float(-i)] for i in range(100)], [{}] * 100)
    fuse(encoded([[1]], [{}]), stores, 20, Weights(), first_depth=10)
    assert stores.dense.asked == [(1, 40)]


def test_queries_that_are_not_finite_are_a_bug_and_not_an_answer() -> None:
    with pytest.raises(ValueError, match="finite"):
        fuse(encoded([[float("nan")]], [{}]), exact_stores(DENSE, SPARSE), 1, Weights())
    with pytest.raises(ValueError, match="finite"):
        fuse(encoded([[1]], [{0: float("inf")}]), exact_stores(DENSE, SPARSE), 1, Weights())


def test_no_queries_have_no_answers() -> None:
    none = Encoded(np.zeros((0, 1), np.float32), SparseVectors.from_rows([]))
    assert fuse_batch(none, exact_stores(DENSE, SPARSE), 3, Weights()) == []


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one_is_a_usage_error(k: int) -> None:
    with pytest.raises(UsageError, match=f"k must be at least 1, found {k}"):
        fuse(encoded([[1]], [{}]), exact_stores(DENSE, SPARSE), k, Weights())


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e101])
def test_a_weight_that_is_negative_or_not_a_usable_number_is_a_usage_error(weight: float) -> None:
    with pytest.raises(UsageError, match="dense weight"):
        Weights(dense=weight)
    with pytest.raises(UsageError, match="sparse weight"):
        Weights(sparse=weight)


def test_two_zero_weights_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="both 0"):
        Weights(0.0, 0.0)


def test_the_largest_weight_and_the_largest_vectors_give_finite_scores() -> None:
    largest = np.float64(np.finfo(np.float32).max)
    part = largest * largest * 100_000
    assert np.isfinite(Weights(1e100, 1e100).combine(part, part))


def test_stores_of_different_lengths_do_not_fit_together() -> None:
    ten, twelve = exact_stores(DENSE[:10], SPARSE[:10]), exact_stores(DENSE, SPARSE)
    with pytest.raises(ValueError, match="12, 10, 12"):
        Stores(twelve.forward, ten.dense, twelve.sparse)


@st.composite
def collections(draw: st.DrawFn) -> tuple[Stores, Encoded]:
    """Few distinct values make ties and duplicates abound; only steps of 0.1 round."""
    total, dim = draw(st.integers(0, 24)), draw(st.integers(1, 2))
    step = draw(st.sampled_from([1.0, 0.1]))
    value = st.integers(-2, 2).map(lambda units: units * step)
    weight = st.integers(1, 3).map(lambda units: units * step)
    dense_row = st.lists(value, min_size=dim, max_size=dim)
    sparse_row = st.dictionaries(st.integers(0, 3), weight, max_size=3)
    forward = Forward(
        np.array([draw(dense_row) for _ in range(total)], np.float32).reshape(total, dim),
        batch(*[draw(sparse_row) for _ in range(total)]),
    )
    exact = draw(st.booleans()) and step == 1.0
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    noise = np.zeros(total) if exact else generator.integers(-2, 3, total) / 4
    make_dense = ExactDense if exact else NoisyDense
    stores = Stores(
        forward,
        make_dense(forward, noise, generator.permutation(total)),
        NoisySparse(forward, noise, generator.permutation(total)),
    )
    count = draw(st.integers(1, 3))
    queries = encoded(
        [draw(dense_row) for _ in range(count)], [draw(sparse_row) for _ in range(count)]
    )
    return stores, queries


@settings(max_examples=examples(150), deadline=None)
@given(
    collections(),
    st.integers(1, 30),
    st.sampled_from([0.0, 1e-3, 0.3, 1.0, 7.0]),
    st.sampled_from([1e-3, 0.3, 1.0, 7.0]),
    st.booleans(),
    st.integers(1, 6),
)
def test_top_k_and_scores_equal_brute_force(
    collection: tuple[Stores, Encoded],
    k: int,
    one_weight: float,
    other_weight: float,
    swapped: bool,
    first_depth: int,
) -> None:
    stores, queries = collection
    both = (other_weight, one_weight) if swapped else (one_weight, other_weight)
    weights = Weights(*both)
    answers = fuse_batch(queries, stores, k, weights, first_depth=first_depth)
    for index, from_batch in enumerate(answers):
        query = Encoded(queries.dense[[index]], queries.sparse.rows(index, index + 1))
        stores.forward.scored.clear()
        fused = fuse(query, stores, k, weights, first_depth=first_depth)
        scored = {ordinal for call in stores.forward.scored for ordinal in call}
        truth = brute_force(query, stores.forward, len(stores.forward), weights)
        assert fused.proven
        assert as_rows(fused) == truth[:k]
        assert as_rows(from_batch) == truth[:k]
        assert all(score <= fused.bound for ordinal, score, *_ in truth if ordinal not in scored)
