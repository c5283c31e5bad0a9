"""NumPy's term weights are torch's, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import VOCABULARY, tiny_model

from dupmae import model
from dupmae.heads import HeadSettings
from dupmae.readings import Reading
from dupmae.term_weights import (
    TermWeights,
    activate,
    corpus_factors,
    document_factors,
    top_terms,
    unit,
)
from dupmae.types import CorpusStatistics

COUNTS = np.array([0, 1, 2, 17])


@pytest.mark.parametrize("activation", ["log1p_relu", "log1p2_relu"])
def test_activations_are_torchs(activation):
    logits = np.array([-3, 0, 1e-6, 2, 500], np.float32)
    expected = model.activate(torch.from_numpy(logits), activation)
    found = activate(logits, HeadSettings(activation=activation))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("k1", [0.0, 0.9, 3.0])
@pytest.mark.parametrize("b", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("length", [0, 20, 400])
def test_factors_of_frequency_are_torchs(k1, b, length):
    heads = HeadSettings(frequency_k1=k1, frequency_b=b, expansion=0.3)
    expected = model.term_factors(torch.from_numpy(COUNTS).float(), torch.tensor(length), heads)
    np.testing.assert_allclose(document_factors(COUNTS, length, heads), expected, rtol=1e-6)


@pytest.mark.parametrize("documents", [0, 30, 10**6])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_factors_of_a_corpus_are_torchs(documents, power):
    torch_model = tiny_model(corpus_idf=power)
    terms = np.arange(0, len(VOCABULARY), 3)
    frequency = np.random.default_rng(1).integers(0, documents + 1, len(VOCABULARY))
    expected = torch_model.corpus_factors(
        torch.from_numpy(terms), torch.from_numpy(frequency[terms]), documents
    )
    idf = torch_model.training_idf.detach().numpy()
    statistics = CorpusStatistics(documents, frequency)
    found = corpus_factors(idf, terms, statistics, torch_model.heads)
    np.testing.assert_allclose(found, expected.detach(), rtol=2e-4)


@pytest.mark.parametrize(("k", "expected"), [(2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])])
def test_a_document_keeps_what_may_add_most_to_a_score(k, expected):
    weights = TermWeights(HeadSettings(k_document=k), np.array([2, 0, 1, 2], np.float32), None)
    terms, logits = np.arange(4), np.array([1, 9, 2, 3], np.float32)
    text = Reading(np.zeros(1, np.float32), 0.0, terms, logits, np.ones(4, np.int64), 4)
    kept, of_document = weights.document(text)
    assert kept.tolist() == expected  # 1 is the heaviest, but no query weighs it
    np.testing.assert_allclose(of_document, np.log1p(logits[expected]), rtol=1e-6)


def test_a_unit_vector_has_length_one_and_zeros_stay_zeros():
    assert unit(np.array([3.0, 4.0])).tolist() == [0.6, 0.8]
    assert unit(np.zeros(3)).tolist() == [0, 0, 0]
    assert unit(np.zeros(0)).tolist() == []


def test_top_terms_of_equal_weight_are_those_of_smaller_id():
    terms = np.array([2, 4, 6, 8, 9], dtype=np.int32)
    weights = np.array([1, 3, 1, 1, 2], dtype=np.float32)
    kept, kept_weights = top_terms(terms, weights, 4)
    assert kept.tolist() == [2, 4, 6, 9]
    assert kept_weights.tolist() == [1, 3, 1, 2]


def test_top_terms_are_never_of_weight_zero_or_less():
    terms = np.array([1, 2, 3], dtype=np.int32)
    kept, _ = top_terms(terms, np.array([0, -1, 0.5], dtype=np.float32), 3)
    assert kept.tolist() == [3]


def test_top_terms_of_nothing_are_nothing():
    kept, weights = top_terms(np.zeros(0, np.int32), np.zeros(0, np.float32), 5)
    assert len(kept) == len(weights) == 0


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0]), max_size=30), st.integers(1, 12))
def test_top_terms_equal_a_full_sort(weights, k):
    terms = np.arange(0, 3 * len(weights), 3, dtype=np.int32)
    kept, kept_weights = top_terms(terms, np.array(weights, dtype=np.float32), k)
    best = sorted((-w, int(t)) for w, t in zip(weights, terms, strict=True) if w > 0)[:k]
    assert list(zip(kept.tolist(), kept_weights.tolist(), strict=True)) == sorted(
        (term, -negative) for negative, term in best
    )
