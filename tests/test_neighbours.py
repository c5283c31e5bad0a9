"""Neighbour orders are permutations that put texts of one topic together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dupmae.neighbours import neighbour_order

COMMON, OWN = 20, 10
"""Words that every text may have, and words of one topic alone."""

texts = st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=40)


def made_up(topics: int, each: int, seed: int) -> tuple[list[list[int]], list[int]]:
    """Return texts of six common words and six of their topic, shuffled, and their topics."""
    chance = np.random.default_rng(seed)
    labels = chance.permutation(np.repeat(np.arange(topics), each)).tolist()
    ids = [
        [*chance.choice(COMMON, 6), *(COMMON + OWN * topic + chance.choice(OWN, 6))]
        for topic in labels
    ]
    return [list(map(int, text)) for text in ids], labels


def purity(labels: list[int], block: int) -> float:
    """Return the share of texts that are of their block's commonest topic."""
    blocks = [labels[start : start + block] for start in range(0, len(labels), block)]
    return sum(max(map(b.count, b)) for b in blocks) / len(labels)


@given(texts, st.integers(1, 9))
def test_an_order_is_a_permutation_and_the_same_every_time(
    ids: list[list[int]], block: int
) -> None:
    order = neighbour_order(ids, 10, block)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(len(ids)))
    assert np.array_equal(neighbour_order(ids, 10, block), order)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("topics", "each", "block"), [(2, 16, 16), (8, 16, 8), (7, 9, 4)])
def test_texts_of_one_topic_stand_together(topics: int, each: int, block: int, seed: int) -> None:
    ids, labels = made_up(topics, each, seed)
    order = neighbour_order(ids, COMMON + OWN * topics, block)
    assert purity(labels, block) < 0.7
    assert purity([labels[place] for place in order], block) > 0.8


def test_equal_texts_keep_their_order() -> None:
    assert neighbour_order([[1, 2]] * 9, 5, 2).tolist() == list(range(9))
