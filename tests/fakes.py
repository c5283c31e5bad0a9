"""Stand-ins without weights or files: an encoder made of hashes, stores at the limits of their
protocols.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dupmae.types import (
    CorpusStatistics,
    Encoded,
    Float32,
    Float64,
    Int32,
    Int64,
    Ranking,
    SparseVectors,
    TermSpans,
)


class FakeEncoder:
    """A text's dense vector is the mean of its words' vectors; its terms are its words' hashes.

    With `corpus_idf` a query's terms weigh less the more documents of the corpus hold them.
    Documents are meant to borrow up to `borrowed_terms`.
    """

    def __init__(
        self,
        name: str = "fake",
        dense_dim: int = 8,
        vocabulary_size: int = 1000,
        *,
        corpus_idf: bool = False,
        borrowed_terms: int = 0,
    ) -> None:
        self.corpus_idf = corpus_idf
        self.borrowed_terms = borrowed_terms
        self.name = name
        self.dense_dim = dense_dim
        self.vocabulary_size = vocabulary_size
        self.encoded_documents = 0
        self._vectors: dict[str, Float32] = {}

    @property
    def seal(self) -> str:
        settings = f"{self.name} {self.dense_dim} {self.vocabulary_size}"
        return hashlib.sha256(settings.encode()).hexdigest()

    def encode_queries(
        self, texts: Sequence[str], corpus: CorpusStatistics | None = None
    ) -> Encoded:
        encoded = self._encode(texts)
        if corpus is None or not self.corpus_idf:
            return encoded
        sparse = encoded.sparse
        rarity = np.log1p((1 + corpus.documents) / (1 + corpus.frequency[sparse.terms]))
        weights = (sparse.weights * rarity).astype(np.float32)
        return Encoded(encoded.dense, SparseVectors(sparse.indptr, sparse.terms, weights))

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        self.encoded_documents += len(texts)
        return self._encode(texts)

    def term_texts(self, terms: Sequence[int]) -> list[str]:
        return [f"term{term}" for term in terms]

    def locate_terms(
        self, texts: Sequence[str], wanted: Sequence[Int32 | None] | None = None
    ) -> list[TermSpans]:
        return [self._spans(text) for text in texts]

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

    def _spans(self, text: str) -> TermSpans:
        words = list(re.finditer(r"\S+", text))
        return TermSpans(
            np.array([self.term(word.group().lower()) for word in words], dtype=np.int32),
            np.array([word.start() for word in words], dtype=np.int64),
            np.array([word.end() for word in words], dtype=np.int64),
        )

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


class WordReader(FakeEncoder):
    """A fake whose tokens are words, of which it reads so many and two special ones."""

    def __init__(self, max_document_length: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.max_document_length = max_document_length
        self._ids = {"[CLS]": 0, "[SEP]": 1}

    def read_documents(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        room = self.max_document_length - 2
        words = [text.split() for text in texts]
        ids = [[self._ids.setdefault(word, len(self._ids)) for word in text] for text in words]
        return [[0, *text[:room], 1] for text in ids], [len(text) > room for text in words]

    def tokenise_documents(self, texts: Sequence[str]) -> list[list[int]]:
        return self.read_documents(texts)[0]

    def token_spans(self, texts: Sequence[str]) -> list[Int64]:
        found = [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]
        return [np.array(spans, dtype=np.int64).reshape(-1, 2) for spans in found]

    def encode_tokenised(self, ids: Sequence[Sequence[int]]) -> Encoded:
        return self.encode_documents([self.words(text) for text in ids])

    def words(self, ids: Sequence[int]) -> str:
        """Return the text of what `read_documents` gave."""
        words = list(self._ids)
        return " ".join(words[token] for token in ids[1:-1])


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


@dataclass
class Forward:
    """Dense rows and sparse rows; remembers which documents it was asked to score."""

    dense: Float32
    sparse: SparseVectors
    scored: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.dense)

    def score(
        self, dense_query: Float32, query_terms: Int32, query_weights: Float32, ordinals: Int64
    ) -> tuple[Float64, Float64]:
        self.scored.append(ordinals.tolist())
        query = dict(zip(query_terms.tolist(), query_weights.tolist(), strict=True))
        products = self.dense[ordinals].astype(np.float64) * dense_query
        rows = [[part.tolist() for part in self.sparse.row(ordinal)] for ordinal in ordinals]
        sparse = [sum(query.get(t, 0.0) * w for t, w in zip(*row, strict=True)) for row in rows]
        return np.array([sum(row) for row in products]), np.array(sparse, dtype=np.float64)


@dataclass
class Noisy:
    """A candidate store as bad as its protocol allows.

    Listed scores are off by `noise` (N,), and which of the documents tied at the last place are
    listed is left to `tie_order` (N,).
    """

    forward: Forward
    noise: Float64
    tie_order: Int64
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.forward)

    def _best(self, scores: Float64, allowed: Int64, k: int) -> Ranking:
        order = np.lexsort((self.tie_order[allowed], -scores[allowed]))
        kept = allowed[order][:k]
        kept = kept[np.lexsort((kept, -scores[kept]))]
        return Ranking(kept, scores[kept])


class NoisyDense(Noisy):
    dim = 1

    def search(self, queries: Float32, k: int) -> list[Ranking]:
        self.asked.append((len(queries), k))
        everything = np.arange(len(self))
        truth = [(self.forward.dense.astype(np.float64) * q).sum(axis=1) for q in queries]
        return [self._best(scores + self.noise, everything, k) for scores in truth]

    def error_bound(self, query: Float32) -> float:
        # 1e-9: the fake adds up in another order than the forward store when values are not whole
        return float(np.abs(self.noise).max(initial=0.0)) + 1e-9


class ExactDense(NoisyDense):
    def error_bound(self, query: Float32) -> float:
        return 0.0


class NoisySparse(Noisy):
    def search(self, queries: SparseVectors, k: int) -> list[Ranking]:
        self.asked.append((len(queries), k))
        return [self._search(terms, weights, k) for terms, weights in queries]

    def _search(self, terms: Int32, weights: Float32, k: int) -> Ranking:
        assert len(terms) > 0, "a query without terms must not reach the store"
        everything = np.arange(len(self))
        _, truth = self.forward.score(np.zeros(1, np.float32), terms, weights, everything)
        self.forward.scored.pop()
        matching = np.flatnonzero(truth > 0)
        return self._best(truth + np.abs(self.noise), matching, k)
