"""The enhanced decoder: one transformer layer that rebuilds a text from [CLS] and what it may see.

Shapes: B texts, L tokens, D hidden, H attention heads.

It exists in pre-training only. Two streams enter: queries, which are h = [CLS]'s state at every
position, and the context (keys and values), which is h followed by the embeddings of the original
tokens. Each row sees its own part of the context, never its own token, and always h.

Source: Liu et al., RetroMAE-2 (ACL 2023), equations 2 to 5, and the authors' public code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer

Variant = Literal["code", "paper"]


class EnhancedDecoder(nn.Module):
    """One BERT layer with weights of its own, whose attention runs from one stream to the other.

    `layer` has the names of a Hugging Face BertLayer, which are those of the authors' `c_head`.
    """

    def __init__(self, config: BertConfig, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.heads = config.num_attention_heads
        self.layer = BertLayer(config)
        for module in self.layer.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)

    def forward(
        self, cls_BD: Tensor, original_ids_BL: Tensor, visible_BLL: Tensor, embed: BertEmbeddings
    ) -> Tensor:
        """Return the states (B, L, D) from which the original tokens are to be read.

        Args:
            cls_BD: the encoder's last state of [CLS], of the masked text.
            original_ids_BL: the text before masking.
            visible_BLL: bool, what each row sees; a row that sees nothing is given h.
            embed: the encoder's embeddings, shared.
        """
        context_BLD = torch.cat([cls_BD.unsqueeze(1), embed(input_ids=original_ids_BL)[:, 1:]], 1)
        query_BLD = self._queries(cls_BD, original_ids_BL.shape[1], embed)
        attended_BLD = self._attend(query_BLD, context_BLD, visible_BLL)
        attended_BLD = self.layer.attention.output(attended_BLD, query_BLD)
        states: Tensor = self.layer.output(self.layer.intermediate(attended_BLD), attended_BLD)
        return states

    def _queries(self, cls_BD: Tensor, length: int, embed: BertEmbeddings) -> Tensor:
        query_BLD = cls_BD.unsqueeze(1).expand(-1, length, -1)
        if self.variant == "paper":
            positions_LD: Tensor = embed.position_embeddings.weight[:length]
            return query_BLD + positions_LD
        normed_BLD: Tensor = embed(inputs_embeds=query_BLD)
        return normed_BLD

    def _attend(self, query_BLD: Tensor, context_BLD: Tensor, visible_BLL: Tensor) -> Tensor:
        attention = self.layer.attention.self
        # Padding's rows may see nothing at all; a softmax over nothing would be NaN.
        sees_nothing_BL = ~visible_BLL.any(dim=-1)
        visible_BLL = visible_BLL.clone()
        visible_BLL[..., 0] |= sees_nothing_BL
        attended_BHLD = functional.scaled_dot_product_attention(
            self._split(attention.query(query_BLD)),
            self._split(attention.key(context_BLD)),
            self._split(attention.value(context_BLD)),
            attn_mask=visible_BLL.unsqueeze(1),
            dropout_p=attention.dropout.p if self.training else 0.0,
        )
        return attended_BHLD.transpose(1, 2).flatten(2)

    def _split(self, states_BLD: Tensor) -> Tensor:
        """Return (B, H, L, D/H)."""
        split_BLHD: Tensor = states_BLD.unflatten(-1, (self.heads, -1))
        return split_BLHD.transpose(1, 2)
