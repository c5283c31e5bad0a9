"""What an evaluation found, as a record and as JSON; `tables` shows it to people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dupmae.eval.files import replacing_text
from dupmae.eval.metrics import Values
from dupmae.eval.proofs import Parts, Proofs
from dupmae.eval.runs import Run
from dupmae.eval.statistics import Statistics

SELF_HITS = "a document with the query's own id is never counted as a hit"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of `evaluate`.

    Whoever knows model and index adds them with `dataclasses.replace`, as are statistics.
    """

    collection: str
    split: str
    systems: dict[str, dict[str, float]]
    """System → measure → value over all judged queries."""

    k: int
    """How many hits a query were measured."""

    proofs: dict[int, Proofs]
    """Length of the answer → proofs of the first system's answers. Has `k`, for which k + 1 hits
    were asked, as one may be the query itself; or is empty, if that system proves nothing."""

    parts: Parts
    """Of what the first hits of the first system's short answers score."""

    dropped_self_hits: dict[str, int]
    """System → how many hits were dropped for having the query's own id."""

    seconds: dict[str, float]
    """System → time in the system. Encoding the queries is part of it, but a searcher that keeps
    a block's vectors encodes for the first system only, and fusions find both lists ready: do not
    compare systems by this."""

    per_query: dict[str, Values] = field(repr=False)
    """System → measure → query id → value."""

    top: dict[str, Run] = field(repr=False)
    """System → query id → the first few hits."""

    precision: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    """System → mean interpolated precision at recall 0, .1, …, 1, if that was asked for."""

    statistics: Statistics | None = None
    model: str | None = None
    index: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the JSON shall hold: date, command, number of documents, seal of the model."""

    @property
    def proven(self) -> float | None:
        """The share of the first system's answers, at length `k`, that are proven."""
        return self.proofs[self.k].share if self.proofs else None

    @property
    def measures(self) -> list[str]:
        """What was measured."""
        return list(next(iter(self.systems.values())))

    @property
    def queries(self) -> int:
        """How many queries were asked."""
        return len(next(iter(self.top.values())))

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
        }
        if self.statistics:
            content["statistics"] = self.statistics.to_dict()
        content |= self.details
        return {**content, "per_query": self.per_query} if per_query else content

    def to_json(self, *, per_query: bool = False) -> str:
        """Return the report as JSON; a measure without a value (NaN) is null."""
        return plain_json(self.to_dict(per_query=per_query))

    def write(self, path: Path, *, per_query: bool = True) -> None:
        """Write the JSON form to a file, which appears whole or not at all."""
        with replacing_text(path) as stream:
            stream.write(self.to_json(per_query=per_query) + "\n")


def plain_json(content: Any) -> str:
    """Return JSON for people and programs; NaN is null."""
    return json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
