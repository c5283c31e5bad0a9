"""Facts about statistics: worked examples, and slow or other people's references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from dupmae.errors import UsageError
from dupmae.eval.statistics import (
    compare,
    holm,
    randomisation_p,
    resampled_means,
    t_test_p,
)


def values(queries: int, systems: int, seed: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 11, size=(queries, systems)) / 10


def test_with_few_queries_all_flips_are_tried() -> None:
    # Differences 1, 2, 3: of 8 sign patterns only the two with all signs equal reach 6.
    assert randomisation_p(np.array([[1.0], [2.0], [3.0]])).tolist() == [2 / 8]
    # Differences 1, −2, 3 have the sum 2, which all but those with the sum 0 (two) reach.
    assert randomisation_p(np.array([[1.0], [-2.0], [3.0]])).tolist() == [6 / 8]


def test_all_flips_equal_a_slow_loop_and_scipys() -> None:
    drawn = values(9, 3)
    differences = drawn[:, 1:] - drawn[:, :1]
    for column, found in enumerate(randomisation_p(differences)):
        column_values = differences[:, column]
        observed = abs(sum(column_values))
        sums = [
            abs(sum(sign * value for sign, value in zip(signs, column_values, strict=True)))
            for signs in itertools.product((-1, 1), repeat=9)
        ]
        assert found == np.mean([total >= observed - 1e-9 for total in sums])
        reference = stats.permutation_test(
            (drawn[:, column + 1], drawn[:, 0]),
            lambda x, y: np.mean(x - y),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert found == pytest.approx(reference.pvalue, abs=1e-12)


def test_random_flips_come_near_to_all_flips() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1.0, size=(14, 2))
    exact = randomisation_p(differences, samples=2**14)
    assert randomisation_p(differences, samples=10_000) == pytest.approx(exact, abs=0.02)


def test_random_flips_never_give_zero_and_nothing_gives_one() -> None:
    assert randomisation_p(np.ones((300, 1)), samples=999).tolist() == [1 / 1000]
    assert randomisation_p(np.zeros((300, 1)), samples=999).tolist() == [1.0]


def test_flips_depend_on_the_seed_only() -> None:
    differences = values(60, 2) - 0.45
    assert np.array_equal(randomisation_p(differences), randomisation_p(differences))
    assert not np.array_equal(randomisation_p(differences), randomisation_p(differences, seed=1))


def test_the_t_test_equals_scipys() -> None:
    drawn = values(40, 4)
    found = t_test_p(drawn[:, 1:] - drawn[:, :1])
    for column, p in enumerate(found, start=1):
        assert p == pytest.approx(stats.ttest_rel(drawn[:, column], drawn[:, 0]).pvalue, rel=1e-12)


def test_the_t_test_at_its_limits() -> None:
    assert t_test_p(np.array([[0.0, 0.25], [0.0, 0.25]])).tolist() == [1.0, 0.0]
    assert t_test_p(np.array([[0.7]])).tolist() == [1.0]


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, and .04 raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_resampled_means_equal_a_slow_loop_over_the_same_draws() -> None:
    drawn = values(7, 2)
    generator = np.random.default_rng(5)
    slow = []
    for sample in generator.integers(0, 7, size=(50, 7)).tolist():
        rows = [drawn[query].tolist() for query in sample]
        slow.append([sum(column) / 7 for column in zip(*rows, strict=True)])
    assert resampled_means(drawn, seed=5, samples=50) == pytest.approx(np.array(slow), abs=1e-12)


def per_query(
    drawn: np.ndarray, measure: str = "nDCG@10"
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        f"s{system}": {measure: {f"q{q}": float(v) for q, v in enumerate(drawn[:, system])}}
        for system in range(drawn.shape[1])
    }


def test_intervals_equal_scipys_percentile_bootstrap() -> None:
    drawn = values(80, 2)
    found = compare(per_query(drawn), "s0")
    options = {"method": "percentile", "n_resamples": 10_000, "rng": np.random.default_rng(9)}
    of_mean = stats.bootstrap((drawn[:, 1],), np.mean, **options).confidence_interval
    assert found.intervals["s1"]["nDCG@10"] == pytest.approx(tuple(of_mean), abs=0.003)
    of_difference = stats.bootstrap((drawn[:, 1] - drawn[:, 0],), np.mean, **options)
    (comparison,) = found.comparisons
    bounds = (comparison.lower, comparison.upper)
    assert bounds == pytest.approx(tuple(of_difference.confidence_interval), abs=0.004)


def test_many_queries_take_several_blocks_and_stay_deterministic() -> None:
    drawn = values(3000, 2)
    first, second = (compare(per_query(drawn), "s0", samples=2000) for _ in range(2))
    assert first == second
    assert first != compare(per_query(drawn), "s0", seed=1, samples=2000)


def test_a_comparison_counts_wins_ties_and_losses() -> None:
    drawn = np.array([[0.5, 0.5], [0.5, 0.5 + 1e-12], [0.2, 0.4], [0.9, 0.1], [0.0, 1.0]])
    (comparison,) = compare(per_query(drawn), "s0").comparisons
    assert (comparison.wins, comparison.ties, comparison.losses) == (2, 2, 1)
    assert comparison.difference == pytest.approx((0.2 - 0.8 + 1.0) / 5)
    assert (comparison.system, comparison.measure) == ("s1", "nDCG@10")
    assert not comparison.is_significant


def test_correction_is_over_the_systems_of_a_measure() -> None:
    drawn = values(200, 3)
    drawn[:, 1] = drawn[:, 0] + 0.1 * (drawn[:, 1] - 0.3)
    found = compare(per_query(drawn), "s0")
    one, two = found.comparisons
    assert [one.p_randomisation_holm, two.p_randomisation_holm] == holm(
        [one.p_randomisation, two.p_randomisation]
    )
    assert [one.p_t_holm, two.p_t_holm] == holm([one.p_t, two.p_t])
    assert found.of("nDCG@10", "s2") is two
    assert found.of("nDCG@10", "s0") is None
    assert one.is_significant
    assert not two.is_significant


def test_measures_that_are_summed_or_missing_have_no_statistics() -> None:
    assert compare(per_query(values(9, 2), "NumRet"), "s0").comparisons == ()
    missing = values(9, 2)
    missing[3, 1] = np.nan
    assert compare(per_query(missing), "s0").intervals == {"s0": {}, "s1": {}}


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UsageError, match="no system 'bm25' to compare with; there are s0, s1"):
        compare(per_query(values(3, 2)), "bm25")
