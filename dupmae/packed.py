"""A BERT body without padding: texts of any lengths below one another, T tokens in all.

Everything but attention looks at one token at a time, so it runs over T tokens and not over B × L.
Attention alone sees a padded batch; of a text of 200 tokens in a body of 384 dimensions it is a
tenth of the work.

Shapes: B texts, L tokens of the longest, T tokens of all, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertModel
from transformers.models.bert.modeling_bert import BertSelfAttention

from dupmae.types import Int64


@dataclass(frozen=True)
class Layout:
    """Where the tokens of packed texts stand in a padded batch."""

    shape: tuple[int, int]
    """B and L."""
    columns_T: Tensor
    """Each token's place in its text."""
    slots_T: Tensor
    """Its place in the padded batch, rows below one another."""

    @property
    def is_padded(self) -> bool:
        """Whether texts differ in length."""
        return len(self.slots_T) < self.shape[0] * self.shape[1]

    def pad(self, packed_TX: Tensor) -> Tensor:
        """Return (B, L, X), zeros where there is no token."""
        if not self.is_padded:
            return packed_TX.view(*self.shape, -1)
        rows, columns = self.shape
        padded = packed_TX.new_zeros(rows * columns, packed_TX.shape[1])
        return padded.index_copy_(0, self.slots_T, packed_TX).view(rows, columns, -1)

    def pack(self, padded_BLX: Tensor) -> Tensor:
        """Return (T, X)."""
        flat = padded_BLX.flatten(0, 1)
        return flat[self.slots_T] if self.is_padded else flat

    @cached_property
    def mask(self) -> Tensor:
        """(B, L) bool: where tokens are."""
        ones_T1 = self.slots_T.new_ones(len(self.slots_T), 1, dtype=torch.bool)
        return self.pad(ones_T1).squeeze(2)


def places(lengths_B: Int64) -> tuple[Int64, Int64]:
    """Return `columns_T` and `slots_T` of texts of the given lengths."""
    ends_B = np.cumsum(lengths_B)
    rows_T = np.repeat(np.arange(len(lengths_B)), lengths_B)
    columns_T = np.arange(len(rows_T)) - np.repeat(ends_B - lengths_B, lengths_B)
    return columns_T, rows_T * lengths_B.max() + columns_T


def read_body(body: BertModel, tokens_T: Tensor, layout: Layout) -> Tensor:
    """Return the last layer's states (T, D) of a body in evaluation mode."""
    hidden_TD: Tensor = body.embeddings(
        input_ids=tokens_T[None], position_ids=layout.columns_T[None]
    )[0]
    # Without a mask there are faster kernels.
    mask_B11L = layout.mask[:, None, None] if layout.is_padded else None
    for layer in body.encoder.layer:
        read_TD = _attend(layer.attention.self, hidden_TD, layout, mask_B11L)
        hidden_TD = layer.attention.output(read_TD, hidden_TD)
        hidden_TD = layer.output(layer.intermediate(hidden_TD), hidden_TD)
    return hidden_TD


def _attend(
    attention: BertSelfAttention, hidden_TD: Tensor, layout: Layout, mask_B11L: Tensor | None
) -> Tensor:
    rows, columns = layout.shape
    query, key, value = (
        layout.pad(project(hidden_TD))
        .view(rows, columns, attention.num_attention_heads, -1)
        .transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    read = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask_B11L)
    return layout.pack(read.transpose(1, 2).flatten(2))
