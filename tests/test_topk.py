from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dupmae.indexes.topk import top_k

SCORES = st.one_of(st.sampled_from([-1.0, -0.0, 0.0, 2.5]), st.floats(-1e100, 1e100))


@given(st.lists(SCORES, max_size=50), st.integers(0, 60), st.randoms())
def test_top_k_is_the_head_of_the_list_sorted_by_falling_score_then_ordinal(scores, k, random):
    ordinals = random.sample(range(1000), len(scores))
    expected = sorted(zip(scores, ordinals, strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]

    found = top_k(np.array(scores, np.float64), k, np.array(ordinals, np.int64))

    assert list(zip(found.scores.tolist(), found.ordinals.tolist(), strict=True)) == expected


def test_ordinals_count_from_zero_unless_given():
    assert top_k(np.array([1.0, 3.0, 2.0]), 2).ordinals.tolist() == [1, 2]


def test_ties_at_the_last_place_keep_the_smallest_ordinals():
    found = top_k(np.array([1.0, 5.0, 1.0, 1.0]), 3, np.array([40, 30, 20, 10]))

    assert found.ordinals.tolist() == [30, 10, 20]


@pytest.mark.parametrize("k", [0, 1, 5])
def test_no_scores_give_an_empty_ranking(k):
    assert len(top_k(np.zeros(0), k)) == 0
