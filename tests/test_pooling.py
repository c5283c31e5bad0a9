"""Both ways to pool are the maximum over a text's tokens, however the work is cut."""

from __future__ import annotations

import pytest
import torch

from dupmae import pooling
from dupmae.model import NEVER
from dupmae.pooling import pool_given, pool_vocabulary

LENGTHS = [1, 5, 3]


@pytest.fixture
def head() -> torch.Tensor:
    return torch.randn(700, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(sum(LENGTHS), 8, generator=torch.Generator().manual_seed(2))


def pad(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the texts' states padded, with large ones where nothing votes, and what votes."""
    padded = torch.full((len(LENGTHS), 6, states.shape[1]), 100.0)
    votes = torch.zeros(len(LENGTHS), 6, dtype=torch.bool)
    for row, voting, text in zip(padded, votes, states.split(LENGTHS), strict=True):
        row[1 : 1 + len(text)] = text
        voting[1 : 1 + len(text)] = True
    return padded, votes


def slow_pool(states: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Write the definition out: the largest ⟨state, embedding⟩ of each text and term."""
    texts, rows = states.double().split(LENGTHS), head.double()
    return torch.tensor(
        [[max(float(state @ row) for state in text) for row in rows] for text in texts]
    )


def test_vocabulary_pool_is_the_maximum_over_each_texts_tokens(states, head):
    pooled = pool_vocabulary(*pad(states), head)
    torch.testing.assert_close(pooled, slow_pool(states, head), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("at_once", "smallest"), [(1, 1), (1, 7), (9 * 256, 256), (2**18, 1)])
def test_chunk_sizes_do_not_change_the_pool(states, head, monkeypatch, at_once, smallest):
    terms, padded = torch.arange(3 * 50).view(3, 50), pad(states)
    whole = pool_vocabulary(*padded, head), pool_given(*padded, head, terms)
    monkeypatch.setattr(pooling, "CACHED_LOGITS", at_once)
    monkeypatch.setattr(pooling, "SMALLEST_CHUNK", smallest)
    pieces = pool_vocabulary(*padded, head), pool_given(*padded, head, terms)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-6)


def test_given_terms_have_the_vocabulary_pools_logits(states, head):
    terms = torch.tensor([[0, 3, 699], [5, 5, 1], [2, 0, 0]])
    given = pool_given(*pad(states), head, terms)
    whole = pool_vocabulary(*pad(states), head)
    torch.testing.assert_close(given, whole.gather(1, terms), rtol=0, atol=1e-6)


def test_a_text_of_which_nothing_votes_has_no_logit_that_counts(states, head):
    padded, votes = pad(states)
    votes[1] = False
    terms = torch.zeros(3, 2, dtype=torch.long)
    for pooled in (pool_given(padded, votes, head, terms), pool_vocabulary(padded, votes, head)):
        assert (pooled[1] == NEVER).all()
        assert (pooled[[0, 2]] > NEVER).all()
