"""How the two parts of a score are weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

from dupmae.errors import UsageError
from dupmae.types import Float64

MAX_WEIGHT = 1e100
"""Below this no sum of float32 products can overflow float64, so no score is ever infinite."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts: s = `dense`·⟨q, d⟩_dense + `sparse`·⟨q, d⟩_sparse.

    `feedback` is β of `feedback.py`, which makes q; with 0 it is what the encoder gave.
    """

    dense: float = 1.0
    sparse: float = 1.0
    feedback: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dense", "sparse", "feedback"):
            weight = getattr(self, name)
            if not 0 <= weight <= MAX_WEIGHT:  # false for NaN too
                raise UsageError(
                    f"the {name} weight must be from 0 to {MAX_WEIGHT:g}, found {weight}"
                )
        if self.dense == 0 and self.sparse == 0:
            raise UsageError("one of the two weights must be above 0, found both 0")

    @overload
    def combine(self, dense: float, sparse: float) -> float: ...

    @overload
    def combine(self, dense: Float64, sparse: Float64) -> Float64: ...

    def combine(self, dense: float | Float64, sparse: float | Float64) -> float | Float64:
        """Return the score of parts: two products, each rounded, then their rounded sum."""
        return self.dense * dense + self.sparse * sparse
