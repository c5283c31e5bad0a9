from __future__ import annotations

import pytest
import torch

from dupmae import pooling
from dupmae.pooling import pool_terms, pool_vocabulary

LENGTHS = [1, 5, 3]


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(700, 8, generator=generator), torch.randn(700, generator=generator)


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(sum(LENGTHS), 8, generator=torch.Generator().manual_seed(2))


def slow_pool(states: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Write the definition out: the largest ⟨state, embedding⟩ + bias of each text and term."""
    texts = states.double().split(LENGTHS)
    weight, bias = head[0].double(), head[1].double()
    return torch.tensor(
        [
            [
                max(float(state @ weight[t]) for state in text) + float(bias[t])
                for t in range(len(weight))
            ]
            for text in texts
        ]
    )


def test_vocabulary_pool_is_the_maximum_over_each_texts_tokens(states, head):
    pooled = pool_vocabulary(states, LENGTHS, *head)
    torch.testing.assert_close(pooled, slow_pool(states, head), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("at_once", "smallest"), [(1, 1), (1, 7), (9 * 256, 256), (2**18, 1)])
def test_chunk_sizes_do_not_change_the_pool(states, head, monkeypatch, at_once, smallest):
    whole = pool_vocabulary(states, LENGTHS, *head)
    monkeypatch.setattr(pooling, "CACHED_LOGITS", at_once)
    monkeypatch.setattr(pooling, "SMALLEST_CHUNK", smallest)
    torch.testing.assert_close(pool_vocabulary(states, LENGTHS, *head), whole, rtol=0, atol=1e-6)


def test_own_terms_have_the_vocabulary_pools_logits(states, head):
    terms = torch.tensor([0, 3, 699])
    own = pool_terms(states[1:6], terms, *head)
    whole = pool_vocabulary(states, LENGTHS, *head)
    torch.testing.assert_close(own, whole[1, terms], rtol=0, atol=1e-6)
