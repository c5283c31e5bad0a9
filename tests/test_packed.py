"""A body that reads texts without padding gives the states that the padded one gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_model

from dupmae.packed import Layout, places, read_body
from dupmae.types import Int64


def layout(lengths: Int64) -> Layout:
    shape = (len(lengths), int(lengths.max()))
    return Layout(shape, *map(torch.from_numpy, places(lengths)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_padding_and_packing_undo_each_other(lengths: list[int]) -> None:
    where = layout(np.array(lengths))
    packed = torch.arange(2.0 * sum(lengths)).view(-1, 2)
    padded = where.pad(packed)
    assert torch.equal(where.pack(padded), packed)
    assert where.mask.sum(dim=1).tolist() == lengths
    assert (padded[~where.mask] == 0).all()
    assert where.is_padded == (len(set(lengths)) > 1)
    texts = [row[:length] for row, length in zip(padded, lengths, strict=True)]
    assert torch.equal(torch.cat(texts), packed)
    starts = [column for length in lengths for column in range(length)]
    assert where.columns_T.tolist() == starts


@pytest.mark.parametrize("lengths", [[7, 3, 5], [4, 4], [6], [1, 30]])
@torch.no_grad()
def test_states_are_those_of_the_padded_body(lengths: list[int]) -> None:
    model = tiny_model()
    where = layout(np.array(lengths))
    tokens = torch.randint(5, 200, (sum(lengths),), generator=torch.Generator().manual_seed(3))
    found = read_body(model.lm.bert, tokens, where)
    ids = where.pad(tokens.unsqueeze(1)).squeeze(2)
    expected = model.hidden_states(ids, where.mask.long())
    torch.testing.assert_close(found, expected[where.mask], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_token_is_computed_that_is_not_there() -> None:
    model = tiny_model()
    seen = []
    for layer in model.lm.bert.encoder.layer:
        layer.output.register_forward_hook(lambda _, __, states: seen.append(len(states)))
    where = layout(np.array([2, 40]))
    read_body(model.lm.bert, torch.full((42,), 7), where)
    assert seen == [42, 42]
