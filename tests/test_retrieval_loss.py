"""Each term of the loss is its definition times its weight, on the scores it is meant for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dupmae.batch import Batch, Texts
from dupmae.errors import UsageError
from dupmae.heads import HeadSettings
from dupmae.represent import Representation, Vocabulary
from dupmae.retrieval_loss import LossSettings, RetrievalLoss, TeacherStates
from dupmae.teachers import LateTeacher, LexicalTeacher, mean_vectors
from dupmae.trainer import Part

OFF = LossSettings(contrastive=0.0, temperature=0.5, lexical_scale=0.3)
HEADS = HeadSettings(dense_dim=3, dense_weight=0.7, sparse_weight=2.0)
CHANCE = torch.Generator().manual_seed(4)
QUERIES = Representation(torch.randn(2, 3, generator=CHANCE), torch.rand(2, 5, generator=CHANCE))
DOCUMENTS = Representation(torch.randn(4, 3, generator=CHANCE), torch.rand(4, 5, generator=CHANCE))
DENSE = QUERIES.dense @ DOCUMENTS.dense.T
SPARSE = QUERIES.sparse @ DOCUMENTS.sparse.T
SUM = 0.7 * DENSE + 2.0 * SPARSE
ABSENT = -torch.inf
LEXICAL = LexicalTeacher.fit([[5, 6], [6, 7, 7], [8]], 20)
LATE = LateTeacher(torch.randn(3, generator=CHANCE), LEXICAL.idf)
STATES = TeacherStates(
    [torch.randn(length, 3, generator=CHANCE) for length in (3, 4)],
    [torch.randn(length, 3, generator=CHANCE) for length in (4, 3, 2, 4)],
)
"""Of the texts of `batch`, whose lengths these are."""


class FakeTeacher:
    """Gives each text the vector that its words name: "1 0 2"."""

    def encode(self, texts: list[str], max_length: int) -> Tensor:
        return functional.normalize(
            torch.tensor([[float(w) for w in t.split()] for t in texts]), dim=-1
        )


def batch(**changes: Any) -> Batch:
    return replace(
        Batch(
            Texts(["1 0 0", "0 1 1"], [[2, 6, 3], [2, 7, 8, 3]]),
            Texts(
                ["1 0 1", "0 0 1", "1 1 1", "0 2 1"],
                [[2, 5, 6, 3], [2, 7, 3], [2, 3], [2, 8, 8, 3]],
            ),
            torch.tensor([[False, False, False, True], [False] * 4]),
            torch.tensor([[0, 2], [1, 3]]),
            torch.tensor([[3.0, 1.0], [2.0, 2.5]]),
            Vocabulary(torch.arange(5, 10)),
        ),
        **changes,
    )


def loss(*, frozen: bool = False, **weights: float) -> RetrievalLoss:
    """Return a loss whose teacher is a model of its own or, if frozen, the body itself."""
    settings = replace(OFF, **weights)
    teacher: Any = None if frozen else FakeTeacher()
    late = LATE if settings.late_scale else None
    return RetrievalLoss(settings, HEADS, LEXICAL, teacher, late, steps=100)


def terms(
    step: int = 0, rows: Batch | None = None, *, frozen: bool = False, **weights: float
) -> dict[str, float]:
    made = loss(frozen=frozen, **weights)
    part = Part(step, 0, 1, 0, 1, torch.Generator(), nullcontext)
    states = STATES if made.needs_states else None
    values = made(QUERIES, DOCUMENTS, rows or batch(), part, states)
    return {name: float(value) for name, value in values.items()}


def kl(student: Tensor, teacher: Tensor) -> float:
    """Return KL(teacher ‖ student) at temperature 0.5, averaged over rows, by torch's own."""
    divergence = functional.kl_div(
        (student / 0.5).log_softmax(-1), (teacher / 0.5).softmax(-1), reduction="batchmean"
    )
    return float(divergence)


def cross_entropy(scores: Tensor) -> float:
    without = torch.cat([scores[:1, :3], torch.tensor([[ABSENT]])], dim=1)
    return float(functional.cross_entropy(torch.cat([without, scores[1:]]) / 0.5, torch.arange(2)))


def cosine() -> Tensor:
    vectors = FakeTeacher().encode([*batch().queries.texts, *batch().documents.texts], 9)
    return vectors[:2] @ vectors[2:].T


def plain_ids() -> list[list[Tensor]]:
    sides = batch().queries, batch().documents
    return [[torch.tensor(ids[1:-1]).long() for ids in side.ids] for side in sides]


def bm25() -> Tensor:
    return LEXICAL.score(*plain_ids())


def own_cosine() -> Tensor:
    return mean_vectors(STATES.queries) @ mean_vectors(STATES.documents).T


def late() -> Tensor:
    return LATE.score(plain_ids()[0], *STATES)


@pytest.mark.parametrize(
    ("weights", "name", "expected"),
    [
        ({"contrastive": 2.0}, "contrastive_sum", 2 * cross_entropy(SUM)),
        ({"contrastive_parts": 3.0}, "contrastive_dense", 3 * cross_entropy(DENSE)),
        ({"contrastive_parts": 3.0}, "contrastive_sparse", 3 * cross_entropy(SPARSE)),
        ({"self_distillation": 2.0}, "self_distillation", 2 * (kl(DENSE, SUM) + kl(SPARSE, SUM))),
        ({"teacher_dense": 2.0}, "teacher_dense", 2 * kl(DENSE, cosine())),
        ({"teacher_sparse": 2.0}, "teacher_sparse", 2 * kl(SPARSE, 0.3 * bm25())),
        ({"teacher_sum": 2.0}, "teacher_sum", 2 * kl(SUM, cosine() + 0.3 * bm25())),
    ],
)
def test_a_term_is_its_definition_on_its_scores(
    weights: dict[str, float], name: str, expected: float
) -> None:
    assert terms(**weights)[name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "name", "expected"),
    [
        ({"teacher_dense": 2.0}, "teacher_dense", 2 * kl(DENSE, own_cosine())),
        ({"teacher_sum": 2.0}, "teacher_sum", 2 * kl(SUM, own_cosine() + 0.3 * bm25())),
        (
            {"teacher_sum": 2.0, "late_scale": 0.7},
            "teacher_sum",
            2 * kl(SUM, own_cosine() + 0.3 * bm25() + 0.7 * late()),
        ),
    ],
)
def test_a_frozen_body_is_its_own_teacher(
    weights: dict[str, float], name: str, expected: float
) -> None:
    assert terms(frozen=True, **weights)[name] == pytest.approx(expected, rel=1e-5)


def test_late_interaction_stands_beside_another_teacher() -> None:
    expected = kl(SUM, cosine() + 0.3 * bm25() + 0.7 * late())
    found = terms(teacher_sum=1.0, late_scale=0.7)
    assert found["teacher_sum"] == pytest.approx(expected, rel=1e-5)


def test_alignment_with_a_frozen_body_is_with_the_means_of_its_states() -> None:
    dense = torch.cat([QUERIES.dense, DOCUMENTS.dense])
    means = mean_vectors([*STATES.queries, *STATES.documents])
    expected = 5 * float(1 - functional.cosine_similarity(dense, means).mean())
    assert terms(frozen=True, alignment=5.0)["alignment"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("frozen", "weights", "needed"),
    [
        (True, {"contrastive": 1.0, "teacher_sparse": 1.0}, False),
        (True, {"teacher_dense": 1.0}, True),
        (True, {"alignment": 1.0}, True),
        (False, {"teacher_sum": 1.0, "alignment": 1.0}, False),
        (False, {"teacher_sum": 1.0, "late_scale": 0.3}, True),
    ],
)
def test_states_are_asked_for_only_where_a_teacher_is_made_of_them(
    frozen: bool, weights: dict[str, float], needed: bool
) -> None:
    assert loss(frozen=frozen, **weights).needs_states == needed


def test_given_scores_are_compared_with_the_sum_at_their_columns() -> None:
    student = torch.stack([SUM[0, [0, 2]], SUM[1, [1, 3]]])
    given = batch().given_scores_BG
    assert terms(given_kl=2.0)["given_kl"] == pytest.approx(2 * kl(student, given), rel=1e-5)
    margins = student[:, 0] - student[:, 1] - torch.tensor([2.0, -0.5])
    expected = 3 * float(margins.square().mean())
    assert terms(given_margin_mse=3.0)["given_margin_mse"] == pytest.approx(expected, rel=1e-5)


def test_rows_without_two_given_scores_take_no_part() -> None:
    rows = batch(
        given_columns_BG=torch.tensor([[0, -1], [1, 3]]),
        given_scores_BG=torch.tensor([[3.0, ABSENT], [2.0, 2.5]]),
    )
    expected = kl(SUM[1:, [1, 3]], torch.tensor([[2.0, 2.5]]))
    assert terms(rows=rows, given_kl=1.0)["given_kl"] == pytest.approx(expected, rel=1e-5)
    none = batch(given_scores_BG=torch.full((2, 2), ABSENT))
    assert terms(rows=none, given_kl=1.0)["loss"] == 0


def test_alignment_is_over_queries_and_documents_alike() -> None:
    vectors = FakeTeacher().encode([*batch().queries.texts, *batch().documents.texts], 9)
    dense = torch.cat([QUERIES.dense, DOCUMENTS.dense])
    expected = 5 * float(1 - functional.cosine_similarity(dense, vectors).mean())
    assert terms(alignment=5.0)["alignment"] == pytest.approx(expected, rel=1e-5)


def test_regularisers_rise_quadratically_over_their_share_of_the_run() -> None:
    full = {
        "flops_query": 2 * float(QUERIES.sparse.mean(0).square().sum()),
        "flops_document": 3 * float(DOCUMENTS.sparse.mean(0).square().sum()),
    }
    for step, factor in ((0, 0), (10, 1 / 4), (20, 1), (90, 1)):
        found = terms(step, contrastive=1.0, flops_query=2.0, flops_document=3.0, flops_ramp=0.2)
        for name, value in full.items():
            assert found[name] == pytest.approx(factor * value, rel=1e-5)


def test_short_texts_are_not_charged() -> None:
    found = terms(contrastive=1.0, flops_document=3.0, flops_ramp=0.0, flops_threshold=5)
    assert found["flops_document"] == 0
    assert found["active_terms"] == 5


def test_the_loss_is_the_sum_of_the_terms_that_are_on() -> None:
    found = terms(20, contrastive=1.0, self_distillation=0.1, alignment=0.2, flops_query=0.3)
    assert set(found) == {
        "loss", "contrastive_sum", "self_distillation", "alignment", "flops_query", "active_terms",
    }  # fmt: skip
    parts = sum(value for name, value in found.items() if name not in ("loss", "active_terms"))
    assert found["loss"] == pytest.approx(parts, rel=1e-6)


@pytest.mark.parametrize("name", ["contrastive", "given_kl", "flops_query", "flops_ramp"])
def test_a_weight_below_zero_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=rf"loss\.{name} must not be negative, found -1"):
        LossSettings(**{name: -1.0})


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match=r"loss\.temperature must be above 0"):
        LossSettings(temperature=0.0)
