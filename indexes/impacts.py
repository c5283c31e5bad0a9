"""Few levels instead of weights, rounded up, so that an index of levels gives upper bounds.

The range from a term's least to its largest weight is cut into equal cells. A weight is known
by its cell only and counts as the largest weight found in that cell, so it is overrated by less
than (largest − least) / levels of its term; a weight alone in its cell stays exact. Cells of
equal width lose no more than cells fitted to the density of weights, on SPLADE-like and on BM25
weights, since the documents that matter have large weights; cells by term, unlike cells common
to all terms, follow the scale of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dupmae.indexes.npy import release_pages
from dupmae.types import Float32, Float64, Int32, Int64, SparseVectors

LARGEST_SUM = 2**24
"""Sums of whole numbers up to this are exact in float32."""

_BLOCK = 1 << 20
"""Non-zeros read at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class ImpactCells:
    """Which cell a document's weight falls in: `lows` and `highs` (V,) float32, by term."""

    lows: Float32
    highs: Float32
    levels: int

    @classmethod
    def fit(cls, vectors: SparseVectors, vocabulary_size: int, levels: int) -> ImpactCells:
        """Find each term's range of weights, in blocks.

        Raises:
            ValueError: if a term is not below `vocabulary_size`.
        """
        lows = np.full(vocabulary_size, np.inf, dtype=np.float32)
        highs = np.zeros(vocabulary_size, dtype=np.float32)
        for terms, weights in _blocks(vectors):
            if terms.max() >= vocabulary_size:
                raise ValueError(f"term {terms.max()} in a vocabulary of {vocabulary_size}")
            np.minimum.at(lows, terms, weights)
            np.maximum.at(highs, terms, weights)
        return cls(lows, highs, levels)

    def number(self, terms: Int32, weights: Float32) -> Int64:
        """Return the cell of each weight (n,): term · levels + level, levels from 0.

        Rounding may put a weight on a border into either cell; bounds hold all the same, as
        `tops` looks at what each cell was given.
        """
        lows = self.lows[terms].astype(np.float64)
        widths = self.highs[terms] - lows
        widths[widths == 0] = 1.0  # all weights of the term are equal: one cell
        level = np.ceil((weights - lows) / widths * self.levels).astype(np.int64) - 1
        return terms.astype(np.int64) * self.levels + np.clip(level, 0, self.levels - 1)

    def tops(self, vectors: SparseVectors) -> Float32:
        """Return the largest weight in each cell, (V, levels) float32; 0 where a cell is empty."""
        tops = np.zeros(len(self.lows) * self.levels, dtype=np.float32)
        for terms, weights in _blocks(vectors):
            np.maximum.at(tops, self.number(terms, weights), weights)
        return tops.reshape(len(self.lows), self.levels)


@dataclass(frozen=True, slots=True, eq=False)
class QueryImpacts:
    """A query against cells: what a document's cells add up to, times `unit`, bounds its score.

    `cells` (n,) int64; `impacts` (n,) float64, whole numbers ≥ 1 of which those a document can
    collect sum to at most 2^24.
    """

    cells: Int64
    impacts: Float64
    unit: float

    @classmethod
    def of(cls, terms: Int32, weights: Float32, tops: Float32) -> QueryImpacts:
        """Multiply a query (terms (nnz,), weights > 0) by the tops (V, levels) of its terms.

        Products are counted in units, rounded up. The unit is the smallest for which no sum can
        pass 2^24, so a score is overrated by at most one part in 2^24 of the largest
        conceivable score for each shared term. `unit` is raised by the little that float64
        rounding, here and in the exact score, could take from a bound.
        """
        products = weights[:, None].astype(np.float64) * tops[terms]
        largest = float(products.max(axis=1, initial=0.0).sum())
        unit = largest / (LARGEST_SUM - 1 - len(terms))
        rows, levels = np.nonzero(products)
        return cls(
            cells=terms[rows].astype(np.int64) * tops.shape[1] + levels,
            impacts=np.ceil(products[rows, levels] / unit),
            unit=unit * (1 + (len(terms) + 8) * 2.0**-52),
        )


def _blocks(vectors: SparseVectors) -> Iterator[tuple[Int32, Float32]]:
    for start in range(0, len(vectors.terms), _BLOCK):
        block = slice(start, start + _BLOCK)
        yield vectors.terms[block], vectors.weights[block]
        release_pages(vectors.terms)
        release_pages(vectors.weights)
