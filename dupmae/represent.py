"""Texts → the body's states → (dense, sparse) tensors with gradients, over a batch's vocabulary.

Training computes term weights only for the ids that occur in the batch (and a random sample of
others): a score needs no more. Inference over the whole vocabulary is `encoder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dupmae.model import DupMAE, activate, term_factors
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

    def count(self, input_ids_BL: Tensor) -> Tensor:
        """Return (B, V) float32: how often each term occurs in each text."""
        # A last entry that no id equals: ids beyond every term are looked up there.
        terms = torch.cat([self.terms, self.terms.new_full((1,), -1)])
        columns_BL = torch.searchsorted(self.terms, input_ids_BL)
        absent_BL = terms[columns_BL] != input_ids_BL
        columns_BL = columns_BL.masked_fill(absent_BL, len(self.terms))
        counts_BV = torch.zeros(len(input_ids_BL), len(terms), device=terms.device)
        ones_BL = torch.ones_like(columns_BL, dtype=counts_BV.dtype)
        return counts_BV.scatter_add_(1, columns_BL, ones_BL)[:, :-1]


class States(NamedTuple):
    """A padded batch of n texts after the body."""

    input_ids_BL: Tensor
    mask_BL: Tensor
    hidden_BLD: Tensor

    def texts(self) -> list[Tensor]:
        """Return each text's states (its length, D), [CLS] and [SEP] included."""
        lengths = self.mask_BL.sum(dim=1).tolist()
        return [hidden[:length] for hidden, length in zip(self.hidden_BLD, lengths, strict=True)]


def read(model: DupMAE, tokens: Tokens, ids: Sequence[Sequence[int]]) -> States:
    """Run the body over at least one text, given as ids with [CLS] and [SEP]."""
    input_ids_BL, mask_BL = tokens.batch(ids)
    return States(input_ids_BL, mask_BL, model.hidden_states(input_ids_BL, mask_BL))


def represent(
    model: DupMAE, tokens: Tokens, states: States, vocabulary: Vocabulary, *, as_query: bool
) -> Representation:
    """Run the heads over texts that the body has read.

    Terms that a text does not contain are weighted by the model's `expansion`, a query's limited to
    `k_expansion` of them. No other top-k cut is made: regularisation, not the cut, must make
    training's vectors sparse. A text of no ordinary tokens has no terms.
    """
    input_ids_BL, mask_BL, hidden_BLD = states
    cls_BD = model.cls_state(hidden_BLD, mask_BL)
    voting_BL = tokens.ordinary(input_ids_BL)
    logits_BV = model.max_pool(hidden_BLD, voting_BL, vocabulary.terms)
    weights_BV = activate(logits_BV, model.heads.activation)
    weights_BV = weights_BV.masked_fill(~voting_BL.any(dim=1, keepdim=True), 0.0)
    counts_BV = vocabulary.count(input_ids_BL)
    if model.heads.expands(as_query=as_query):
        near_BV = model.may_expand(input_ids_BL, voting_BL, vocabulary.terms)
        weights_BV = weights_BV.masked_fill((counts_BV == 0) & ~near_BV, 0.0)
    if as_query:
        weights_BV = model.weigh_query(weights_BV, counts_BV, cls_BD, vocabulary.terms)
    else:
        lengths_B1 = voting_BL.sum(dim=1, keepdim=True)
        weights_BV = weights_BV * term_factors(counts_BV, lengths_B1, model.heads)
    return Representation(model.dense(cls_BD).float(), weights_BV.float())


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
