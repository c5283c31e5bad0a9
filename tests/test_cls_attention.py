"""[CLS] attention starts as the mean of all states and equals a slow loop once it is trained."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor
from transformers import BertConfig

from dupmae.cls_attention import ClsAttention

CONFIG = BertConfig(
    hidden_size=12, num_attention_heads=3, intermediate_size=20, initializer_range=0.3
)
LENGTHS = [5, 1, 3]


def batch(padding: int = 2) -> tuple[Tensor, Tensor]:
    """Return states (3, 5 + padding, 12), wild where they are padding, and their mask."""
    longest = max(LENGTHS) + padding
    states = torch.randn(3, longest, 12, generator=torch.Generator().manual_seed(padding))
    mask = torch.tensor([[int(place < length) for place in range(longest)] for length in LENGTHS])
    texts = torch.randn(3, max(LENGTHS), 12, generator=torch.Generator().manual_seed(0))
    for text, length in enumerate(LENGTHS):
        states[text, :length] = texts[text, :length]
        states[text, length:] *= 1000
    return states, mask


def trained() -> ClsAttention:
    """Return one whose every weight matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = ClsAttention(CONFIG)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def slow_attention(made: ClsAttention, states_LD: Tensor) -> Tensor:
    """Read one text head by head and token by token."""
    size = states_LD.shape[1] // made.heads
    asked = made.query(states_LD[0])
    read = []
    for head in range(made.heads):
        own = slice(head * size, (head + 1) * size)
        scores = [float(asked[own] @ made.key(s)[own]) / math.sqrt(size) for s in states_LD]
        shares = [math.exp(score) for score in scores]
        values = [made.value(state)[own] for state in states_LD]
        read.append(sum(w * v for w, v in zip(shares, values, strict=True)) / sum(shares))
    return torch.cat(read)


@pytest.mark.parametrize("padding", [0, 1, 7])
@torch.no_grad()
def test_a_new_one_is_the_mean_of_a_texts_states_whatever_the_padding(padding: int) -> None:
    states, mask = batch(padding)
    means = [text[:length].mean(dim=0) for text, length in zip(states, LENGTHS, strict=True)]
    found = ClsAttention(CONFIG)(states, mask)
    torch.testing.assert_close(found, torch.stack(means), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", [0, 4])
@torch.no_grad()
def test_it_equals_a_loop_over_heads_and_tokens(padding: int) -> None:
    states, mask = batch(padding)
    made = trained()
    expected = [
        slow_attention(made, text[:length]) for text, length in zip(states, LENGTHS, strict=True)
    ]
    torch.testing.assert_close(made(states, mask), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_its_parts_after_a_first_step() -> None:
    # At first keys and the inner layer have none: what reads them is still 0.
    made = ClsAttention(CONFIG)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    states, mask = batch()
    target = torch.randn(3, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        optimizer.zero_grad()
        (made(states, mask) - target).square().sum().backward()
        optimizer.step()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-4, name


@torch.no_grad()
def test_a_models_cls_state_is_that_of_its_attention_or_the_first_state() -> None:
    input_ids = torch.tensor([[2, 9, 50, 3], [2, 70, 3, 0]])
    mask = (input_ids != 0).long()
    plain, reading = tiny_model(), tiny_model(cls_attention=True)
    states = plain.hidden_states(input_ids, mask)
    assert torch.equal(plain.cls_state(states, mask), states[:, 0])
    assert reading.cls_attention is not None
    found = reading.cls_state(states, mask)
    assert torch.equal(found, reading.cls_attention(states, mask))
    alone = reading.cls_state(states[1:, :3], mask[1:, :3])
    torch.testing.assert_close(found[1:], alone, rtol=1e-5, atol=1e-5)
