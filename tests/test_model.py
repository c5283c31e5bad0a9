"""The network's heads are what their formulas say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import VOCABULARY, tiny_model
from torch import Tensor

from dupmae.errors import UsageError
from dupmae.model import (
    CORPUS_PRIOR,
    LEAST_IDF,
    NEVER,
    DupMAE,
    HeadSettings,
    activate,
    expand_query,
    inverse_frequency,
    term_factors,
)
from dupmae.teachers import LexicalTeacher

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
    counts = torch.ones_like(weights)
    cls = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    gain = torch.exp(cls @ model.query_log_gain.weight[0] + model.query_log_gain.bias)
    expected = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0] * 4]) / (5 if normalize else 1)
    found = model.weigh_query(weights, counts, cls, terms)
    torch.testing.assert_close(found, expected * gain.unsqueeze(1))
    whole = torch.zeros(2, len(VOCABULARY))
    whole[:, terms] = weights
    found_whole = model.weigh_query(whole, torch.ones_like(whole), cls, None)
    torch.testing.assert_close(found_whole[:, terms], found)


@pytest.mark.parametrize(("terms", "factor"), [(1, 10**0.25), (10, 1.0), (160, 0.5)])
def test_a_norm_below_2_makes_short_queries_heavier_and_long_ones_lighter(
    terms: int, factor: float
) -> None:
    counts = torch.tensor([[1.0] * terms + [0.0]])
    weights = torch.tensor([[3.0] * terms + [1.0]])
    usual, found = (
        expand_query(weights, counts, HeadSettings(normalize_query_terms=True, query_norm=p))
        for p in (2, 4 / 3)  # ten terms, and so four as heavy as ten: (10 / 160) ** (1 / 4) = .5
    )
    torch.testing.assert_close(found, usual * factor)


def test_gradients_of_a_query_without_terms_of_its_own_are_finite() -> None:
    weights = torch.tensor([[0.0, 1.0], [2.0, 1.0]], requires_grad=True)
    heads = HeadSettings(normalize_query_terms=True, query_norm=1.25)
    with torch.enable_grad():
        expand_query(weights, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), heads).sum().backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    st.floats(0, 3),
    st.floats(0, 1),
    st.floats(1, 500),
    st.floats(0, 1),
)
def test_a_documents_factors_are_those_of_bm25(
    counts: list[list[int]], k1: float, b: float, usual: float, expansion: float
) -> None:
    heads = HeadSettings(
        frequency_k1=k1, frequency_b=b, frequency_length=usual, expansion=expansion
    )
    others = 4  # a document has tokens besides those whose factors are asked for
    expected = [
        [c * (k1 + 1) / (c + k1 * (1 - b + b * (sum(row) + others) / usual)) if c else expansion
         for c in row]
        for row in counts
    ]  # fmt: skip
    counts_BV = torch.tensor(counts, dtype=torch.float32)
    lengths_B1 = counts_BV.sum(dim=1, keepdim=True) + others
    found = term_factors(counts_BV, lengths_B1, heads)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_frequency_does_not_count_unless_asked_for() -> None:
    counts = torch.tensor([0.0, 1.0, 7.0])
    found = term_factors(counts, counts.sum(), HeadSettings(expansion=0.3))
    assert found.tolist() == pytest.approx([0.3, 1.0, 1.0])


def with_idf(idf: list[float], power: float) -> DupMAE:
    """Return a model whose first terms had these idf in training."""
    model = tiny_model(corpus_idf=power)
    assert model.training_idf is not None
    model.training_idf[: len(idf)] = torch.tensor(idf)
    return model


def factors(model: DupMAE, frequency: list[int], documents: int) -> Tensor:
    found = model.corpus_factors(torch.arange(len(frequency)), torch.tensor(frequency), documents)
    assert found is not None
    return found


def test_a_model_without_corpus_idf_has_no_factors() -> None:
    assert tiny_model().corpus_factors(torch.tensor([7]), torch.tensor([3]), 10) is None


def test_an_empty_corpus_leaves_the_weights_of_training() -> None:
    idf = [0.1, 1.0, 3.0, 5.0, 11.0]
    found = factors(with_idf(idf, 1.0), [0] * 5, 0)
    torch.testing.assert_close(found, torch.ones(5), rtol=0, atol=1e-3)


def test_terms_that_are_rarer_in_the_corpus_than_in_training_weigh_more() -> None:
    # In training a term of this idf was in e^−3 of all texts: 498 of 10,000.
    found = factors(with_idf([3.0] * 5, 1.0), [0, 100, 498, 2000, 10_000], 10_000)
    assert (found.diff() < 0).all()
    assert found[0] > found[1] > 1.3
    assert float(found[2]) == pytest.approx(1, abs=1e-3)
    assert 0 < found[4] < found[3] < 0.6


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_factors_are_powers_of_the_ratio_of_both_idf(power: float) -> None:
    idf, frequency, documents = [0.01, 0.5, 2.0, 9.0], [3, 0, 70, 1], 80
    expected = []
    for training, count in zip(idf, frequency, strict=True):
        counted = count + (CORPUS_PRIOR + 1) * math.exp(-training) - 0.5
        here = math.log(1 + (documents + CORPUS_PRIOR - counted + 0.5) / (counted + 0.5))
        expected.append((here / max(training, LEAST_IDF)) ** power)
    found = factors(with_idf(idf, power), frequency, documents)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_inverse_frequency_is_what_the_lexical_teacher_counts() -> None:
    documents = [[7, 8, 8], [7, 9], [7]]
    counted = LexicalTeacher.fit(documents, 11).idf
    frequency = torch.tensor([sum(term in text for text in documents) for term in range(11)])
    torch.testing.assert_close(inverse_frequency(frequency, 3), counted)


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
        ({"max_query_length": 2}, "max_query_length must be at least 3, found 2"),
        ({"expansion": 1.5}, r"expansion must be at least 0 and at most 1, found 1\.5"),
        ({"sparse_weight": -1.0}, r"sparse_weight must be at least 0 and .* found -1\.0"),
        ({"dense_weight": math.nan}, "dense_weight must be at least 0 and .* found nan"),
        ({"corpus_idf": math.inf}, r"corpus_idf must be at least 0 and finite, found inf"),
        ({"frequency_k1": -0.1}, r"frequency_k1 must be at least 0 .* found -0\.1"),
        ({"frequency_b": 1.1}, r"frequency_b must be at least 0 and at most 1, found 1\.1"),
        ({"frequency_length": 0.0}, "frequency_length must be above 0, found 0"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HeadSettings(**settings)
