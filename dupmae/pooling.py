"""The maximum over a text's tokens of each term's logit, without a (B, L, V) tensor.

About half of all inference FLOPs would be this projection onto the vocabulary. It is done in pieces
that stay in cache, and where only some terms are wanted, of these alone.

Shapes: B texts, L tokens of the longest, D hidden, V vocabulary, N terms of each text that are
wanted, C of these at a time.
"""

from __future__ import annotations

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
    pooled = [
        _maximum(torch.bmm(states_BLD, head_VD[terms_BC].transpose(1, 2)), votes_BL)
        for terms_BC in terms_BN.split(_terms_at_once(votes_BL), dim=1)
    ]
    return torch.cat(pooled, dim=1)


def pool_vocabulary(states_BLD: Tensor, votes_BL: Tensor, head_VD: Tensor) -> Tensor:
    """Return the maximum logit, without bias, of every term (B, V); the arguments are the same."""
    pooled = [
        _maximum(states_BLD @ head_CD.T, votes_BL)
        for head_CD in head_VD.split(_terms_at_once(votes_BL))
    ]
    return torch.cat(pooled, dim=1)


def _terms_at_once(votes_BL: Tensor) -> int:
    logits = CACHED_LOGITS if votes_BL.device.type == "cpu" else DEVICE_LOGITS
    return max(SMALLEST_CHUNK, logits // votes_BL.numel())


def _maximum(logits_BLC: Tensor, votes_BL: Tensor) -> Tensor:
    return logits_BLC.masked_fill_(~votes_BL.unsqueeze(2), NEVER).amax(dim=1)
