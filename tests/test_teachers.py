"""Teachers: BM25 equals its textbook loop; cosines do not depend on the batch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import WORDS, tiny_model, tiny_tokenizer

from dupmae.checkpoint import save_model
from dupmae.errors import CheckpointError
from dupmae.teachers import DenseTeacher, LexicalTeacher

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
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=16)["input_ids"]])
        with torch.no_grad():
            mean = model.hidden_states(ids, torch.ones_like(ids))[0].mean(dim=0)
        torch.testing.assert_close(vector, mean / mean.norm(), rtol=1e-5, atol=1e-6)


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
