"""The losses of pre-training: masked language model, [CLS] decoding, bag of words.

Shapes: B texts, L tokens, D hidden, V vocabulary, T the part of it that a softmax runs over,
N chosen tokens of all texts in one row.

L = L_mlm + L_cls + w · L_bag. Two variants, as the authors' paper and code differ:

                     code                                   paper
    voters of μ      all but [CLS]: [SEP], guessed tokens   neither special nor guessed tokens
    logits of μ      the MLM head                           a D × V matrix of their own
    bag of words     sum over the set of ids, ÷ length      sum over the set of ids
    w                0.1                                    1
    cross-entropies  mean over the batch's tokens           sum over a text, mean over texts
    decoder queries  LN(h + p_i + type_0), dropout          h + p_i

Source: Liu et al., RetroMAE-2 (ACL 2023), equations 2 to 9, and the authors' public code. Of the
encoder's own loss the paper does not say how it is summed; here it follows the other two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from dupmae.decoder import EnhancedDecoder, Variant
from dupmae.errors import UsageError
from dupmae.masking import MaskedBatch
from dupmae.model import NEVER, DupMAE

Decoding = Literal["enhanced", "bow", "none"]


@dataclass(frozen=True)
class ObjectiveSettings:
    """Which losses there are, and in whose words."""

    variant: Variant = "code"
    """Follow the authors' code or their paper where they differ."""
    decoder: Decoding = "enhanced"
    """How [CLS] is decoded: "enhanced" (DupMAE, RetroMAE), "bow" (its logits predict the bag of
    words, no decoder: Drop-your-Decoder, arXiv 2401.11248), or "none" (ordinary tokens only)."""
    bow_weight: float | None = None
    """Weight of the ordinary tokens' bag-of-words loss; 0 leaves it out, which is RetroMAE. By
    default 0.1 (code) or 1 (paper)."""
    vocabulary_sample: int = 0
    """0: softmax over the whole vocabulary. n > 0: over the ids of the batch and n random ones,
    an approximation for short budgets on a CPU; it is biased towards the batch's ids."""

    def __post_init__(self) -> None:
        for name, kind in (("variant", Variant), ("decoder", Decoding)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise UsageError(
                    f"objective.{name} must be one of {known}, found {getattr(self, name)!r}"
                )
        for name in ("bow_weight", "vocabulary_sample"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"objective.{name} must not be negative")

    @property
    def weight(self) -> float:
        """The bag-of-words loss's weight."""
        if self.bow_weight is not None:
            return self.bow_weight
        return 0.1 if self.variant == "code" else 1.0


class PretrainingObjective(nn.Module):
    """A model with what pre-training adds to it; called, it returns the losses of a batch."""

    def __init__(self, model: DupMAE, settings: ObjectiveSettings) -> None:
        super().__init__()
        config = model.lm.config
        self.settings = settings
        self.model = model
        self.decoder: EnhancedDecoder | None = None
        if settings.decoder == "enhanced":
            self.decoder = EnhancedDecoder(config, settings.variant)
        self.term_projection: nn.Linear | None = None
        if settings.variant == "paper" and settings.weight:
            self.term_projection = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            nn.init.normal_(self.term_projection.weight, std=config.initializer_range)

    def forward(
        self, batch: MaskedBatch, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return "loss", their weighted sum, and its parts: "mlm", "cls" and "bag".

        Args:
            batch: with `visible_BLL` if the decoder is the enhanced one.
            generator: draws the vocabulary sample; on the CPU.
        """
        terms_T = self._sample_terms(batch.original_ids_BL, generator)
        targets_BL = batch.original_ids_BL
        if terms_T is not None:
            targets_BL = torch.searchsorted(terms_T, targets_BL)
        states_BLD = self.model.hidden_states(batch.input_ids_BL, batch.attention_mask_BL)
        mlm, bag = self._encoder_losses(states_BLD, batch, targets_BL, terms_T)
        losses = {"mlm": mlm}
        if self.settings.decoder != "none":
            cls_BD = self.model.cls_state(states_BLD, batch.attention_mask_BL)
            losses["cls"] = self._cls_loss(cls_BD, batch, targets_BL, terms_T)
        total = sum(losses.values(), torch.zeros((), device=mlm.device, dtype=mlm.dtype))
        if bag is not None:
            losses["bag"] = bag
            total = total + self.settings.weight * bag
        return {"loss": total, **losses}

    def _sample_terms(self, ids_BL: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Return the softmax's ids (T,), sorted and distinct; None for the whole vocabulary."""
        if not self.settings.vocabulary_sample:
            return None
        size = self.model.lm.config.vocab_size
        drawn = torch.randint(size, (self.settings.vocabulary_sample,), generator=generator)
        terms_T: Tensor = torch.cat([ids_BL.flatten(), drawn.to(ids_BL.device)]).unique()
        return terms_T

    def _logits(self, states: Tensor, terms_T: Tensor | None) -> Tensor:
        weight_TD, bias_T = self.model.vocabulary_head(terms_T)
        return functional.linear(self.model.transform(states), weight_TD, bias_T)

    def _encoder_losses(
        self, states_BLD: Tensor, batch: MaskedBatch, targets_BL: Tensor, terms_T: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the MLM loss and, if wanted, the bag-of-words loss of the ordinary tokens."""
        guessed_BL = batch.guessed_BL
        targets_N = targets_BL[guessed_BL]
        if not self.settings.weight:
            logits_NT = self._logits(states_BLD[guessed_BL], terms_T)
            return self._cross_entropy(logits_NT, targets_N, len(targets_BL)), None
        if self.term_projection is not None:
            logits_NT = self._logits(states_BLD[guessed_BL], terms_T)
            weight_VD = self.term_projection.weight
            weight_TD = weight_VD if terms_T is None else weight_VD[terms_T]
            logits_BLT = functional.linear(states_BLD, weight_TD)
            voting_BL = batch.ordinary_BL & ~guessed_BL
        else:
            logits_BLT = self._logits(states_BLD, terms_T)
            logits_NT = logits_BLT[guessed_BL]
            voting_BL = batch.attention_mask_BL > 0
            voting_BL[:, 0] = False
        pooled_BT = logits_BLT.masked_fill(~voting_BL.unsqueeze(-1), NEVER).amax(dim=1)
        mlm = self._cross_entropy(logits_NT, targets_N, len(targets_BL))
        return mlm, self._bag_loss(pooled_BT, batch, targets_BL)

    def _cls_loss(
        self, cls_BD: Tensor, batch: MaskedBatch, targets_BL: Tensor, terms_T: Tensor | None
    ) -> Tensor:
        """Return the loss of decoding [CLS]: all ordinary tokens one by one, or as a bag."""
        if self.decoder is None:
            return self._bag_loss(self._logits(cls_BD, terms_T), batch, targets_BL)
        assert batch.visible_BLL is not None
        states_BLD = self.decoder(
            cls_BD, batch.original_ids_BL, batch.visible_BLL, self.model.lm.bert.embeddings
        )
        logits_NT = self._logits(states_BLD[batch.ordinary_BL], terms_T)
        return self._cross_entropy(logits_NT, targets_BL[batch.ordinary_BL], len(targets_BL))

    def _cross_entropy(self, logits_NT: Tensor, targets_N: Tensor, texts: int) -> Tensor:
        total = functional.cross_entropy(_widen(logits_NT), targets_N, reduction="sum")
        # No token at all is possible: every word may be longer than the budget.
        return total / (max(1, len(targets_N)) if self.settings.variant == "code" else texts)

    def _bag_loss(self, logits_BT: Tensor, batch: MaskedBatch, targets_BL: Tensor) -> Tensor:
        """Return −Σ log softmax over the distinct ordinary ids of a text, mean over texts."""
        logits_BT = _widen(logits_BT)
        ordinary_BL = batch.ordinary_BL.to(logits_BT.dtype)
        present_BT = torch.zeros_like(logits_BT).scatter_reduce(
            1, targets_BL, ordinary_BL, reduce="amax"
        )
        loss_B = -(present_BT * logits_BT.log_softmax(dim=-1)).sum(dim=-1)
        if self.settings.variant == "code":
            loss_B = loss_B / ordinary_BL.sum(dim=-1).clamp(min=1)
        return loss_B.mean()


def _widen(logits: Tensor) -> Tensor:
    """Return half-precision logits in float32, others as they are."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
