"""The network's heads are what their formulas say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_model import VOCABULARY, tiny_model

from dupmae.errors import UsageError
from dupmae.model import NEVER, HeadSettings, activate

INPUT_IDS = torch.tensor([[2, 9, 50, 120, 3], [2, 70, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
VOTING = torch.tensor([[False, True, True, True, False], [False, True, False, False, False]])


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_the_maximum_is_over_voting_tokens_of_the_language_models_own_logits() -> None:
    model = tiny_model()
    states = model.hidden_states(INPUT_IDS, MASK)
    pooled = model.max_pool(states, VOTING)
    logits = model.lm(INPUT_IDS, MASK).logits
    expected = [logits[text][VOTING[text]].amax(dim=0) for text in range(2)]
    torch.testing.assert_close(pooled, torch.stack(expected), rtol=1e-5, atol=1e-5)
    terms = torch.tensor([7, 3, 199])
    some = model.max_pool(states, VOTING, terms)
    torch.testing.assert_close(some, pooled[:, terms], rtol=1e-5, atol=1e-5)


def test_a_text_whose_tokens_do_not_vote_gets_a_logit_that_no_activation_lets_through() -> None:
    model = tiny_model()
    pooled = model.max_pool(model.hidden_states(INPUT_IDS, MASK), torch.zeros_like(VOTING))
    assert (pooled < NEVER / 2).all()
    assert (activate(pooled, "log1p_relu") == 0).all()


def test_padding_does_not_change_states() -> None:
    model = tiny_model()
    padded = model.hidden_states(INPUT_IDS, MASK)[1, :3]
    alone = model.hidden_states(INPUT_IDS[1:, :3], MASK[1:, :3])[0]
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_activations_are_logarithms_of_what_is_above_zero() -> None:
    logits = torch.tensor([-2.0, 0.0, math.e - 1])
    assert activate(logits, "log1p_relu").tolist() == pytest.approx([0, 0, 1])
    assert activate(logits, "log1p2_relu").tolist() == pytest.approx([0, 0, math.log(2)])
    assert activate(logits, "none") is logits


def test_dense_vectors_are_projections_of_length_one_if_asked() -> None:
    cls = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    raw = tiny_model(normalize=False).dense(cls)
    torch.testing.assert_close(raw, cls @ tiny_model().cls_projection.weight.T)
    unit = tiny_model().dense(cls)
    torch.testing.assert_close(unit, raw / raw.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("normalize", [True, False])
def test_query_weights_are_factors_a_norm_and_a_gain(normalize: bool) -> None:
    model = tiny_model(normalize_query_terms=normalize)
    terms = torch.tensor([5, 6, 7, 8])
    model.query_term_weight[terms] = torch.tensor([1.0, 2.0, -3.0, 0.5])
    weights = torch.tensor([[3.0, 2.0, 9.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    cls = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    gain = torch.exp(cls @ model.query_log_gain.weight[0] + model.query_log_gain.bias)
    expected = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0] * 4]) / (5 if normalize else 1)
    found = model.weigh_query(weights, cls, terms)
    torch.testing.assert_close(found, expected * gain.unsqueeze(1))
    whole = torch.zeros(2, len(VOCABULARY))
    whole[:, terms] = weights
    torch.testing.assert_close(model.weigh_query(whole, cls, None)[:, terms], found)


def test_a_new_model_keeps_cls_where_nothing_is_cut() -> None:
    cls = torch.randn(3, 32)
    model = tiny_model(dense_dim=32, normalize=False)
    assert torch.equal(model.dense(cls), cls)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "gelu"}, "activation must be one of log1p_relu, .* found 'gelu'"),
        ({"dense_dim": 0}, "dense_dim must be at least 1, found 0"),
        ({"k_query": 0}, "k_query must be at least 1, found 0"),
        ({"max_query_length": 2}, "max_query_length must be at least 3, .* found 2"),
        ({"expansion": 1.5}, r"expansion must lie in \[0, 1\], found 1.5"),
        ({"sparse_weight": -1.0}, "dense_weight and sparse_weight must not be negative"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HeadSettings(**settings)
