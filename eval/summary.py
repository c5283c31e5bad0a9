"""Several reports, and what is averaged over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dupmae.eval.report import Report

Means = dict[str, dict[str, float]]
"""System → measure → mean."""

AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Summary:
    """Reports by the collection that was asked for: `cqadupstack` has twelve, others have one."""

    groups: dict[str, list[Report]]

    @property
    def reports(self) -> list[Report]:
        """All reports, in the order of the collections."""
        return [report for reports in self.groups.values() for report in reports]

    def averages(self) -> dict[str, Means]:
        """Return the means of each collection that has parts, then `average`, over collections.

        Only of systems that every report has: others would be averaged over easier collections.
        """
        means = {name: self._means([parts]) for name, parts in self.groups.items() if parts[1:]}
        if len(self.groups) > 1:
            means[AVERAGE] = self._means(list(self.groups.values()))
        return means

    def _means(self, groups: Sequence[Sequence[Report]]) -> Means:
        first, *others = self.reports
        return {
            system: {
                measure: float(
                    np.mean(
                        [
                            np.mean([part.systems[system][measure] for part in parts])
                            for parts in groups
                        ]
                    )
                )
                for measure in first.measures
            }
            for system in first.systems
            if all(system in report.systems for report in others)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a lone report's plain values, or those of all with their averages."""
        if len(self.reports) == 1:
            return self.reports[0].to_dict()
        return {
            "collections": [report.to_dict() for report in self.reports],
            "averages": self.averages(),
        }
