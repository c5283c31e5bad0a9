"""Facts about the fusions of others, the fractions written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from dupmae.eval.beir import Collection
from dupmae.eval.fusions import Fused, convex, min_max, reciprocal_rank, tune_alpha
from dupmae.eval.runs import Ranked
from dupmae.eval.systems import Recorded

DENSE: Ranked = [("a", 9.0), ("b", 7.0), ("c", 5.0)]
SPARSE: Ranked = [("c", 40.0), ("a", 10.0), ("d", 0.5)]


def test_rrf_adds_the_reciprocals_of_ranks_behind_60() -> None:
    assert reciprocal_rank(DENSE, SPARSE) == [
        ("a", pytest.approx(1 / 61 + 1 / 62)),
        ("c", pytest.approx(1 / 63 + 1 / 61)),
        ("b", pytest.approx(1 / 62)),
        ("d", pytest.approx(1 / 63)),
    ]


def test_min_max_is_the_mean_of_scores_between_each_lists_ends() -> None:
    # Dense: a 1, b 1/2, c 0. Sparse: c 1, a 9.5/39.5, d 0.
    assert min_max(DENSE, SPARSE) == [
        ("a", pytest.approx((1 + 9.5 / 39.5) / 2)),
        ("c", pytest.approx((0 + 1) / 2)),
        ("b", pytest.approx((1 / 2 + 0) / 2)),
        ("d", 0.0),
    ]


def test_convex_weighs_the_two_lists() -> None:
    assert convex(0.2)(DENSE, SPARSE) == [
        ("c", pytest.approx(0.8)),
        ("a", pytest.approx(0.2 + 0.8 * 9.5 / 39.5)),
        ("b", pytest.approx(0.1)),
        ("d", 0.0),
    ]
    assert [doc_id for doc_id, _ in convex(1.0)(DENSE, SPARSE)][:2] == ["a", "b"]


def test_a_list_of_one_or_of_equals_is_worth_1_and_an_empty_one_nothing() -> None:
    assert min_max([("a", 3.0)], [("b", 2.0), ("c", 2.0)]) == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
    assert min_max([], [("b", 2.0), ("c", 1.0)]) == [("b", 0.5), ("c", 0.0)]
    assert min_max([], []) == reciprocal_rank([], []) == []


def test_equal_scores_keep_the_order_of_the_dense_list() -> None:
    assert [doc_id for doc_id, _ in reciprocal_rank([("z", 2.0)], [("a", 7.0)])] == ["z", "a"]


def test_documents_that_share_no_term_and_the_query_itself_are_not_fused() -> None:
    dense = Recorded({"q": [("q", 50.0), ("a", 2.0), ("b", 1.0)]})
    sparse = Recorded({"q": [("b", 3.0), ("q", 1.0), ("a", 0.0)]})
    fused = Fused(dense, sparse, min_max)
    # Left are dense a 1, b 0 and sparse b 1.
    assert fused.search({"q": "?"}, 9).run == {"q": [("a", 0.5), ("b", 0.5)]}


def collection(qrels: dict[str, dict[str, int]]) -> Collection:
    return Collection("toy", "dev", dict.fromkeys(qrels, "?"), qrels, Path("corpus.jsonl"))


def test_alpha_is_the_one_that_ranks_best() -> None:
    # a is 1 in the dense list and .2 in the sparse, b is .5 and 1: a leads where
    # α + .2 (1 − α) > .5 α + 1 − α, from α = .615 on.
    dense = Recorded({"q": [("a", 11.0), ("b", 6.0), ("x", 1.0)]})
    sparse = Recorded({"q": [("b", 11.0), ("a", 3.0), ("y", 1.0)]})
    for_a, for_b = collection({"q": {"a": 1}}), collection({"q": {"b": 1}})
    assert tune_alpha(dense, sparse, for_a, 9) == 0.65
    assert tune_alpha(sparse, dense, for_a, 9) == 0.35
    assert tune_alpha(dense, sparse, for_b, 9) == 0.5  # of equals the one in the middle
