"""Training's vectors equal slow loops over the definition, and what the encoder makes of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_encoder import slow_length
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae.model import DupMAE
from dupmae.represent import Representation, Vocabulary, by_length, read, represent, stack
from dupmae.tokens import Tokens
from dupmae.torch_encoder import TorchEncoder

TEXTS = [
    " ".join(WORDS[start : start + length])
    for start, length in ((0, 7), (2, 1), (5, 14), (30, 4), (2, 9))
] + ["ba be ba ba fifo be"]
SPECIAL = 5
"""Ids below are special tokens."""


def tokens() -> Tokens:
    return Tokens(tiny_tokenizer())


def vocabulary(*terms: int) -> Vocabulary:
    return Vocabulary(torch.tensor(terms, dtype=torch.long))


def represented(
    model: DupMAE, ids: Sequence[Sequence[int]], terms: Vocabulary, *, as_query: bool
) -> Representation:
    return represent(model, tokens(), read(model, tokens(), ids), terms, as_query=as_query)


def slow_weights(model: DupMAE, ids: list[int], terms: list[int], *, as_query: bool) -> list[float]:
    """Weigh the terms of one text, token by token, term by term."""
    mask = torch.ones(1, len(ids), dtype=torch.long)
    states = model.hidden_states(torch.tensor([ids]), mask)[0]
    cls = model.cls_state(states.unsqueeze(0), mask)[0]
    transformed = model.transform(states).numpy()
    head, bias = (parameter.detach().numpy() for parameter in model.vocabulary_head())
    own = [token for token in ids if token >= SPECIAL]
    weights = []
    for term in terms:
        logits = [
            float(transformed[place] @ head[term] + bias[term])
            for place, token in enumerate(ids)
            if token >= SPECIAL
        ]
        weight = math.log1p(max(max(logits), 0.0)) if logits else 0.0
        if model.term_neighbours is not None and term not in own:
            weight *= any(term in model.term_neighbours[token].tolist() for token in own)
        weights.append(weight)
    is_own = [term in own for term in terms]
    if as_query:
        weights = [
            w * max(float(model.query_term_weight[t]), 0)
            for w, t in zip(weights, terms, strict=True)
        ]
        others = [0.0 if mine else weight for weight, mine in zip(weights, is_own, strict=True)]
        least = sorted(others, reverse=True)[: model.heads.k_expansion][-1]
        others = [weight if weight >= least else 0.0 for weight in others]
        weights = [weight if mine else 0.0 for weight, mine in zip(weights, is_own, strict=True)]
        if model.heads.normalize_query_terms:
            weights, others = slow_unit(weights), slow_unit(others)
        own_weights = weights
        weights = [
            weight + model.heads.expansion * other
            for weight, other in zip(weights, others, strict=True)
        ]
        if model.heads.normalize_query_terms and any(own_weights):
            length = slow_length(own_weights, model.heads.query_norm)
            weights = [weight / length for weight in weights]
        gain = math.exp(float(model.query_log_gain(cls)))
        return [weight * gain for weight in weights]
    heads, own_counts = model.heads, [own.count(term) for term in terms]
    ratio = len(own) / heads.frequency_length
    norm = heads.frequency_k1 * (1 - heads.frequency_b + heads.frequency_b * ratio)
    return [
        weight * count * (heads.frequency_k1 + 1) / (count + norm)
        if count
        else weight * heads.expansion * heads.expand_documents
        for weight, count in zip(weights, own_counts, strict=True)
    ]


def slow_unit(weights: list[float]) -> list[float]:
    norm = math.sqrt(sum(weight**2 for weight in weights))
    return [weight / norm for weight in weights] if norm else weights


SETTINGS = [
    {"expansion": 0.0},
    {"expansion": 0.3},
    {"expansion": 1.0},
    {"expansion": 0.0, "frequency_k1": 0.9, "frequency_length": 6.0},
    {"expansion": 0.3, "frequency_k1": 2.0, "frequency_b": 1.0, "frequency_length": 3.0},
    {"expansion": 0.3, "cls_attention": True, "corpus_idf": 1.0},
    {"expansion": 0.5, "k_expansion": 3, "expand_documents": False},
    {"expansion": 0.5, "k_neighbours": 7},
    {"expansion": 0.3, "query_norm": 1.25},
]


@pytest.mark.parametrize(
    ("normalize", "as_query"),
    [
        (True, True),
        (True, False),
        (False, True),
        pytest.param(False, False, marks=pytest.mark.slow),  # it is the queries' that are normal
    ],
)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_weights_equal_a_loop_over_tokens_and_terms(
    settings: dict[str, object], normalize: bool, as_query: bool
) -> None:
    model = tiny_model(normalize_query_terms=normalize, **settings)
    ids = [*tokens().ids(TEXTS, 40), [2, 3]]  # the last one is [CLS] [SEP] alone
    terms = Vocabulary.of(tokens(), ids, 60, torch.Generator().manual_seed(1))
    weights = represented(model, ids, terms, as_query=as_query).sparse
    expected = [slow_weights(model, text, terms.terms.tolist(), as_query=as_query) for text in ids]
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert (weights[:-1] > 0).any(dim=1).sum() >= 4  # u is 0 for the one token of a text
    assert (weights[-1] == 0).all()


@pytest.mark.parametrize("as_query", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@torch.no_grad()
def test_training_and_encoder_agree_on_the_terms_of_a_batch(
    settings: dict[str, object], as_query: bool
) -> None:
    # The encoder chooses among all terms, training among those of the batch.
    model = tiny_model(**{**settings, "k_document": 200, "k_query": 200, "k_expansion": 200})
    ids = tokens().ids(TEXTS, 24)
    terms = Vocabulary.of(tokens(), ids)
    trained = represented(model, ids, terms, as_query=as_query)
    encoder = TorchEncoder(model, tiny_tokenizer(), "tiny")
    encoded = encoder.encode_queries(TEXTS) if as_query else encoder.encode_documents(TEXTS)
    whole = torch.zeros(len(TEXTS), len(VOCABULARY))
    for row, (own, weights) in zip(whole, encoded.sparse, strict=True):
        row[torch.tensor(own).long()] = torch.tensor(weights)
    torch.testing.assert_close(trained.sparse, whole[:, terms.terms], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trained.dense, torch.tensor(encoded.dense), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_text_without_ordinary_tokens_has_no_terms_whatever_the_activation() -> None:
    for activation in ("log1p_relu", "log1p2_relu", "none"):
        model = tiny_model(activation=activation)
        ids = [[2, 3], [2, 1, 3], [2, 9, 3]]
        weights = represented(model, ids, vocabulary(7, 9, 11), as_query=False).sparse
        assert (weights[:2] == 0).all()
        assert (weights[2] != 0).any()


@pytest.mark.parametrize("as_query", [True, False])
def test_representations_do_not_depend_on_padding(as_query: bool) -> None:
    model = tiny_model(expansion=0.3, frequency_k1=0.9, cls_attention=True)
    ids = tokens().ids(TEXTS, 40)
    terms = Vocabulary.of(tokens(), ids)
    together = represented(model, ids, terms, as_query=as_query)
    for number, text in enumerate(ids):
        alone = represented(model, [text], terms, as_query=as_query)
        torch.testing.assert_close(alone.dense[0], together.dense[number], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.sparse[0], together.sparse[number], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_states_of_a_batch_are_those_of_its_texts_without_padding() -> None:
    model = tiny_model()
    ids = tokens().ids(TEXTS, 40)
    for states, text in zip(read(model, tokens(), ids).texts(), ids, strict=True):
        alone = read(model, tokens(), [text]).hidden_BLD[0]
        torch.testing.assert_close(states, alone, rtol=1e-4, atol=1e-5)


def test_a_vocabulary_holds_each_ordinary_id_once_in_order() -> None:
    ids = [[2, 50, 7, 7, 3], [2, 1, 9, 4, 50, 3]]
    assert Vocabulary.of(tokens(), ids).terms.tolist() == [7, 9, 50]
    assert Vocabulary.of(tokens(), [[2, 3]]).terms.tolist() == []


def test_sampled_terms_join_the_vocabulary_and_come_from_the_generator() -> None:
    ids = [[2, 50, 3]]
    drawn = [
        Vocabulary.of(tokens(), ids, 40, torch.Generator().manual_seed(seed)).terms.tolist()
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert 50 in drawn[0]
    assert 20 < len(drawn[0]) <= 41
    assert min(drawn[0]) >= SPECIAL
    assert max(drawn[0]) < len(VOCABULARY)


@given(
    st.sets(st.integers(5, 40)),
    st.lists(st.lists(st.integers(0, 45), min_size=4, max_size=4), min_size=1),
)
def test_terms_are_counted_wherever_they_stand(terms: set[int], texts: list[list[int]]) -> None:
    # Ids between two terms, below the first and above the last must not count for a neighbour.
    counts = vocabulary(*sorted(terms)).count(torch.tensor(texts))
    assert counts.dtype == torch.float32
    assert counts.tolist() == [[text.count(term) for term in sorted(terms)] for text in texts]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5))
def test_chunks_hold_texts_of_like_length_and_stack_restores_their_order(
    lengths: list[int], size: int
) -> None:
    chunks = by_length(lengths, size)
    order = [position for chunk in chunks for position in chunk]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[position] for position in order] == sorted(lengths)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    rows = torch.arange(len(lengths)).float().unsqueeze(1)
    pieces = [Representation(rows[chunk], rows[chunk] + 100) for chunk in chunks]
    joined = stack(pieces, chunks)
    assert torch.equal(joined.dense, rows)
    assert torch.equal(joined.sparse, rows + 100)
