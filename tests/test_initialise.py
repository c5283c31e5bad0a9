"""Closed-form starts do what they promise where it is possible."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import VOCABULARY, WORDS, tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.errors import UsageError
from dupmae.initialise import (
    LINEAR_REGION,
    OWN_LOGIT,
    _ridge,
    fit_cls_projection,
    fit_mlm_head,
    set_neighbours,
    set_query_weights,
)
from dupmae.model import DupMAE
from dupmae.represent import Vocabulary, read, represent
from dupmae.teachers import DenseTeacher, LexicalTeacher
from dupmae.tokens import Tokens

chance = np.random.default_rng(0)
TEXTS = [" ".join(chance.choice(WORDS[:20], 12)) for _ in range(60)]
SHARPNESS = 8.0


def tokens() -> Tokens:
    return Tokens(tiny_tokenizer())


@torch.no_grad()
def readable_model(**settings: object) -> DupMAE:
    """Return a model whose last states can be told apart by token: its layers add little."""
    model = tiny_model(**settings)
    for name, parameter in model.named_parameters():
        if "output.dense" in name or "position_embeddings" in name:
            parameter.mul_(0.1)
    return model


@pytest.fixture(scope="module")
def fitted() -> DupMAE:
    model = readable_model()
    fit_mlm_head(model, tokens(), TEXTS, 40, SHARPNESS)
    return model


@torch.no_grad()
def logits(model: DupMAE) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (n, V) of all ordinary tokens of the texts, and their ids (n,)."""
    input_ids, mask = tokens().batch(tokens().ids(TEXTS, 40))
    ordinary = tokens().ordinary(input_ids)
    head, bias = model.vocabulary_head()
    states = model.transform(model.hidden_states(input_ids, mask)[ordinary])
    return states @ head.T + bias, input_ids[ordinary]


def test_a_tokens_own_logit_is_the_largest(fitted: DupMAE) -> None:
    predicted, ids = logits(fitted)
    before, _ = logits(readable_model())
    assert (predicted.argmax(dim=1) == ids).float().mean() > 0.99
    assert (before.argmax(dim=1) == ids).float().mean() < 0.5


def test_the_median_own_logit_is_the_one_named(fitted: DupMAE) -> None:
    predicted, ids = logits(fitted)
    own = predicted.gather(1, ids.unsqueeze(1))
    assert own.median() == pytest.approx(OWN_LOGIT, abs=1e-3)
    head, bias = fitted.vocabulary_head()
    assert torch.equal(bias, torch.full_like(bias, OWN_LOGIT - SHARPNESS))
    assert head is fitted.word_embeddings.weight, "the projection stays tied"


@torch.no_grad()
def test_no_term_is_favoured(fitted: DupMAE) -> None:
    # What the map gives is orthogonal to the embeddings' mean, whatever the state.
    states = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    mapped = fitted.lm.cls.predictions.transform.dense(states) - LINEAR_REGION
    along_mean = mapped @ fitted.word_embeddings.weight.mean(dim=0)
    torch.testing.assert_close(along_mean, torch.zeros(50), rtol=0, atol=1e-4)
    assert mapped.norm(dim=1).min() > 0.1


@pytest.mark.parametrize("cls_attention", [False, True])
def test_cls_predicts_the_teachers_vector(tmp_path: Path, cls_attention: bool) -> None:
    teacher = _teacher(tmp_path)
    model = tiny_model(dense_dim=32, cls_attention=cls_attention)

    def fit() -> float:
        with torch.no_grad():
            input_ids, mask = tokens().batch(tokens().ids(TEXTS, 40))
            dense = model.dense(model.cls_state(model.hidden_states(input_ids, mask), mask))
        return float((dense * teacher.encode(TEXTS, 40)).sum(dim=1).mean())

    before = fit()
    fit_cls_projection(model, tokens(), TEXTS, 40, teacher)
    assert fit() > max(0.95, before)


@pytest.mark.parametrize(
    ("activation", "own_weight"),
    [
        ("log1p_relu", math.log(1 + OWN_LOGIT)),
        ("log1p2_relu", math.log(1 + math.log(1 + OWN_LOGIT))),
    ],
)
def test_query_weights_follow_idf_and_the_gain_is_constant(
    activation: str, own_weight: float
) -> None:
    model = tiny_model(activation=activation, corpus_idf=1.0)
    lexical = LexicalTeacher.fit([[7, 8, 8], [7, 9], [7]], len(VOCABULARY))
    set_query_weights(model, lexical, 0.2)
    weight = model.query_term_weight.detach()
    assert weight.max() == 1
    assert 0 < weight[7] < weight[8] == weight[9] < weight[10] == 1
    # ln(1 + .5 / 3.5) of a term in all three, ln(1 + 3.5 / .5) of one in none.
    assert float(weight[7]) == pytest.approx(math.log(1 + 0.5 / 3.5) / math.log(8), rel=1e-5)
    gains = torch.exp(model.query_log_gain(torch.randn(3, 32))).detach()
    torch.testing.assert_close(gains, torch.full((3, 1), 0.2 / own_weight))
    assert model.training_idf is not None
    assert torch.equal(model.training_idf, lexical.idf)


@torch.no_grad()
def test_sparse_scores_of_fitted_heads_are_scaled_bm25() -> None:
    ids = tokens().ids(TEXTS, 40)
    plain = [text[1:-1] for text in ids]
    lexical = LexicalTeacher.fit(plain, len(VOCABULARY))
    model = readable_model(
        expansion=0.0,
        normalize_query_terms=True,
        frequency_k1=lexical.k1,
        frequency_b=lexical.b,
        frequency_length=lexical.mean_length,
    )
    fit_mlm_head(model, tokens(), TEXTS, 40)
    set_query_weights(model, lexical, 0.2)
    queries, terms = [text[:5] + text[-1:] for text in ids], Vocabulary.of(tokens(), ids)
    asked, stored = (
        represent(model, tokens(), read(model, tokens(), side), terms, as_query=as_query).sparse
        for side, as_query in ((queries, True), (ids, False))
    )
    expected = 0.2 * lexical.score(
        [torch.tensor(text[1:-1]) for text in queries], [torch.tensor(text) for text in plain]
    )
    error = (asked @ stored.T - expected).abs()
    assert error.mean() < 0.15 * expected.mean()
    assert error.max() < 0.2 * expected.max()


def test_rows_without_a_text_keep_their_query_weight() -> None:
    model = tiny_model(corpus_idf=1.0)
    model.query_term_weight = torch.nn.Parameter(torch.full((len(VOCABULARY) + 8,), 0.5))
    model.training_idf = torch.nn.Parameter(torch.full((len(VOCABULARY) + 8,), 0.5))
    set_query_weights(model, LexicalTeacher.fit([[7]], len(VOCABULARY)), 1.0)
    assert (model.query_term_weight[-8:] == 0.5).all()
    assert model.query_term_weight[7] < model.query_term_weight[8] == 1
    assert (model.training_idf[-8:] == 0.5).all()


@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_solves_the_normal_equations(intercept: bool) -> None:
    features, targets = torch.randn(50, 4) + 1, torch.randn(50, 2)
    weight, bias = _ridge(features, targets, intercept=intercept)
    x, y = features.double(), targets.double()
    if intercept:
        torch.testing.assert_close(bias, (y.mean(0) - x.mean(0) @ weight.double()).float())
        x, y = x - x.mean(0), y - y.mean(0)
    else:
        assert (bias == 0).all()
    penalty = 1e-2 * x.square().sum() / 4
    gradient = x.T @ (x @ weight.double() - y) + penalty * weight.double()
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-4)


def _teacher(tmp_path: Path) -> DenseTeacher:
    save_model(tiny_model(), tiny_tokenizer(), tmp_path / "teacher", name="teacher")
    return DenseTeacher(tmp_path / "teacher", torch.device("cpu"))


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_the_nearest_terms_by_centred_embeddings(k: int) -> None:
    model = tiny_model(k_neighbours=k)
    assert model.term_neighbours is not None
    before = model.term_neighbours.tolist()
    set_neighbours(model, tokens())
    embeddings = model.word_embeddings.weight.detach().numpy()
    special = set(tiny_tokenizer().all_special_ids)
    terms = [term for term in range(len(VOCABULARY)) if term not in special]
    directions = embeddings - embeddings[terms].mean(0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for term, found in enumerate(model.term_neighbours.tolist()):
        others = sorted(
            (other for other in terms if other != term),
            key=lambda other: -float(directions[term] @ directions[other]),
        )
        assert found == (before[term] if term in special else others[:k])


def test_a_vocabulary_too_small_for_the_neighbours_is_refused() -> None:
    count = len(VOCABULARY) - len(tiny_tokenizer().all_special_ids)
    with pytest.raises(UsageError, match=f"less than the {count} terms, found {count}"):
        set_neighbours(tiny_model(k_neighbours=count), tokens())


def test_without_the_setting_there_are_no_neighbours() -> None:
    model = tiny_model()
    set_neighbours(model, tokens())
    assert model.term_neighbours is None
