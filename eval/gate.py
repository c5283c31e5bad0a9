"""The gate: whether a measure has fallen against an earlier report, for use in CI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dupmae.errors import DataError, UsageError
from dupmae.eval.metrics import Values, is_averaged
from dupmae.eval.report import Report
from dupmae.eval.statistics import ALPHA, SAMPLES, holm, randomisation_p


@dataclass(frozen=True, slots=True)
class Fall:
    """A measure of a system that is significantly below what it was."""

    collection: str
    system: str
    measure: str
    before: float
    after: float
    p: float

    def __str__(self) -> str:
        return (
            f"{self.measure} of {self.system} on {self.collection} fell from {self.before:.4f} "
            f"to {self.after:.4f} (p = {self.p:.4f})"
        )


@dataclass(frozen=True, slots=True)
class Earlier:
    """The values of each query in a report that was written before."""

    path: Path
    collection: str
    split: str
    per_query: dict[str, Values]

    @classmethod
    def read(cls, path: Path) -> Earlier:
        """Read a `report.json` of `eval`.

        Raises:
            DataError: if it is none, or was written without the values of each query.
        """
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            per_query = {
                system: {measure: dict(values) for measure, values in measures.items()}
                for system, measures in content["per_query"].items()
            }
            return cls(path, str(content["collection"]), str(content["split"]), per_query)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path} is no report with values of each query; --gate takes the report.json "
                "that eval writes into --out"
            ) from None


def falls(report: Report, earlier: Earlier, *, seed: int = 0, samples: int = SAMPLES) -> list[Fall]:
    """Return the measures that fell significantly, of all that both reports have.

    Each is tested by a paired randomisation test, with Holm's correction over all of them.

    Raises:
        UsageError: if the two are not of the same collection, split and queries, or share no
            system and measure.
    """
    shared = [
        (system, measure)
        for system, values in report.per_query.items()
        for measure in values
        if measure in earlier.per_query.get(system, {}) and is_averaged(measure)
    ]
    _check_fit(report, earlier, shared)
    before = _columns(earlier.per_query, shared, report)
    after = _columns(report.per_query, shared, report)
    p_values = holm(randomisation_p(after - before, seed=seed, samples=samples).tolist())
    means = zip(before.mean(axis=0).tolist(), after.mean(axis=0).tolist(), strict=True)
    return [
        Fall(report.collection, *names, *values, p)
        for names, values, p in zip(shared, means, p_values, strict=True)
        if p < ALPHA and values[1] < values[0]
    ]


def _check_fit(report: Report, earlier: Earlier, shared: Sequence[tuple[str, str]]) -> None:
    found = f"{earlier.collection} {earlier.split}"
    if found != f"{report.collection} {report.split}":
        raise UsageError(
            f"{earlier.path} is of {found}, not of {report.collection} {report.split}; "
            "a gate compares the same judgements"
        )
    if not shared:
        raise UsageError(
            f"{earlier.path} has no system and measure in common with this evaluation: "
            f"it has {', '.join(earlier.per_query) or 'none'}"
        )
    for system, measure in shared:
        if earlier.per_query[system][measure].keys() != report.per_query[system][measure].keys():
            raise UsageError(
                f"{earlier.path} was measured on other queries of {found}; measure it anew"
            )


def _columns(
    per_query: dict[str, Values], names: Sequence[tuple[str, str]], report: Report
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (queries, names) in the order of the report's queries."""
    queries = next(iter(next(iter(report.per_query.values())).values()))
    return np.array(
        [[per_query[system][measure][query] for system, measure in names] for query in queries],
        dtype=np.float64,
    )
