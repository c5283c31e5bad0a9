"""Canaries: short texts with their vectors, by which an index sees that its encoder has drifted.

The seal says that weights, tokenizer and settings are the same. What runs them may still make other
vectors: another version of the runtime, another precision, another kernel for another processor.
So a manifest holds what the encoder made of two texts, and by which runtime. An encoder that is run
by the same one is trusted; any other encodes the texts again when it opens the index, and must come
to vectors that are the same but for the rounding of float32.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import SealError
from dupmae.types import Encoded, RuntimeEncoder, SparseVectors, TextEncoder

CANARY_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Does vitamin D supplementation reduce the risk of hip fractures in older adults?",
)
"""Encoded as queries; short, so that looking at them takes milliseconds."""
_TIMES = 8
"""How often they stand in a batch for which an encoder may have another way than for a few."""
TOLERANCE = 1e-3
"""Of the length of a vector, how far it may be off. Of dupmae-mini ONNX Runtime and torch differ by
1e-6 at most; weights that are rounded to bfloat16 make 4e-3 to 8e-3."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A text and its query vectors; numbers are little-endian, in base64."""

    text: str
    dense: str
    """(dense_dim,) float32."""
    terms: str
    """(m,) int32, strictly rising."""
    weights: str
    """(m,) float32, above 0."""

    def __post_init__(self) -> None:
        self.vectors()

    def vectors(self) -> Encoded:
        """Return the vectors; ValueError if this is none."""
        terms, weights = _decoded(self.terms, np.int32), _decoded(self.weights, np.float32)
        sparse = SparseVectors.from_rows([(terms, weights)]).check()
        return Encoded(_decoded(self.dense, np.float32)[None], sparse)


@dataclass(frozen=True, slots=True)
class Canaries:
    """Some texts' vectors, and what ran the encoder that made them; "" if it did not say."""

    runtime: str
    texts: tuple[Canary, ...]


def make_canaries(encoder: TextEncoder) -> Canaries:
    """Encode the canary texts."""
    encoded = encoder.encode_queries(CANARY_TEXTS)
    texts = [
        Canary(text, _encoded(dense, "<f4"), _encoded(terms, "<i4"), _encoded(weights, "<f4"))
        for text, dense, (terms, weights) in zip(
            CANARY_TEXTS, encoded.dense, encoded.sparse, strict=True
        )
    ]
    return Canaries(_runtime(encoder), tuple(texts))


def check_canaries(folder: Path, canaries: Canaries | None, encoder: TextEncoder) -> None:
    """Raise SealError if an encoder of the right seal makes other vectors than the index has."""
    runtime = _runtime(encoder)
    if canaries is None or (runtime and runtime == canaries.runtime):
        return
    off = max(drifts(canaries, encoder), default=0.0)
    if not off <= TOLERANCE:  # NaN too
        raise SealError(
            f"encoder {encoder.name} makes other vectors than those of index {folder}: canary "
            f"texts are off by {off:.2g} of their length, at most {TOLERANCE:g} is rounding; the "
            f"index was made on {canaries.runtime or 'an unknown runtime'}, this is "
            f"{runtime or 'an unknown one'}; use that runtime, or rebuild the index with --replace"
        )


def drifts(canaries: Canaries, encoder: TextEncoder) -> Iterator[float]:
    """Yield how far each vector of the canaries is from what an encoder makes of their texts.

    They are encoded alone and in a larger batch.
    """
    for canary_texts in (canaries.texts, canaries.texts * _TIMES):
        found = encoder.encode_queries([canary.text for canary in canary_texts])
        for canary, dense, sparse in zip(canary_texts, found.dense, found.sparse, strict=True):
            known = canary.vectors()
            yield _distance(known.dense[0], dense)
            yield _distance(*_aligned(known.sparse.row(0), sparse))


def _distance(known: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the length of the difference, as a part of the longer vector's length."""
    if known.shape != found.shape:
        return float("inf")
    longer = max(np.linalg.norm(known), np.linalg.norm(found))
    return 0.0 if longer == 0 else float(np.linalg.norm(known - found) / longer)


def _aligned(
    known: tuple[NDArray[Any], NDArray[Any]], found: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the weights of all terms of both.

    Where only one has a term, the other may have cut it off for being just below its smallest.
    """
    terms = np.union1d(known[0], found[0])
    rows = []
    for own_terms, own_weights in (known, found):
        row = np.zeros(len(terms))
        row[np.searchsorted(terms, own_terms)] = own_weights
        rows.append(row)
    for row, other in (rows, rows[::-1]):
        least = other[other > 0].min(initial=np.inf)
        lacking = (other == 0) & (row <= least * (1 + TOLERANCE))
        row[lacking] = 0
    return rows[0], rows[1]


def _runtime(encoder: TextEncoder) -> str:
    return encoder.runtime if isinstance(encoder, RuntimeEncoder) else ""


def _encoded(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _decoded(values: str, kind: type[np.generic]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(values, validate=True), np.dtype(kind).newbyteorder("<"))
