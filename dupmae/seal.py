"""The seal: a digest of everything about an encoder that decides its vectors.

An index carries the seal of the encoder that made it and refuses another's queries. It is the same
whatever runs the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.heads import HeadSettings

SEAL_VERSION = 2
"""Raised when the code itself begins to make other vectors of the same model; 2: a document's
terms are cut by their weights times those of queries."""
ARCHITECTURE = ("hidden_act", "layer_norm_eps", "num_attention_heads")
"""What of config.json decides vectors and cannot be read off the shapes of the weights."""

_TOKENIZER = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
"""Sections of tokenizer.json that turn text into ids; the encoder sets truncation and padding."""
_OF_THE_ENGINE = ("dense_weight", "sparse_weight", "feedback", "borrowed_terms")
"""Settings of indexing and search, which leave the encoder's vectors alone."""
_AT_ONCE = 2**16
"""Numbers that are converted and hashed while they are in the caches."""


def seal_of(
    heads: HeadSettings,
    architecture: Mapping[str, object],
    tokenizer: str,
    special_ids: Collection[int],
    weights: Iterable[tuple[str, NDArray[Any]]],
) -> str:
    """Return the SHA-256, in hex, of settings, shape, tokenizer and weights.

    Args:
        heads: the settings.
        architecture: the value of each key of `ARCHITECTURE`.
        tokenizer: as tokenizer.json says how it works now, whatever files it came from.
        special_ids: token ids that never are terms.
        weights: name and values of each parameter, in the order of their names; hashed as float32.
    """
    settings = asdict(heads)
    for name in _OF_THE_ENGINE:
        del settings[name]
    tokens = json.loads(tokenizer)
    description = {
        "seal": SEAL_VERSION,
        "heads": settings,
        "architecture": {name: architecture[name] for name in ARCHITECTURE},
        "tokenizer": {name: tokens.get(name) for name in _TOKENIZER},
        "special_ids": sorted(special_ids),
    }
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, values in weights:
        digest.update(f"{name} {values.shape}".encode())
        flat = values.reshape(-1)
        for start in range(0, len(flat), _AT_ONCE):
            digest.update(flat[start : start + _AT_ONCE].astype(np.float32).data)
    return digest.hexdigest()
