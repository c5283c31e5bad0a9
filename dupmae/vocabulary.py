"""What a stored model knows of its vocabulary: embeddings in front of the network, terms behind it.

Shapes: V vocabulary, L tokens of a text, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.readings import Terms
from dupmae.stored import StoredModel, Weights
from dupmae.types import Float32, Int64


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of tokens and of their places."""

    words_VD: NDArray[Any]
    """As stored, often in float16: only what is looked up becomes float32."""
    places_LD: Float32
    """Of all positions, with the embedding of a first segment."""

    @classmethod
    def of(cls, weights: Weights) -> Embeddings:
        """Take them from a model's weights."""
        start = "lm.bert.embeddings."
        places_LD = weights[f"{start}position_embeddings.weight"].astype(np.float32)
        places_LD = places_LD + weights[f"{start}token_type_embeddings.weight"][0]
        return cls(weights[f"{start}word_embeddings.weight"], places_LD)

    def sum(self, tokens: Int64) -> Float32:
        """Return what the network reads of texts (…, L), (…, L, D), not normalised yet."""
        summed: Float32 = self.words_VD[tokens] + self.places_LD[: tokens.shape[-1]]
        return summed


def terms_of(model: StoredModel) -> Terms:
    """Return which ids are terms of a model."""
    bias_V = model.weights["lm.cls.predictions.bias"].astype(np.float32)
    size = model.tokenizer.get_vocab_size()
    return Terms(size, model.special_ids, bias_V, model.weights.get("term_neighbours"))
