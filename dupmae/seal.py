"""The seal: a digest of everything about an encoder that decides its vectors.

An index carries the seal of the encoder that made it and refuses another's queries.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import torch
from transformers import PreTrainedTokenizerFast

from dupmae.model import DupMAE

SEAL_VERSION = 1
"""Raised when the code itself begins to make other vectors of the same model."""

_ARCHITECTURE = ("hidden_act", "layer_norm_eps", "num_attention_heads")
"""What decides vectors and cannot be read off the shapes of the weights."""
_TOKENIZER = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
"""Sections of tokenizer.json that turn text into ids; the encoder sets truncation and padding."""
_SCORE_ONLY = ("dense_weight", "sparse_weight", "feedback")
"""Settings of the search, which leave the encoder's vectors alone."""


def model_seal(
    model: DupMAE, tokenizer: PreTrainedTokenizerFast, *, dtype: torch.dtype = torch.float32
) -> str:
    """Return the SHA-256, in hex, of weights, shape, tokenizer and settings.

    Args:
        model: its weights are hashed by name, so their order does not matter.
        tokenizer: as it works now, whatever files it came from.
        dtype: hash the weights as they will be once saved in this type and loaded again.
    """
    settings = asdict(model.heads)
    for name in _SCORE_ONLY:
        del settings[name]
    tokens = json.loads(tokenizer.backend_tokenizer.to_str())
    description = {
        "seal": SEAL_VERSION,
        "heads": settings,
        "architecture": {name: getattr(model.lm.config, name) for name in _ARCHITECTURE},
        "tokenizer": {name: tokens.get(name) for name in _TOKENIZER},
        "special_ids": sorted(tokenizer.all_special_ids),
    }
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    # named_parameters yields the tied decoder once, under its embeddings' name.
    for name, tensor in sorted(model.named_parameters()):
        values = tensor.detach().cpu().to(dtype).float().contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()
