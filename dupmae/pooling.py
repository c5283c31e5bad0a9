"""The maximum over a text's tokens of each term's logit, without a (B, L, V) tensor.

About half of all inference FLOPs are this projection onto the vocabulary. It is done in pieces
that stay in cache, and where only some terms are wanted, of these alone.

Shapes: T tokens of several texts below one another, B texts, L tokens of the longest, D hidden, V
vocabulary, N terms of each text that are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dupmae.model import NEVER

CACHED_LOGITS = 2**18
"""Logits computed at a time on a CPU: 1 MiB of float32, about one core's L2 cache.

Measured on a Zen 3 core with D = 384: 2^16 to 2^20 are within noise of each other; the whole
vocabulary at once takes half as long again.
"""
DEVICE_LOGITS = 2**27
"""The same on an accelerator, where starting a kernel costs more than memory: 512 MiB."""
SMALLEST_CHUNK = 256
"""Terms in a chunk at least: narrower products waste the time of starting them."""


def pool_given(states_BLD: Tensor, votes_BL: Tensor, head_VD: Tensor, terms_BN: Tensor) -> Tensor:
    """Return the maximum logit, without bias, of each text's given terms (B, N).

    Args:
        states_BLD: transformed states, padded.
        votes_BL: bool, the tokens that take part; a text without any gets `NEVER`.
        head_VD: the vocabulary projection.
        terms_BN: term ids, padded by any.
    """
    silent_BL1 = ~votes_BL.unsqueeze(2)
    chunk = max(SMALLEST_CHUNK, _at_once(states_BLD) // votes_BL.numel())
    pooled = []
    for terms_BC in terms_BN.split(chunk, dim=1):
        logits_BLC = torch.bmm(states_BLD, head_VD[terms_BC].transpose(1, 2))
        pooled.append(logits_BLC.masked_fill_(silent_BL1, NEVER).amax(dim=1))
    return torch.cat(pooled, dim=1)


def pool_vocabulary(states_TD: Tensor, lengths: Sequence[int], head_VD: Tensor) -> Tensor:
    """Return the maximum logit, without bias, of every term over the tokens of each text (B, V).

    Args:
        states_TD: transformed states of the voting tokens, the texts below one another.
        lengths: how many of the T tokens each text has; one that has none gets `NEVER`.
        head_VD: the vocabulary projection.
    """
    chunk = max(SMALLEST_CHUNK, _at_once(states_TD) // max(1, len(states_TD)))
    pooled_BV = states_TD.new_empty(len(lengths), len(head_VD))
    for pooled_BC, head_CD in zip(pooled_BV.split(chunk, dim=1), head_VD.split(chunk), strict=True):
        logits_TC = states_TD @ head_CD.T
        for pooled_C, logits_LC in zip(pooled_BC, logits_TC.split(list(lengths)), strict=True):
            if len(logits_LC):
                torch.amax(logits_LC, dim=0, out=pooled_C)
            else:
                pooled_C.fill_(NEVER)
    return pooled_BV


def _at_once(states: Tensor) -> int:
    return CACHED_LOGITS if states.device.type == "cpu" else DEVICE_LOGITS
