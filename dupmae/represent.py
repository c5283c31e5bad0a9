"""Texts → (dense, sparse) tensors with gradients, over the vocabulary of a batch.

Training computes term weights only for the ids that occur in the batch (and a random sample of
others): a score needs no more. Inference over the whole vocabulary is `encoder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dupmae.model import DupMAE, activate
from dupmae.tokens import Tokens


class Representation(NamedTuple):
    """Vectors of n texts: `dense` (n, P) and `sparse` (n, V) over a batch's vocabulary."""

    dense: Tensor
    sparse: Tensor


@dataclass(frozen=True)
class Vocabulary:
    """The term ids that a batch is computed over."""

    terms: Tensor
    """(V,) sorted distinct ids, no specials."""

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        texts: Sequence[Sequence[int]],
        sample: int = 0,
        generator: torch.Generator | None = None,
    ) -> Vocabulary:
        """Collect the ordinary ids of texts, and `sample` random ones."""
        ids = torch.tensor([token for text in texts for token in text], dtype=torch.long)
        if sample:
            drawn = torch.randint(0, tokens.vocabulary_size, (sample,), generator=generator)
            ids = torch.cat([ids, drawn])
        ids = ids.unique().to(tokens.device)
        return cls(ids[tokens.ordinary(ids)])

    def contains(self, input_ids_BL: Tensor) -> Tensor:
        """Return (B, V) bool: which terms occur in which text."""
        # A last entry that no id equals: ids beyond every term are looked up there.
        terms = torch.cat([self.terms, self.terms.new_full((1,), -1)])
        columns_BL = torch.searchsorted(self.terms, input_ids_BL)
        absent_BL = terms[columns_BL] != input_ids_BL
        columns_BL = columns_BL.masked_fill(absent_BL, len(self.terms))
        present_BV = torch.zeros(
            len(input_ids_BL), len(terms), dtype=torch.bool, device=terms.device
        )
        return present_BV.scatter_(1, columns_BL, value=True)[:, :-1]


def represent(
    model: DupMAE,
    tokens: Tokens,
    ids: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    *,
    as_query: bool,
) -> Representation:
    """Encode at least one text, given as ids with [CLS] and [SEP].

    Terms that a text does not contain are weighted by the model's `expansion`. No top-k cut is
    made: regularisation, not the cut, must make training's vectors sparse. A text of no ordinary
    tokens has no terms.
    """
    input_ids_BL, mask_BL = tokens.batch(ids)
    hidden_BLD = model.hidden_states(input_ids_BL, mask_BL)
    voting_BL = tokens.ordinary(input_ids_BL)
    logits_BV = model.max_pool(hidden_BLD, voting_BL, vocabulary.terms)
    weights_BV = activate(logits_BV, model.heads.activation)
    weights_BV = weights_BV.masked_fill(~voting_BL.any(dim=1, keepdim=True), 0.0)
    if model.heads.expansion < 1:
        present_BV = vocabulary.contains(input_ids_BL)
        weights_BV = weights_BV * present_BV.to(weights_BV.dtype).clamp(min=model.heads.expansion)
    if as_query:
        weights_BV = model.weigh_query(weights_BV, hidden_BLD[:, 0], vocabulary.terms)
    return Representation(model.dense(hidden_BLD[:, 0]).float(), weights_BV.float())


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Split positions into chunks of at most `size` texts of like length, shortest first."""
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    return [order[start : start + size] for start in range(0, len(order), size)]


def stack(pieces: Sequence[Representation], positions: Sequence[Sequence[int]]) -> Representation:
    """Join the chunks of `by_length`, at least one, back in the order of the texts."""
    order = torch.tensor([position for chunk in positions for position in chunk])
    place = order.argsort().to(pieces[0].dense.device)
    return Representation(
        torch.cat([piece.dense for piece in pieces])[place],
        torch.cat([piece.sparse for piece in pieces])[place],
    )
