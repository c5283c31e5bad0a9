"""Each loss equals a slow loop over its definition in float64, and no gradient is ever NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dupmae.contrastive import (
    alignment,
    contrastive,
    distillation,
    find_duplicates,
    flops,
    margin_mse,
    quadratic_ramp,
)

INF = math.inf
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def scores(rows: int, columns: int, seed: int = 0) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, columns, generator=chance, dtype=torch.float64)
    return drawn.requires_grad_()


def test_contrastive_is_the_mean_negative_log_share_of_the_own_document() -> None:
    # exp(s / 0.5) of the two rows: (4, 1, 3) and (1, 2, 1); the own columns are 0 and 1.
    shares = torch.tensor([[4.0, 1.0, 3.0], [1.0, 2.0, 1.0]], dtype=torch.float64)
    loss = contrastive(0.5 * shares.log(), torch.zeros(2, 3, dtype=torch.bool), temperature=0.5)
    assert loss.item() == pytest.approx(-(math.log(4 / 8) + math.log(2 / 4)) / 2, rel=1e-12)


def test_contrastive_leaves_duplicates_of_the_own_document_out() -> None:
    shares = torch.tensor([[4.0, 1.0, 3.0], [1.0, 2.0, 1.0]], dtype=torch.float64)
    logits = shares.log().requires_grad_()
    duplicates = torch.tensor([[False, False, True], [False, False, False]])
    loss = contrastive(logits, duplicates, temperature=1.0)
    assert loss.item() == pytest.approx(-(math.log(4 / 5) + math.log(2 / 4)) / 2, rel=1e-12)
    loss.backward()
    # Cross-entropy's gradient is (share − target) / B: row 1 is 4/5 − 1, 1/5, left out.
    expected = torch.tensor([[-1 / 5, 1 / 5, 0], [1 / 4, -1 / 2, 1 / 4]], dtype=torch.float64) / 2
    torch.testing.assert_close(logits.grad, expected)


def test_a_query_whose_other_documents_are_all_duplicates_costs_nothing() -> None:
    logits = scores(1, 3)
    loss = contrastive(logits, torch.tensor([[False, True, True]]), temperature=0.05)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(1, 3, dtype=torch.float64))


def slow_distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(student)):
        present = [n for n in range(student.shape[1]) if teacher[row, n] > -INF]
        student_mass = sum(torch.exp(student[row, n] / temperature) for n in present)
        teacher_mass = sum(math.exp(teacher[row, n] / temperature) for n in present)
        for n in present:
            q = math.exp(teacher[row, n] / temperature) / teacher_mass
            p = torch.exp(student[row, n] / temperature) / student_mass
            total = total + q * (math.log(q) - torch.log(p))
    return total / len(student)


@pytest.mark.parametrize("absent", [[], [(0, 3)], [(0, 0), (1, 1), (1, 3), (2, 0), (2, 1), (2, 2)]])
def test_distillation_equals_a_loop_over_what_the_teacher_scored(
    absent: list[tuple[int, int]],
) -> None:
    student, again = scores(3, 4, seed=1), scores(3, 4, seed=1)
    teacher = scores(3, 4, seed=2).detach()
    for row, column in absent:
        teacher[row, column] = -INF
    loss, slow = distillation(student, teacher, 0.7), slow_distillation(again, teacher, 0.7)
    torch.testing.assert_close(loss, slow, **TOLERANCE)
    loss.backward()
    slow.backward()
    torch.testing.assert_close(student.grad, again.grad, **TOLERANCE)


def test_distillation_from_itself_is_zero_and_leaves_the_teacher_alone() -> None:
    student, teacher = scores(2, 3), scores(2, 3)
    loss = distillation(student, teacher, 0.05)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), **TOLERANCE)
    assert teacher.grad is None


@given(st.integers(0, 1000), st.floats(1e-3, 10), st.floats(0.1, 1000))
def test_no_pattern_of_absent_scores_makes_a_gradient_nan(
    seed: int, temperature: float, scale: float
) -> None:
    chance = torch.Generator().manual_seed(seed)
    student = (scale * torch.randn(4, 5, generator=chance)).requires_grad_()
    teacher = scale * torch.randn(4, 5, generator=chance)
    absent = torch.rand(4, 5, generator=chance) < 0.6
    absent[:, 0] = False
    teacher = teacher.masked_fill(absent, -INF)
    for loss in (distillation(student, teacher, temperature), margin_mse(student, teacher)):
        student.grad = None
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(student.grad).all()
        assert (student.grad[absent] == 0).all()


def test_margin_mse_is_the_mean_squared_gap_of_margins_that_the_teacher_knows() -> None:
    student = torch.tensor([[5.0, 3.0, 1.0], [2.0, 4.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[9.0, 6.0, 8.0], [1.0, 0.0, -INF]], dtype=torch.float64)
    # Margins: student 2, 4 and −2; teacher 3, 1 and 1; the last pair is unknown.
    expected = ((2 - 3) ** 2 + (4 - 1) ** 2 + (-2 - 1) ** 2) / 3
    assert margin_mse(student, teacher).item() == expected


def test_margin_mse_needs_the_own_documents_score() -> None:
    student = torch.tensor([[5.0, 3.0], [5.0, 3.0]], dtype=torch.float64)
    teacher = torch.tensor([[-INF, 6.0], [1.0, 0.0]], dtype=torch.float64)
    assert margin_mse(student, teacher).item() == 1.0


def test_margin_mse_without_any_pair_is_zero() -> None:
    assert margin_mse(torch.ones(2, 1), torch.ones(2, 1)).item() == 0


def test_flops_is_the_sum_of_squared_mean_weights() -> None:
    weights = torch.tensor([[1.0, 0.0, 3.0], [1.0, 2.0, 0.0]], dtype=torch.float64)
    assert flops(weights, threshold=0).item() == (2 / 2) ** 2 + (2 / 2) ** 2 + (3 / 2) ** 2


def test_flops_does_not_charge_texts_up_to_the_threshold() -> None:
    weights = torch.tensor([[1.0, 0.0, 3.0], [1.0, 2.0, 4.0]], dtype=torch.float64)
    weights.requires_grad_()
    # Two terms are not charged, three are; the mean is still over both texts.
    loss = flops(weights, threshold=2)
    assert loss.item() == (1 / 2) ** 2 + (2 / 2) ** 2 + (4 / 2) ** 2
    loss.backward()
    assert weights.grad[0].tolist() == [0, 0, 0]
    assert weights.grad[1].tolist() == [0.5, 1.0, 2.0]
    assert flops(weights, threshold=3).item() == 0


def test_the_ramp_rises_quadratically_to_one() -> None:
    assert [quadratic_ramp(step, 4) for step in range(6)] == [0, 1 / 16, 1 / 4, 9 / 16, 1, 1]
    assert quadratic_ramp(0, 0) == 1


def test_alignment_is_one_minus_the_mean_cosine() -> None:
    dense = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [0.0, -5.0]], dtype=torch.float64)
    assert alignment(dense, teacher).item() == pytest.approx(1 - (3 / 5 - 1) / 2, rel=1e-12)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.data())
def test_duplicates_are_the_other_columns_of_an_equal_text(
    texts: list[str], data: st.DataObject
) -> None:
    queries = data.draw(st.integers(1, len(texts)))
    assert find_duplicates(texts, queries).tolist() == [
        [column != row and texts[column] == texts[row] for column in range(len(texts))]
        for row in range(queries)
    ]
