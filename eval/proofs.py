"""What answers say of themselves: whether they are proven, how deep lists were read, the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dupmae.results import SearchResult


@dataclass(frozen=True, slots=True)
class Proofs:
    """How many answers were proven, and how deep the stores were read for each answer."""

    proven: int = 0
    depths: tuple[int, ...] = ()

    def joined(self, results: Sequence[SearchResult]) -> Proofs:
        """Return these proofs and those of more results."""
        return Proofs(
            self.proven + sum(result.proven for result in results),
            (*self.depths, *(result.depth for result in results)),
        )

    @property
    def share(self) -> float:
        """The part of all answers that is proven, 0 to 1."""
        return self.proven / len(self.depths)

    def to_dict(self) -> dict[str, float]:
        """Return the share, and the depth that 50 %, 95 % and 100 % of the answers stay within."""
        median, p95, largest = np.quantile(self.depths, (0.5, 0.95, 1.0), method="inverted_cdf")
        return {
            "proven": self.share,
            "median": int(median),
            "p95": int(p95),
            "max": int(largest),
        }


@dataclass(frozen=True, slots=True)
class Parts:
    """Of each answer's best hit: its score, and the two parts before they are weighted."""

    scores: tuple[float, ...] = ()
    dense: tuple[float, ...] = ()
    sparse: tuple[float, ...] = ()

    def joined(self, results: Sequence[SearchResult]) -> Parts:
        """Return these parts and those of more results."""
        best = [result.hits[0] for result in results if result.hits]
        return Parts(
            (*self.scores, *(hit.score for hit in best)),
            (*self.dense, *(hit.dense for hit in best)),
            (*self.sparse, *(hit.sparse for hit in best)),
        )

    @property
    def dense_shares(self) -> list[float]:
        """What part of dense + sparse the dense part is; of hits where both are positive."""
        pairs = zip(self.dense, self.sparse, strict=True)
        return [dense / (dense + sparse) for dense, sparse in pairs if dense > 0 < sparse]
