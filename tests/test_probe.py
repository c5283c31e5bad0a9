"""The probe's reciprocal ranks equal those of the encoder's own scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae.probe import _reciprocal_rank, probe_pairs
from dupmae.represent import Vocabulary
from dupmae.tokens import Tokens
from dupmae.torch_encoder import TorchEncoder
from dupmae.types import Encoded


def whole(encoded: Encoded) -> torch.Tensor:
    """Return the sparse vectors over the whole vocabulary."""
    rows = torch.zeros(len(encoded), len(VOCABULARY))
    for row, (terms, weights) in zip(rows, encoded.sparse, strict=True):
        row[torch.tensor(terms).long()] = torch.tensor(weights)
    return rows


def test_ties_and_nan_count_against_the_target() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 1.0], [float("nan")] * 3])
    assert _reciprocal_rank(scores[:1], torch.tensor([0])) == 1
    assert _reciprocal_rank(scores[:2], torch.tensor([2, 2])) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert _reciprocal_rank(scores[2:], torch.tensor([0])) == pytest.approx(1 / 3)


def test_ranks_beyond_the_tenth_count_nothing() -> None:
    scores = torch.arange(12.0).unsqueeze(0)
    assert _reciprocal_rank(scores, torch.tensor([2])) == pytest.approx(1 / 10)
    assert _reciprocal_rank(scores, torch.tensor([1])) == 0


@pytest.mark.parametrize("expansion", [0.0, 0.3, 1.0])
def test_the_probe_ranks_as_the_encoder_does_at_the_terms_of_queries(expansion: float) -> None:
    limits = {"k_document": 200, "k_query": 200, "k_expansion": 200}
    model = tiny_model(expansion=expansion, sparse_weight=0.5, **limits)
    chance = np.random.default_rng(3)
    texts = [" ".join(chance.choice(WORDS, 8)) for _ in range(25)]
    pairs = [(" ".join(text.split()[1:3]), text) for text in texts]
    pairs.append((pairs[0][0], texts[4]))  # a text of two queries counts as one
    encoder = TorchEncoder(model, tiny_tokenizer(), "tiny")
    queries = encoder.encode_queries([query for query, _ in pairs])
    documents = encoder.encode_documents(texts)
    dense = torch.tensor(queries.dense) @ torch.tensor(documents.dense).T
    ids = Tokens(tiny_tokenizer()).ids([query for query, _ in pairs], 24)
    terms = Vocabulary.of(Tokens(tiny_tokenizer()), ids).terms
    sparse = whole(queries)[:, terms] @ whole(documents)[:, terms].T
    targets = torch.tensor([*range(25), 4])
    expected = {
        "probe_sum": _reciprocal_rank(dense + 0.5 * sparse, targets),
        "probe_dense": _reciprocal_rank(dense, targets),
        "probe_sparse": _reciprocal_rank(sparse, targets),
    }
    measured = probe_pairs(model, Tokens(tiny_tokenizer()), pairs, batch_size=4)
    assert measured == pytest.approx(expected)
    assert 0 < measured["probe_sparse"] < 1
