"""Teachers: BM25 and late interaction equal loops; cosines do not depend on the batch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import WORDS, tiny_model, tiny_tokenizer
from torch import Tensor

from dupmae.checkpoint import save_model
from dupmae.errors import CheckpointError
from dupmae.teachers import DenseTeacher, LateTeacher, LexicalTeacher, mean_vectors

CPU = torch.device("cpu")
K1, B = 0.9, 0.4

documents = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=6)


def slow_bm25(queries: list[list[int]], texts: list[list[int]]) -> list[list[float]]:
    mean_length = max(sum(map(len, texts)), 1) / len(texts)

    def idf(term: int) -> float:
        df = sum(term in text for text in texts)
        return math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))

    def score(query: list[int], text: list[int]) -> float:
        norm = math.sqrt(sum(idf(term) ** 2 for term in set(query)))
        total = 0.0
        for term in set(query):
            tf = text.count(term)
            saturated = tf * (K1 + 1) / (tf + K1 * (1 - B + B * len(text) / mean_length))
            total += idf(term) * saturated / norm
        return total

    return [[score(query, text) for text in texts] for query in queries]


@given(documents, st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=4))
def test_bm25_equals_the_textbook_loop(texts: list[list[int]], queries: list[list[int]]) -> None:
    teacher = LexicalTeacher.fit(texts, 10)
    scores = teacher.score(
        *([torch.tensor(ids).long() for ids in side] for side in (queries, texts))
    )
    expected = torch.tensor(slow_bm25(queries, texts))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)


def test_bm25_of_terms_outside_the_fitted_texts_is_finite() -> None:
    teacher = LexicalTeacher.fit([[], []], 10)
    scores = teacher.score([torch.tensor([3, 4])], [torch.tensor([4]), torch.tensor([]).long()])
    assert scores[0, 0] > 0
    assert scores[0, 1] == 0


LATE = LateTeacher(torch.tensor([0.5, -1.0, 0.25]), torch.tensor([0.1, 1.0, 3.0, 2.0]))


def slow_late(ids: list[int], query: list[list[float]], document: list[list[float]]) -> float:
    """Return Σ_i w_i · max_j cos(q_i, d_j) of the tokens between [CLS] and [SEP]."""

    def cosine(one: list[float], other: list[float]) -> float:
        a = [x - c for x, c in zip(one, LATE.centre.tolist(), strict=True)]
        b = [x - c for x, c in zip(other, LATE.centre.tolist(), strict=True)]
        length = math.sqrt(math.fsum(x * x for x in a) * math.fsum(x * x for x in b))
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / length

    norm = math.sqrt(sum(float(LATE.idf[term]) ** 2 for term in ids)) or 1.0
    return sum(
        float(LATE.idf[term]) / norm * max((cosine(q, d) for d in document[1:-1]), default=0.0)
        for term, q in zip(ids, query[1:-1], strict=True)
    )


def states_of(lengths: list[int], seed: int) -> list[Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(length + 2, 3, generator=chance) for length in lengths]


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_late_interaction_equals_a_loop_over_pairs_of_tokens(
    ids: list[list[int]], lengths: list[int]
) -> None:
    # Texts of no tokens, of [CLS] and [SEP] alone, are among both sides.
    queries, texts = states_of([len(own) for own in ids], 1), states_of(lengths, 2)
    scores = LATE.score([torch.tensor(own).long() for own in ids], queries, texts)
    expected = [
        [slow_late(own, query.tolist(), text.tolist()) for text in texts]
        for own, query in zip(ids, queries, strict=True)
    ]
    torch.testing.assert_close(scores, torch.tensor(expected).float(), rtol=1e-4, atol=1e-5)


def test_a_text_answers_itself_best() -> None:
    # Of itself each token has a cosine of 1, and weights of length 1 add up to at most √n.
    (text, other) = states_of([4, 4], 3)
    ids = torch.tensor([1, 2, 2, 3])
    own, foreign = LATE.score([ids], [text], [text, other])[0].tolist()
    weights = LATE.idf[ids]
    assert own == pytest.approx(float(weights.sum() / weights.norm()), rel=1e-5)
    assert foreign < own <= 2


def test_no_gradient_reaches_what_late_interaction_reads() -> None:
    (text,) = states_of([3], 4)
    assert not LATE.score([torch.tensor([1, 2, 3])], [text.requires_grad_()], [text]).requires_grad


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> DenseTeacher:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    save_model(tiny_model(), tiny_tokenizer(), folder, name="teacher")
    return DenseTeacher(folder, CPU)


TEXTS = [
    " ".join(WORDS[start : start + length]) for start, length in ((0, 9), (3, 1), (5, 20), (9, 4))
]


def test_dense_vectors_are_normalised_means_of_the_states(teacher: DenseTeacher) -> None:
    vectors = teacher.encode(TEXTS, max_length=16)
    assert vectors.shape == (4, teacher.dim)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    states = []
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=16)["input_ids"]])
        with torch.no_grad():
            states.append(model.hidden_states(ids, torch.ones_like(ids))[0])
        mean = states[-1].mean(dim=0)
        torch.testing.assert_close(vector, mean / mean.norm(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean_vectors(states), vectors, rtol=1e-5, atol=1e-6)


def test_dense_vectors_keep_their_order_in_any_batch(teacher: DenseTeacher) -> None:
    together = teacher.encode(TEXTS, max_length=24)
    alone = torch.cat([teacher.encode([text], max_length=24) for text in TEXTS])
    in_pairs = teacher.encode(TEXTS, max_length=24, batch_size=2)
    turned = teacher.encode(TEXTS[::-1], max_length=24).flip(0)
    for vectors in (alone, in_pairs, turned):
        torch.testing.assert_close(vectors, together, rtol=1e-5, atol=1e-6)


def test_a_teacher_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model folder .*absent"):
        DenseTeacher(tmp_path / "absent", CPU)
    with pytest.raises(CheckpointError, match=f"no teacher can be loaded from {tmp_path}"):
        DenseTeacher(tmp_path, CPU)
