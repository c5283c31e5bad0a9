"""What an evaluation found, as a record, as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dupmae.eval.files import replacing_text
from dupmae.eval.metrics import Values
from dupmae.types import SearchResult

SELF_HITS = "a document with the query's own id is never counted as a hit"


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
class Report:
    """The outcome of `evaluate`.

    Whoever knows model and index adds them with `dataclasses.replace`.
    """

    collection: str
    split: str
    systems: dict[str, dict[str, float]]
    """System → measure → value over all judged queries."""

    k: int
    """How many hits a query were measured."""

    proofs: dict[int, Proofs]
    """Length of the answer → proofs of the first system's answers. Always has `k`, for which k + 1
    hits were asked of the searcher, as one may be the query itself."""

    dropped_self_hits: dict[str, int]
    """System → how many hits were dropped for having the query's own id."""

    seconds: dict[str, float]
    """System → time in the searcher. Encoding the queries is part of it, but a searcher that keeps
    a block's vectors encodes for the first system only: do not compare systems by this."""

    per_query: dict[str, Values] = field(repr=False)
    """System → measure → query id → value."""

    model: str | None = None
    index: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the JSON shall hold: date, command, number of documents, seal of the model."""

    @property
    def proven(self) -> float:
        """The share of the first system's answers, at length `k`, that are proven."""
        return self.proofs[self.k].share

    @property
    def queries(self) -> int:
        """How many queries were asked."""
        return len(self.proofs[self.k].depths)

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return the report as plain values in the order of its JSON form."""
        content = {
            "collection": self.collection,
            "split": self.split,
            "systems": self.systems,
            "proven": self.proven,
            "model": self.model,
            "index": self.index,
            "queries": self.queries,
            "k": self.k,
            "depth": {str(length): proofs.to_dict() for length, proofs in self.proofs.items()},
            "self_hits": SELF_HITS,
            "dropped_self_hits": self.dropped_self_hits,
            "seconds": {system: round(seconds, 3) for system, seconds in self.seconds.items()},
            **self.details,
        }
        return {**content, "per_query": self.per_query} if per_query else content

    def to_json(self, *, per_query: bool = False) -> str:
        """Return the report as JSON; a measure without a value (NaN) is null."""
        content = _without_nan(self.to_dict(per_query=per_query))
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)

    def write(self, path: Path, *, per_query: bool = True) -> None:
        """Write the JSON form to a file, which appears whole or not at all."""
        with replacing_text(path) as stream:
            stream.write(self.to_json(per_query=per_query) + "\n")

    def table(self) -> str:
        """Return the report for people: aligned columns, then what was proven and dropped."""
        measures = list(next(iter(self.systems.values())))
        rows = [[f"{self.collection} {self.split}", *measures, "seconds"]]
        for system, values in self.systems.items():
            cells = [f"{values[measure]:.4f}" for measure in measures]
            rows.append([system, *cells, f"{self.seconds[system]:.2f}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            )
            for row in rows
        ]
        return "\n".join([*lines, "", *self._notes()])

    def _notes(self) -> list[str]:
        first = next(iter(self.systems))
        notes = [f"{self.queries:,} queries, {self.k:,} hits each"]
        for length, proofs in self.proofs.items():
            depth = proofs.to_dict()
            notes.append(
                f"{first}, top {length:,}: {depth['proven']:.1%} proven, at list depth "
                f"{depth['median']:,} (median), {depth['p95']:,} (95 %), {depth['max']:,} (maximum)"
            )
        notes.append(f"{SELF_HITS}: {sum(self.dropped_self_hits.values()):,} dropped")
        return notes


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
