"""The maximum over a text's tokens of each term's logit, without a (B, L, V) tensor.

About half of all inference FLOPs are this projection onto the vocabulary. It is done in pieces
that stay in cache, and where only some terms are wanted, of these alone.

Shapes: T tokens of several texts below one another, B texts, D hidden, V vocabulary, N own terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CACHED_LOGITS = 2**18
"""Logits computed at a time on a CPU: 1 MiB of float32, about one core's L2 cache.

Measured on a Zen 3 core with D = 384: 2^16 to 2^20 are within noise of each other; the whole
vocabulary at once takes half as long again.
"""
DEVICE_LOGITS = 2**27
"""The same on an accelerator, where starting a kernel costs more than memory: 512 MiB."""
SMALLEST_CHUNK = 256
"""Terms in a chunk at least: narrower products waste the time of starting them."""


def pool_terms(states_TD: Tensor, terms_N: Tensor, head_VD: Tensor, head_bias_V: Tensor) -> Tensor:
    """Return the maximum logit (N,) of the given terms over the tokens of one text.

    Args:
        states_TD: transformed states of the text's voting tokens, at least one.
        terms_N: term ids.
        head_VD: the vocabulary projection.
        head_bias_V: its bias.
    """
    return (states_TD @ head_VD[terms_N].T).amax(dim=0) + head_bias_V[terms_N]


def pool_vocabulary(
    states_TD: Tensor, lengths: Sequence[int], head_VD: Tensor, head_bias_V: Tensor
) -> Tensor:
    """Return the maximum logit (B, V) of every term over the tokens of each text.

    Args:
        states_TD: transformed states of the voting tokens, the texts below one another.
        lengths: how many of the T tokens each text has, at least one.
        head_VD: the vocabulary projection.
        head_bias_V: its bias.
    """
    at_once = CACHED_LOGITS if states_TD.device.type == "cpu" else DEVICE_LOGITS
    chunk = max(SMALLEST_CHUNK, at_once // len(states_TD))
    pooled_BV = states_TD.new_empty(len(lengths), len(head_VD))
    for pooled_BC, head_CD in zip(pooled_BV.split(chunk, dim=1), head_VD.split(chunk), strict=True):
        logits_TC = states_TD @ head_CD.T
        for pooled_C, logits_LC in zip(pooled_BC, logits_TC.split(list(lengths)), strict=True):
            torch.amax(logits_LC, dim=0, out=pooled_C)
    return pooled_BV.add_(head_bias_V)
