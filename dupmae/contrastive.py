"""The losses of fine-tuning: functions of score matrices and of term weights.

Shapes: B queries, N documents of the batch, V terms of the batch. A score matrix is (B, N).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(scores_BN: Tensor, duplicates_BN: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of each query's own document among all of the batch.

    Args:
        scores_BN: a query's score of each document; column i is query i's own.
        duplicates_BN: True where another column is the query's own document again; such columns
            are left out, or the loss would push a text away from itself.
        temperature: scores are divided by it.
    """
    logits_BN = (scores_BN / temperature).masked_fill(duplicates_BN, -torch.inf)
    targets_B = torch.arange(len(scores_BN), device=scores_BN.device)
    return functional.cross_entropy(logits_BN, targets_B)


def distillation(student_BN: Tensor, teacher_BN: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher ‖ student), summed over documents and averaged over queries.

    Args:
        student_BN: a query's score of each document.
        teacher_BN: the same of the teacher, at least one of each query finite; entries at −inf
            take no part, neither of the teacher nor of the student. No gradient reaches it.
        temperature: both are divided by it.
    """
    absent_BN = torch.isinf(teacher_BN)
    log_teacher_BN = torch.log_softmax(teacher_BN.detach() / temperature, dim=-1)
    log_student_BN = torch.log_softmax(
        (student_BN / temperature).masked_fill(absent_BN, -torch.inf), dim=-1
    )
    # −inf − −inf is no number; filled before the product, neither it nor its gradient gets out.
    gap_BN = (log_teacher_BN - log_student_BN).masked_fill(absent_BN, 0.0)
    return (log_teacher_BN.exp() * gap_BN).sum(dim=-1).mean()


def margin_mse(student_BN: Tensor, teacher_BN: Tensor) -> Tensor:
    """Return the mean squared error of margins over the first column, the relevant document.

    Pairs of which the teacher holds either score at −inf take no part.
    Source: Hofstätter et al. (2020), arXiv 2010.02666.
    """
    present_BN = torch.isfinite(teacher_BN[:, 1:]) & torch.isfinite(teacher_BN[:, :1])
    student_margin_BN = student_BN[:, :1] - student_BN[:, 1:]
    teacher_margin_BN = (teacher_BN[:, :1] - teacher_BN[:, 1:]).detach()
    gap_BN = (student_margin_BN - teacher_margin_BN).masked_fill(~present_BN, 0.0)
    return gap_BN.square().sum() / present_BN.sum().clamp(min=1)


def flops(weights_BV: Tensor, threshold: int) -> Tensor:
    """Return Σ_j (mean_b w_bj)², the expected products of two texts' term weights.

    Args:
        weights_BV: term weights ≥ 0.
        threshold: texts with at most this many active terms are not charged (an ℓ0 threshold), so
            that short texts need not get shorter.

    Source: Paria et al. (ICLR 2020), arXiv 2004.05665; the threshold is the ℓ0 mask of Shen et al.,
    arXiv 2504.14839.
    """
    charged_B1 = (weights_BV > 0).sum(dim=-1, keepdim=True) > threshold
    return (weights_BV * charged_B1).mean(dim=0).square().sum()


def quadratic_ramp(step: int, ramp_steps: float) -> float:
    """Return a regulariser's factor: (step / ramp_steps)², at most 1 (SPLADE's schedule)."""
    return 1.0 if ramp_steps <= 0 else min(1.0, step / ramp_steps) ** 2


def alignment(dense_BP: Tensor, teacher_BP: Tensor) -> Tensor:
    """Return the mean of 1 − cosine between the model's vectors and a teacher's of equal size."""
    return (1 - functional.cosine_similarity(dense_BP, teacher_BP.detach(), dim=-1)).mean()


def find_duplicates(texts: Sequence[str], queries: int) -> Tensor:
    """Return (B, N) bool: columns other than i that repeat the text of query i's own column i."""
    groups: dict[str, int] = {}
    group_N = torch.tensor([groups.setdefault(text, len(groups)) for text in texts])
    same_BN = group_N[:queries].unsqueeze(1) == group_N.unsqueeze(0)
    return same_BN & ~torch.eye(queries, len(texts), dtype=torch.bool)
