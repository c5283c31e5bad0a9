"""One search of both parts at once: every document's bound against the k-th score so far.

Where a segment has an outline of its dense vectors, no list needs to be read deep. First the best
documents of the sparse part alone are scored exactly; the k-th score among them is a floor. Then
one pass over all documents bounds the sum of both parts, from the document's own sparse bound and
its own dense one, and leaves those that may reach the floor: some dozens of a million. These are
scored in the order of their bounds, in blocks, until no bound reaches the k-th score.

A document's bound is at least its score as `Weights.combine` rounds it (see `outline.py`), and one
that the pass leaves out is below the floor, so it ranks after k documents that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dupmae.engine.lists import Listing
from dupmae.engine.weights import Weights
from dupmae.indexes.base import SparseIndex
from dupmae.indexes.inverted import InvertedIndex, largest
from dupmae.indexes.kernels import in_ranges, reach
from dupmae.indexes.outline import DenseOutline
from dupmae.types import Bool, Float32, Float64, Int32, Int64, SparseVectors

LIST_DEPTH = 1024
"""How deep a sparse store is read that can only list: what it does not list has the last bound."""
GROWTH = 2
"""Each block of documents to score is this many times as large as the one before."""

_LARGEST_SUM = 2**30
"""Of bounds that a list gives, as whole numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class ScannedPart:
    """A segment of N documents as a view sees it."""

    outline: DenseOutline
    sparse: SparseIndex
    mask: Bool | None
    """Which of them the view has, (N,); None: all."""
    ordinals: Callable[[Int64], Int64]
    """Gives ordinals in the view of ordinals in the segment."""


class Scan:
    """The candidates of one query, block after block."""

    def __init__(
        self,
        parts: Sequence[ScannedPart],
        query: tuple[Float32, Int32, Float32],
        weights: Weights,
        depth: int,
    ) -> None:
        """Bound the sparse part of all documents.

        Args:
            parts: of a view.
            query: dense vector (dim,), terms and their weights (nnz,).
            weights: both above 0.
            depth: of the first blocks.
        """
        self._dense = query[0]
        self._weights = weights
        self._depth = depth
        self._sums = [_Sums.of(part, *query[1:], depth) for part in parts]
        self._waiting: tuple[Int64, Float64] | None = None

    def sharing(self) -> Int64:
        """Return the documents that score best by their terms, at most `depth`, rising."""
        best = [(sums, sums.best(self._depth)) for sums in self._sums]
        ordinals = np.concatenate([sums.part.ordinals(local) for sums, local in best])
        bounds = np.concatenate([sums.unit * sums.sums[local] for sums, local in best])
        return np.sort(ordinals[np.argsort(-bounds, kind="stable")[: self._depth]])

    def block(self, floor: float) -> Listing:
        """Return the next documents to score, rising; all others that are not scored are bounded.

        Args:
            floor: the k-th score so far; never falls.
        """
        if self._waiting is None:
            self._waiting = self._reaching(floor)
        ordinals, bounds = self._waiting
        end = int(np.searchsorted(-bounds, -floor, side="right"))  # those at the floor may tie
        ordinals, bounds = ordinals[:end], bounds[:end]
        block, rest = ordinals[: self._depth], ordinals[self._depth :]
        self._waiting = rest, bounds[self._depth :]
        self._depth *= GROWTH
        below = float(np.nextafter(floor, -np.inf))
        ceiling = float(self._waiting[1][0]) if len(rest) else below
        return Listing(np.sort(block), ceiling)

    def _reaching(self, floor: float) -> tuple[Int64, Float64]:
        """Return all documents whose bound is the floor or above, by falling bound."""
        found = [sums.reaching(self._dense, self._weights, floor) for sums in self._sums]
        ordinals = np.concatenate([ordinals for ordinals, _ in found])
        bounds = np.concatenate([bounds for _, bounds in found])
        order = np.argsort(-bounds, kind="stable")
        return ordinals[order], bounds[order]


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """A bound of the sparse part of each document of a segment: `sums` (N,) times `unit`."""

    part: ScannedPart
    sums: Int32
    unit: float

    @classmethod
    def of(cls, part: ScannedPart, terms: Int32, weights: Float32, depth: int) -> _Sums:
        if isinstance(part.sparse, InvertedIndex):
            return cls(part, *part.sparse.bounds(terms, weights))
        query = SparseVectors.from_rows([(terms, weights)])
        depth = max(depth, LIST_DEPTH)
        (ranking,) = part.sparse.search(query, depth, part.mask)
        if not len(ranking):
            return cls(part, np.zeros(len(part.sparse), dtype=np.int32), 0.0)
        unit = float(ranking.scores[0]) / _LARGEST_SUM
        numbers = np.ceil(ranking.scores / unit).astype(np.int32)
        sums = np.zeros(len(part.sparse), dtype=np.int32)
        if len(ranking) == depth:
            sums.fill(numbers[-1])
        sums[ranking.ordinals] = numbers
        return cls(part, sums, unit * (1 + 2.0**-50))

    def best(self, depth: int) -> Int64:
        """Return the documents of the view whose sums are largest, and few others."""
        sums = self.sums if self.part.mask is None else self.sums * self.part.mask
        return largest(sums, depth)

    def reaching(self, query: Float32, weights: Weights, floor: float) -> tuple[Int64, Float64]:
        """Return ordinals in the view, and bounds, of what may score `floor` or more."""
        outline, mask = self.part.outline, self.part.mask
        unit = weights.sparse * self.unit
        coded = outline.query(query, weights.dense, unit, unit * float(self.sums.max(initial=0)))
        found = in_ranges(
            len(outline), partial(reach, coded, outline.codes, self.sums, mask, floor)
        )
        ordinals = np.concatenate([ordinals for ordinals, _ in found])
        return self.part.ordinals(ordinals), np.concatenate([bounds for _, bounds in found])
