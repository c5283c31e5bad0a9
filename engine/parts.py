"""A segment's place in a view: which of its documents and vectors have which numbers there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dupmae.engine.numbers import Numbers
from dupmae.engine.opened import Segment
from dupmae.types import Bool, Int64


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
