"""What a network says of a text → its vectors, in NumPy: the heads of `model.py` without torch.

All arrays are of one text, over the terms that it may keep: (n,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.heads import CORPUS_PRIOR, LEAST_IDF, USUAL_TERMS, HeadSettings
from dupmae.readings import Reading
from dupmae.types import CorpusStatistics, Float32, Int32, Int64

Row = tuple[Int32, Float32]
"""Terms, strictly increasing, and their weights, all above 0."""


@dataclass(frozen=True)
class TermWeights:
    """How a model weighs the terms of its texts."""

    heads: HeadSettings
    query_weight_V: Float32
    """u, at least 0."""
    training_idf_V: Float32 | None

    def document(self, text: Reading) -> Row:
        """Return the terms that a document keeps: those that may add most to a score."""
        heads, terms = self.heads, text.terms.astype(np.int32)
        weights = activate(text.logits, heads) * document_factors(text.counts, text.length, heads)
        # A common word weighs next to nothing in a query, however much in the document.
        worth = weights * self.query_weight_V[terms]
        return top_terms(terms, weights.astype(np.float32), heads.k_document, worth)

    def query(self, text: Reading, corpus: CorpusStatistics | None) -> Row:
        """Return the terms that a query keeps, in the given corpus or in any."""
        heads = self.heads
        weights = activate(text.logits, heads) * self.query_weight_V[text.terms]
        if corpus is not None:
            if self.training_idf_V is not None:
                weights = weights * corpus_factors(self.training_idf_V, text.terms, corpus, heads)
            # What no document has can expand nothing, and would take another term's place.
            weights = weights * ((text.counts > 0) | (corpus.frequency[text.terms] > 0))
        weights = expand_query(weights, text.counts, heads) * np.exp(text.log_gain)
        return top_terms(text.terms.astype(np.int32), weights.astype(np.float32), heads.k_query)


def activate(logits: Float32, heads: HeadSettings) -> Float32:
    """Turn max-pooled logits into weights; activation "none" cannot be served."""
    weights: Float32 = np.log1p(np.maximum(logits, 0))
    return np.log1p(weights) if heads.activation == "log1p2_relu" else weights


def document_factors(counts: Int64, length: int, heads: HeadSettings) -> NDArray[Any]:
    """Return what weights are multiplied by: BM25's frequency, or `document_expansion`.

    Args:
        counts: how often each term occurs in the document.
        length: ordinary tokens of the document.
        heads: the settings.
    """
    k1, b = heads.frequency_k1, heads.frequency_b
    norm = k1 * (1 - b + b * length / heads.frequency_length)
    # Not in one np.where, which would divide 0 by 0 if k1 is 0.
    factors = np.full(len(counts), heads.document_expansion)
    own = counts > 0
    factors[own] = counts[own] * (k1 + 1) / (counts[own] + norm)
    return factors


def corpus_factors(
    training_idf: Float32, terms: Int64, corpus: CorpusStatistics, heads: HeadSettings
) -> NDArray[Any]:
    """Return what turns training idf into the corpus's; `DupMAE.corpus_factors` says how.

    Args:
        training_idf: of the whole vocabulary, (V,).
        terms: term ids.
        corpus: where they will be searched for.
        heads: the settings.
    """
    idf = training_idf[terms].astype(np.float64)
    expected = (CORPUS_PRIOR + 1) * np.exp(-idf) - 0.5
    frequency = corpus.frequency[terms] + expected
    documents = corpus.documents + CORPUS_PRIOR
    corpus_idf = np.log1p((documents - frequency + 0.5) / (frequency + 0.5))
    factors: NDArray[Any] = (corpus_idf / np.maximum(idf, LEAST_IDF)) ** heads.corpus_idf
    return factors


def expand_query(weights: NDArray[Any], counts: Int64, heads: HeadSettings) -> NDArray[Any]:
    """Weigh a query's own terms and the heaviest others against each other.

    Args:
        weights: at least 0; of equal ones the first is the heavier.
        counts: how often each term occurs in the query.
        heads: the settings.
    """
    is_own = counts > 0
    own, others = np.where(is_own, weights, 0), np.where(is_own, 0, weights)
    others[np.argsort(-others, kind="stable")[heads.k_expansion :]] = 0
    if heads.normalize_query_terms:
        own, others = unit(own), unit(others)
    both: NDArray[Any] = own + heads.expansion * others
    if heads.normalize_query_terms and heads.query_norm != 2 and own.any():
        p = heads.query_norm
        both = both * (USUAL_TERMS ** (1 / p - 1 / 2) / (own**p).sum() ** (1 / p))
    return both


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Divide vectors (…, n) by their ℓ2 norms; a vector of zeros stays."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[Any] = vectors / np.maximum(norms, 1e-12)
    return scaled


def top_terms(terms: Int32, weights: Float32, k: int, worth: NDArray[Any] | None = None) -> Row:
    """Keep at most k terms of a weight above 0, those of the largest worth.

    Of equal ones those of smaller term id are kept.

    Args:
        terms: (n,) strictly increasing.
        weights: (n,) finite.
        k: at least 1.
        worth: (n,) finite; the weights if None.

    Returns:
        Terms, still strictly increasing, and their weights.
    """
    keep = weights > 0
    if np.count_nonzero(keep) > k:
        worth = np.where(keep, weights if worth is None else worth, -np.inf)
        least = np.partition(worth, -k)[-k]
        keep = worth > least
        tied = np.flatnonzero(worth == least)
        keep[tied[: k - np.count_nonzero(keep)]] = True
    return terms[keep], weights[keep]
