"""An engine for evaluations, which ask it the same queries in many ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dupmae.engine import SearchEngine
from dupmae.engine.generation import Generation
from dupmae.engine.view import View
from dupmae.engine.weights import Weights
from dupmae.types import Encoded, TextEncoder

_KEPT_BLOCKS = 16  # four of what `evaluate` asks at once, as they are and with feedback, twice


class RememberingEngine(SearchEngine):
    """Keeps the vectors of the queries that it was asked last, as long as it is not reloaded.

    All systems are asked the same block in turn, and the first one for a short answer too, so each
    query is encoded once, and once moved towards its best documents.
    """

    def __init__(
        self, folder: Path, encoder: TextEncoder, weights: Weights, generation: Generation
    ) -> None:
        super().__init__(folder, encoder, weights, generation)
        self._kept: dict[tuple[Any, ...], Encoded] = {}

    def encode(
        self,
        queries: Sequence[str],
        weights: Weights,
        view: View | None = None,
        *,
        mode: str = "exact",
    ) -> Encoded:
        """Encode queries as `SearchEngine.encode` does, or recall what that gave."""
        if view not in (None, self.view):
            return super().encode(queries, weights, view, mode=mode)
        # Without feedback, neither weights nor mode change a query.
        asked = (tuple(queries), *((weights, mode) if weights.feedback else ()))
        if asked not in self._kept:
            encoded = super().encode(queries, weights, view, mode=mode)
            if len(self._kept) >= _KEPT_BLOCKS:
                self._kept.pop(next(iter(self._kept)))  # the oldest
            self._kept[asked] = encoded
        return self._kept[asked]
