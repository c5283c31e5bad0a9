"""One row of numbers for what lies in several places, such as the segments of an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dupmae.types import Int64

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Numbers from `start` on for some of the documents of a place, or of its vectors.

    `chosen` (n,) are their ordinals there, rising; None if it is all `size` of them.
    """

    start: int
    size: int
    chosen: Int64 | None

    def all(self) -> Int64:
        """Return the ordinals there of all that are numbered."""
        return np.arange(self.size) if self.chosen is None else self.chosen

    def local(self, ordinals: Int64) -> Int64:
        """Return ordinals there of numbers."""
        places = ordinals - self.start
        return places if self.chosen is None else self.chosen[places]

    def ordinals(self, local: Int64) -> Int64:
        """Return the numbers of ordinals there that have one."""
        places = local if self.chosen is None else np.searchsorted(self.chosen, local)
        return places + self.start


def split_ordinals(
    parts: Sequence[Item], numbers: Sequence[Numbers], ordinals: Int64
) -> Iterator[tuple[Item, Int64]]:
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
