"""[CLS] reads the text once more: one attention from [CLS] over all tokens.

It is half a last layer that one position takes part in, so it costs a text next to nothing. A body
that was trained to speak through the mean of its states (most sentence encoders) becomes one that
speaks through [CLS] without a training step: with W_q = 0 attention is uniform, and with W_v = I
the new state of [CLS] is that mean, exactly.

Shapes: B batch, L tokens, D hidden, H heads of D / H dimensions each.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig


class ClsAttention(nn.Module):
    """Attention pooling asked by [CLS]; new, it returns the mean of the states."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden)
        nn.init.normal_(self.key.weight, std=config.initializer_range)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.eye_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, hidden_BLD: Tensor, attention_mask_BL: Tensor) -> Tensor:
        """Return the new state of [CLS] (B, D).

        Args:
            hidden_BLD: last-layer states, [CLS] first.
            attention_mask_BL: 1 for tokens, 0 for padding.
        """
        query_BH1d = self._split(self.query(hidden_BLD[:, :1]))
        key_BHLd = self._split(self.key(hidden_BLD))
        value_BHLd = self._split(self.value(hidden_BLD))
        read_BH1d = functional.scaled_dot_product_attention(
            query_BH1d, key_BHLd, value_BHLd, attn_mask=attention_mask_BL.bool()[:, None, None]
        )
        return read_BH1d.flatten(1)

    def _split(self, states_BLD: Tensor) -> Tensor:
        """Return (B, H, L, d)."""
        split_BLHd: Tensor = states_BLD.unflatten(-1, (self.heads, -1))
        return split_BLHd.transpose(1, 2)
