"""A segment's place in a view: which of its documents and vectors have which numbers there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dupmae.engine.opened import Segment
from dupmae.types import Bool, Int64


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Numbers from `start` on for some of a segment's documents, or of its vectors.

    `chosen` (n,) are their ordinals in the segment, rising; None if it is all `size` of them.
    """

    start: int
    size: int
    chosen: Int64 | None

    def all(self) -> Int64:
        """Return the ordinals in the segment of all that are numbered."""
        return np.arange(self.size) if self.chosen is None else self.chosen

    def local(self, ordinals: Int64) -> Int64:
        """Return ordinals in the segment of ordinals in the view."""
        places = ordinals - self.start
        return places if self.chosen is None else self.chosen[places]

    def ordinals(self, local: Int64) -> Int64:
        """Return ordinals in the view of ordinals in the segment that the view has."""
        places = local if self.chosen is None else np.searchsorted(self.chosen, local)
        return places + self.start


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A segment's place in a view: how its documents are numbered there, and their vectors.

    `mask` (n,) says which vectors of the segment are in the view; None if all are.
    """

    segment: Segment
    documents: Numbers
    vectors: Numbers
    mask: Bool | None

    def __len__(self) -> int:
        return self.vectors.size

    @classmethod
    def of(cls, segment: Segment, chosen: Int64 | None, documents: int, vectors: int) -> Part:
        """Number some documents of a segment, all if None, and their vectors, from these on."""
        if chosen is None:
            numbers = Numbers(documents, len(segment), None)
            return cls(segment, numbers, Numbers(vectors, len(segment.forward), None), None)
        rows = segment.rows_of(chosen)
        mask = np.zeros(len(segment.forward), dtype=np.bool_)
        mask[rows] = True
        numbers = Numbers(documents, len(chosen), chosen)
        return cls(segment, numbers, Numbers(vectors, len(rows), rows), mask)


def split_ordinals(
    parts: Sequence[Part], numbers: Sequence[Numbers], ordinals: Int64
) -> Iterator[tuple[Part, Int64]]:
    """Yield each part with the places in `ordinals` of what is numbered there.

    Raises:
        IndexError: if there is no such ordinal.
    """
    size = sum(part.size for part in numbers)
    outside = ordinals[(ordinals < 0) | (ordinals >= size)]
    if len(outside):
        raise IndexError(f"there is no ordinal {outside[0]} among {size}")
    if len(parts) == 1:
        yield parts[0], np.arange(len(ordinals))
        return
    owners = np.searchsorted([part.start for part in numbers], ordinals, side="right") - 1
    for owner in np.unique(owners).tolist():
        yield parts[owner], np.flatnonzero(owners == owner)
