"""Statistics: whether two systems differ by more than the choice of queries explains.

Everything here is about the mean over queries and about pairs: both systems on the same query.
Results depend on the values and the seed only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dupmae.errors import UsageError
from dupmae.eval.metrics import Values, is_averaged
from dupmae.types import Float64

SAMPLES = 10_000
"""Of sign flips and of resampled query sets."""

CONFIDENCE = 0.95
ALPHA = 0.05
"""A corrected p below this is called significant."""

_TIE = 1e-9  # values of one query that differ by less differ by rounding
_BLOCK = 1 << 22  # numbers drawn at once


@dataclass(frozen=True, slots=True)
class Comparison:
    """A system against the baseline, by one measure.

    `lower` and `upper` bound the difference with 95 % confidence (percentile bootstrap). The
    `_holm` values are corrected for all systems compared by this measure.
    """

    measure: str
    system: str
    difference: float
    lower: float
    upper: float
    p_randomisation: float
    p_t: float
    p_randomisation_holm: float
    p_t_holm: float
    wins: int
    ties: int
    losses: int

    @property
    def is_significant(self) -> bool:
        """Whether the corrected randomisation test says that the means differ."""
        return self.p_randomisation_holm < ALPHA


@dataclass(frozen=True, slots=True)
class Statistics:
    """What can be said beyond means: intervals of each, and each system against a baseline."""

    baseline: str
    seed: int
    samples: int
    intervals: dict[str, dict[str, tuple[float, float]]]
    """System → measure → bounds of the mean. Measures that are summed have none."""

    comparisons: tuple[Comparison, ...]

    def of(self, measure: str, system: str) -> Comparison | None:
        """Return one comparison; None for the baseline itself and for summed measures."""
        found = (c for c in self.comparisons if (c.measure, c.system) == (measure, system))
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "baseline": self.baseline,
            "seed": self.seed,
            "samples": self.samples,
            "confidence": CONFIDENCE,
            "intervals": {
                system: {measure: list(bounds) for measure, bounds in by_measure.items()}
                for system, by_measure in self.intervals.items()
            },
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
        }


def compare(
    per_query: Mapping[str, Values], baseline: str, *, seed: int = 0, samples: int = SAMPLES
) -> Statistics:
    """Compare every system with one of them.

    Args:
        per_query: system → measure → query → value, all of the same measures and queries.
        baseline: one of the systems.
        seed: of the sign flips and of the resampled queries.
        samples: how many of both.

    Raises:
        UsageError: if the baseline is none of the systems.
    """
    if baseline not in per_query:
        raise UsageError(
            f"no system {baseline!r} to compare with; there are {', '.join(per_query)}"
        )
    systems = list(per_query)
    column = systems.index(baseline)
    intervals: dict[str, dict[str, tuple[float, float]]] = {system: {} for system in systems}
    comparisons: list[Comparison] = []
    values = _finite_values(per_query, baseline)
    if values:
        # Each measure sees the same flips and the same sets of queries, so they are drawn once.
        joined = np.concatenate(list(values.values()), axis=1)
        means = resampled_means(joined, seed=seed, samples=samples)
        differences = [_differences(each, column) for each in values.values()]
        flips = randomisation_p(np.concatenate(differences, axis=1), seed=seed, samples=samples)
        by_measure = (np.split(each, len(values), axis=-1) for each in (means, flips))
        for measure, its_means, p in zip(values, *by_measure, strict=True):
            for system, lower, upper in zip(systems, *_bounds(its_means), strict=True):
                intervals[system][measure] = (float(lower), float(upper))
            bounds = _bounds(_differences(its_means, column))
            of_queries = _differences(values[measure], column)
            others = [name for name in systems if name != baseline]
            comparisons += _against(measure, others, of_queries, bounds, p.tolist())
    return Statistics(baseline, seed, samples, intervals, tuple(comparisons))


def _finite_values(per_query: Mapping[str, Values], baseline: str) -> dict[str, Float64]:
    """Return (queries, systems) values of each measure that is averaged and always has a value."""
    values: dict[str, Float64] = {}
    for measure, by_query in per_query[baseline].items():
        columns = [[of_system[measure][q] for q in by_query] for of_system in per_query.values()]
        table = np.array(columns, dtype=np.float64).T
        if is_averaged(measure) and np.all(np.isfinite(table)):
            values[measure] = table
    return values


def _differences(values: Float64, column: int) -> Float64:
    """Return how far all other columns are above one."""
    differences: Float64 = np.delete(values, column, axis=1) - values[:, [column]]
    return differences


def _against(
    measure: str,
    others: Sequence[str],
    differences: Float64,
    bounds: Float64,
    randomisation: Sequence[float],
) -> Iterator[Comparison]:
    t = t_test_p(differences).tolist()
    corrected = zip(holm(randomisation), holm(t), strict=True)
    for place, (p_randomisation, p_t) in enumerate(corrected):
        of_queries = differences[:, place]
        wins, losses = int(np.sum(of_queries > _TIE)), int(np.sum(of_queries < -_TIE))
        yield Comparison(
            measure=measure,
            system=others[place],
            difference=float(of_queries.mean()),
            lower=float(bounds[0, place]),
            upper=float(bounds[1, place]),
            p_randomisation=randomisation[place],
            p_t=t[place],
            p_randomisation_holm=p_randomisation,
            p_t_holm=p_t,
            wins=wins,
            ties=len(of_queries) - wins - losses,
            losses=losses,
        )


def randomisation_p(differences: Float64, *, seed: int = 0, samples: int = SAMPLES) -> Float64:
    """Return two-sided p of the paired randomisation test, by flipping signs of differences.

    If both systems were one, either could have given either answer to a query: p is how often
    flips give a mean at least as far from 0. With few queries all flips are tried; else `samples`
    random ones, the observed among them. Source: Smucker, Allan and Carterette, CIKM 2007.

    Args:
        differences: (queries, comparisons) float64; all columns see the same flips.
        seed: of the flips.
        samples: how many flips.

    Returns:
        (comparisons,) float64, above 0 and at most 1.
    """
    queries = len(differences)
    # Sums in another order differ in their last digits, and equal ones must count as equal.
    observed = np.abs(differences.sum(axis=0)) - 1e-12 * np.abs(differences).sum(axis=0)
    if 2**queries <= samples:
        patterns = np.arange(2**queries)[:, None] >> np.arange(queries) & 1
        p: Float64 = np.mean(np.abs((2.0 * patterns - 1) @ differences) >= observed, axis=0)
        return p
    generator = np.random.default_rng(seed)
    as_far = np.ones(differences.shape[1])
    for rows in _block_sizes(samples, queries):
        signs = 2.0 * generator.integers(0, 2, size=(rows, queries), dtype=np.int8) - 1
        as_far += np.sum(np.abs(signs @ differences) >= observed, axis=0)
    return as_far / (samples + 1)


def t_test_p(differences: Float64) -> Float64:
    """Return two-sided p of the paired t-test; 1 for a single query, and where nothing differs.

    Args:
        differences: (queries, comparisons) float64.
    """
    from scipy.special import stdtr  # of the extra [eval]

    queries = len(differences)
    if queries < 2:
        return np.ones(differences.shape[1])
    mean, spread = np.abs(differences.mean(axis=0)), differences.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, mean / (spread / math.sqrt(queries)))
    return np.asarray(2 * stdtr(queries - 1, -t), dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for being several: the chance that any of them misleads stays below p.

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def resampled_means(values: Float64, *, seed: int = 0, samples: int = SAMPLES) -> Float64:
    """Return the means (samples, systems) of query sets drawn with replacement.

    Args:
        values: (queries, systems) float64; a drawn query brings the values of all systems.
        seed: of the draws.
        samples: how many sets.
    """
    queries = len(values)
    generator = np.random.default_rng(seed)
    means = []
    for rows in _block_sizes(samples, queries):
        drawn = generator.integers(0, queries, size=(rows, queries))
        drawn += queries * np.arange(rows)[:, None]  # so that one count serves all rows
        counts = np.bincount(drawn.ravel(), minlength=rows * queries).reshape(rows, queries)
        means.append(counts @ values / queries)
    return np.concatenate(means)


def _bounds(means: Float64) -> Float64:
    """Return what the middle 95 % of each column stay within, as (2, columns)."""
    outside = (1 - CONFIDENCE) / 2
    bounds: Float64 = np.quantile(means, (outside, 1 - outside), axis=0)
    return bounds


def _block_sizes(samples: int, queries: int) -> Iterator[int]:
    largest = max(1, _BLOCK // queries)
    for start in range(0, samples, largest):
        yield min(largest, samples - start)
