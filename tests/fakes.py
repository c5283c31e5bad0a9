"""A deterministic text encoder made of hashes: no weights, no torch, vectors known by heart."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dupmae.types import Encoded, Float32, SparseVectors


class FakeEncoder:
    """A text's dense vector is the mean of its words' vectors; its terms are its words' hashes."""

    def __init__(self, name: str = "fake", dense_dim: int = 8, vocabulary_size: int = 1000) -> None:
        self.name = name
        self.dense_dim = dense_dim
        self.vocabulary_size = vocabulary_size
        self.encoded_documents = 0
        self._vectors: dict[str, Float32] = {}

    @property
    def seal(self) -> str:
        settings = f"{self.name} {self.dense_dim} {self.vocabulary_size}"
        return hashlib.sha256(settings.encode()).hexdigest()

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        return self._encode(texts)

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        self.encoded_documents += len(texts)
        return self._encode(texts)

    def term_texts(self, terms: Sequence[int]) -> list[str]:
        return [f"term{term}" for term in terms]

    def term(self, word: str) -> int:
        """Return the term id of a word."""
        return _hash(word) % self.vocabulary_size

    def _encode(self, texts: Sequence[str]) -> Encoded:
        bags = [Counter(text.lower().split()) for text in texts]
        dense = np.zeros((len(texts), self.dense_dim), dtype=np.float32)
        for row, bag in zip(dense, bags, strict=True):
            row[:] = sum((count * self._vector(word) for word, count in bag.items()), row)
            row /= max(1, bag.total())
        return Encoded(dense, SparseVectors.from_rows([self._terms(bag) for bag in bags]))

    def _vector(self, word: str) -> Float32:
        if word not in self._vectors:
            generator = np.random.default_rng(_hash(word))
            vector = generator.standard_normal(self.dense_dim).astype(np.float32)
            self._vectors[word] = vector
        return self._vectors[word]

    def _terms(self, bag: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
        weights: dict[int, float] = {}
        for word, count in bag.items():
            weights[self.term(word)] = weights.get(self.term(word), 0.0) + math.log1p(count)
        terms = sorted(weights)
        return (
            np.array(terms, dtype=np.int32),
            np.array([weights[term] for term in terms], dtype=np.float32),
        )


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
