"""The loss of fine-tuning: labels, teachers and regularisers, each with a weight.

Scores are those of the raw sum and of its two parts. Source of the self-distillation: BGE-M3
(Chen et al., arXiv 2402.03216, section 3.2), here with two heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from dupmae import contrastive as losses
from dupmae.batch import Batch, Texts, encode_shares
from dupmae.errors import UsageError
from dupmae.heads import HeadSettings
from dupmae.represent import Representation
from dupmae.teachers import DenseTeacher, LateTeacher, LexicalTeacher, mean_vectors
from dupmae.trainer import Part


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss terms, all 0 but the contrastive one, and what the terms need."""

    temperature: float = 0.05
    """Scores are divided by it in every softmax."""
    contrastive: float = 1.0
    """Cross-entropy of the own document on the sum."""
    contrastive_parts: float = 0.0
    """The same on the dense and on the sparse part alone."""
    given_kl: float = 0.0
    """KL to the rows' teacher scores, over the text and its negatives, on the sum."""
    given_margin_mse: float = 0.0
    """MarginMSE to the rows' teacher scores, on the sum."""
    teacher_sum: float = 0.0
    """KL to teacher cosine + lexical_scale · BM25 + late_scale · late interaction, on the sum."""
    teacher_dense: float = 0.0
    """KL to the teacher's cosine over the whole batch, on the dense part."""
    teacher_sparse: float = 0.0
    """KL to lexical_scale · BM25 over the whole batch, on the sparse part."""
    lexical_scale: float = 0.2
    """BM25's share in the teachers' scores, for a query's idf vector of length 1."""
    late_scale: float = 0.0
    """Late interaction's share in teacher_sum's scores; needs a frozen body."""
    alignment: float = 0.0
    """1 − cosine between dense vectors and the teacher's."""
    self_distillation: float = 0.0
    """KL of the summed score to each part."""
    flops_query: float = 0.0
    """FLOPS regulariser on query weights."""
    flops_document: float = 0.0
    """FLOPS regulariser on document weights."""
    flops_threshold: int = 0
    """Texts with at most this many active terms are not charged (ℓ0)."""
    flops_ramp: float = 0.33
    """Share of the steps over which the regulariser rises quadratically."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise UsageError(
                    f"loss.{field.name} must not be negative, found {getattr(self, field.name)}"
                )
        if self.temperature == 0:
            raise UsageError("loss.temperature must be above 0, found 0.0")

    @property
    def needs_cosine(self) -> bool:
        """Whether a dense teacher is used."""
        return bool(self.alignment or self.teacher_sum or self.teacher_dense)

    @property
    def has_terms(self) -> bool:
        """Whether any term but the regularisers is on."""
        labels = self.contrastive or self.contrastive_parts or self.self_distillation
        return bool(labels or self.needs_cosine or self.teacher_sparse or self.needs_given_scores)

    @property
    def needs_given_scores(self) -> bool:
        """Whether the rows' own teacher scores are used."""
        return bool(self.given_kl or self.given_margin_mse)


class TeacherStates(NamedTuple):
    """A frozen body's states of every text of a batch, each (its length, D)."""

    queries: list[Tensor]
    documents: list[Tensor]


@dataclass(frozen=True)
class RetrievalLoss:
    """The weighted sum of all terms of `LossSettings`."""

    settings: LossSettings
    heads: HeadSettings
    lexical: LexicalTeacher
    teacher: DenseTeacher | None
    """None: the frozen body's own states are the teacher."""
    late: LateTeacher | None
    steps: int
    """Steps of the whole run, for the regulariser's ramp."""

    @property
    def needs_states(self) -> bool:
        """Whether a teacher is made of the frozen body's states."""
        own_cosine = self.teacher is None and self.settings.needs_cosine
        return own_cosine or self.late is not None

    def __call__(
        self,
        queries: Representation,
        documents: Representation,
        batch: Batch,
        part: Part,
        states: TeacherStates | None,
    ) -> dict[str, Tensor]:
        """Return "loss", its terms with their weights applied, and a document's active terms.

        Args:
            queries: of the whole batch, B.
            documents: of the whole batch, N.
            batch: their texts, and which belong together.
            part: the step, and this process's place.
            states: the frozen body's; None if the body is in training.
        """
        dense_BN = queries.dense @ documents.dense.T
        sparse_BN = queries.sparse @ documents.sparse.T
        sum_BN = self.heads.dense_weight * dense_BN + self.heads.sparse_weight * sparse_BN
        scores = {"dense": dense_BN, "sparse": sparse_BN, "sum": sum_BN}
        terms = {
            **self._labels(scores, batch),
            **self._given_scores(sum_BN, batch),
            **self._teachers(scores, queries, documents, batch, part, states),
            **self._regularisers(queries, documents, part),
        }
        # Without any term (given scores alone, and no row has some) the gradient is 0, not absent.
        total = torch.stack(list(terms.values()) or [0.0 * sum_BN.sum()]).sum()
        active = (documents.sparse.detach() > 0).float().sum(dim=1).mean()
        return {"loss": total, **terms, "active_terms": active}

    def _labels(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        weights = {
            "sum": s.contrastive,
            "dense": s.contrastive_parts,
            "sparse": s.contrastive_parts,
        }
        terms = {
            f"contrastive_{name}": weight
            * losses.contrastive(scores[name], batch.duplicates_BN, s.temperature)
            for name, weight in weights.items()
            if weight
        }
        if s.self_distillation:
            terms["self_distillation"] = s.self_distillation * (
                losses.distillation(scores["dense"], scores["sum"], s.temperature)
                + losses.distillation(scores["sparse"], scores["sum"], s.temperature)
            )
        return terms

    def _given_scores(self, sum_BN: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Learn from the rows' own teacher scores, where a row has at least two."""
        s = self.settings
        known_B = torch.isfinite(batch.given_scores_BG).sum(dim=1) > 1
        if not (s.needs_given_scores and known_B.any()):
            return {}
        student_BG = sum_BN.gather(1, batch.given_columns_BG.clamp(min=0))[known_B]
        teacher_BG = batch.given_scores_BG[known_B]
        terms: dict[str, Tensor] = {}
        if s.given_kl:
            kl = losses.distillation(student_BG, teacher_BG, s.temperature)
            terms["given_kl"] = s.given_kl * kl
        if s.given_margin_mse:
            mse = losses.margin_mse(student_BG, teacher_BG)
            terms["given_margin_mse"] = s.given_margin_mse * mse
        return terms

    def _teachers(
        self,
        scores: dict[str, Tensor],
        queries: Representation,
        documents: Representation,
        batch: Batch,
        part: Part,
        states: TeacherStates | None,
    ) -> dict[str, Tensor]:
        s = self.settings
        targets: dict[str, Tensor] = {}
        terms: dict[str, Tensor] = {}
        if s.teacher_sparse or s.teacher_sum:
            targets["sparse"] = s.lexical_scale * self.lexical.score(
                _plain_ids(batch.queries), _plain_ids(batch.documents)
            ).to(queries.dense.device)
        if s.needs_cosine:
            query_BP, document_NP = self._cosine_vectors(batch, part, states)
            targets["dense"] = query_BP @ document_NP.T
            if s.alignment:
                terms["alignment"] = s.alignment * losses.alignment(
                    torch.cat([queries.dense, documents.dense]),
                    torch.cat([query_BP, document_NP]),
                )
        if s.teacher_sum:
            targets["sum"] = targets["dense"] + targets["sparse"] + self._late(batch, states)
        weights = {"sum": s.teacher_sum, "dense": s.teacher_dense, "sparse": s.teacher_sparse}
        for name, weight in weights.items():
            if weight:
                terms[f"teacher_{name}"] = weight * losses.distillation(
                    scores[name], targets[name], s.temperature
                )
        return terms

    def _late(self, batch: Batch, states: TeacherStates | None) -> Tensor | float:
        """Return late interaction's share of the teacher's sum."""
        if self.late is None:
            return 0.0
        assert states is not None
        return self.settings.late_scale * self.late.score(_plain_ids(batch.queries), *states)

    def _cosine_vectors(
        self, batch: Batch, part: Part, states: TeacherStates | None
    ) -> tuple[Tensor, Tensor]:
        """Return the dense teacher's unit vectors of queries and of documents."""
        if self.teacher is None:
            assert states is not None
            return mean_vectors(states.queries), mean_vectors(states.documents)
        return self._teach(batch.queries, part), self._teach(batch.documents, part)

    def _teach(self, side: Texts, part: Part) -> Tensor:
        teacher = self.teacher
        assert teacher is not None
        longest = max(map(len, side.ids))
        return encode_shares(
            lambda mine: teacher.encode([side.texts[i] for i in mine], longest), len(side), part
        )

    def _regularisers(
        self, queries: Representation, documents: Representation, part: Part
    ) -> dict[str, Tensor]:
        s = self.settings
        ramp = losses.quadratic_ramp(part.step, s.flops_ramp * self.steps)
        sides = {"query": (s.flops_query, queries), "document": (s.flops_document, documents)}
        return {
            f"flops_{name}": weight * ramp * losses.flops(side.sparse, s.flops_threshold)
            for name, (weight, side) in sides.items()
            if weight
        }


def _plain_ids(side: Texts) -> list[Tensor]:
    """Return each text's ids without [CLS] and [SEP]."""
    return [torch.tensor(ids[1:-1], dtype=torch.long) for ids in side.ids]
