"""Effects and intervals against closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint

from runner.analysis.stats.effects import (
    Reach,
    cohens_dz,
    probability_of_improvement,
    time_to_target,
)
from runner.analysis.stats.intervals import (
    paired_interval,
    welch_interval,
    wilson_interval,
)
from runner.analysis.stats.values import Values

NAN, INF = float("nan"), float("inf")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spaced(mean: float, sd: float, n: int) -> Values:
    """`n` values of exactly this mean and SD."""
    values = scipy_stats.norm.ppf((np.arange(n) + 0.5) / n)
    return np.asarray(mean + sd * (values - values.mean()) / values.std(ddof=1))


# Effects


def test_dz_is_t_over_the_root_of_n() -> None:
    differences = rng().normal(0.3, 1, 9)
    expected = scipy_stats.ttest_1samp(differences, 0).statistic / 3
    assert cohens_dz(differences) == pytest.approx(expected)
    assert cohens_dz(-differences) == pytest.approx(-expected)
    assert cohens_dz(differences * 1e-200) == pytest.approx(expected)


def test_dz_without_spread_is_none() -> None:
    assert cohens_dz(np.array([0.9 - 0.8, 0.7 - 0.6, 0.3 - 0.2])) is None  # equal but for the last bits
    assert cohens_dz(np.zeros(4)) is None
    assert cohens_dz(np.array([0.5])) is None


def test_probability_of_improvement_counts_a_tie_half() -> None:
    assert probability_of_improvement(np.array([0.1, -0.2, 0.0, 0.3])) == 0.625
    assert probability_of_improvement(np.zeros(3)) == 0.5
    assert probability_of_improvement(np.array([-1.0])) == 0


def test_the_time_to_a_target_is_the_first_that_reaches_it_by_the_horizon() -> None:
    steps, values = np.array([10.0, 20, 30, 40]), np.array([0.2, 0.8, 0.5, 0.9])
    assert time_to_target(steps, values, 0.8, 40) == Reach(20, True)
    assert time_to_target(steps[::-1], values[::-1], 0.8, 40) == Reach(20, True)
    assert time_to_target(steps, values, 0.85, 40) == Reach(40, True)
    assert time_to_target(steps, values, 0.85, 39) == Reach(39, False)
    assert time_to_target(steps, values, 0.95, 40) == Reach(40, False)
    assert time_to_target(steps, -values, -0.5, 40) == Reach(10, True)


def test_what_is_no_number_never_reaches() -> None:
    steps = np.array([10.0, 20, 30])
    assert time_to_target(steps, np.array([NAN, INF, 0.9]), 0.5, 30) == Reach(30, True)
    assert time_to_target(steps, np.array([NAN, INF, 0.1]), 0.5, 30) == Reach(30, False)
    assert time_to_target(np.zeros(0), np.zeros(0), 0.5, 30) == Reach(30, False)
    for target, horizon in ((NAN, 1.0), (0.5, NAN), (0.5, 0.0), (0.5, INF)):
        with pytest.raises(ValueError, match="finite"):
            time_to_target(steps, steps, target, horizon)
    with pytest.raises(ValueError, match="finite"):
        time_to_target(np.array([NAN]), np.array([1.0]), 0.5, 1)
    with pytest.raises(ValueError, match="a value per step"):
        time_to_target(steps, steps[:2], 0.5, 1)


# Intervals


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 20), (20, 20), (1, 1)])
def test_wilson_is_that_of_statsmodels(count: int, n: int) -> None:
    low, high = proportion_confint(count, n, method="wilson")
    found = wilson_interval(count, n)
    assert found.estimate == count / n
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(("count", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_no_share_is_refused(count: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        wilson_interval(count, n)


def test_the_paired_interval_covers_the_truth_as_often_as_it_says_at_ten() -> None:
    generator = rng(7)
    intervals = [paired_interval(generator.normal(0.3, 2, 10)) for _ in range(2000)]
    covered = sum(i.low is not None and i.high is not None and i.low <= 0.3 <= i.high for i in intervals)
    assert 0.93 * 2000 <= covered <= 0.97 * 2000


def test_intervals_refuse_what_is_no_number() -> None:
    for bad in (np.zeros(0), np.array([1.0, NAN]), np.array([INF])):
        with pytest.raises(ValueError, match=r"needs 1 or more values|not finite"):
            paired_interval(bad)
        with pytest.raises(ValueError, match=r"needs 1 or more values|not finite"):
            welch_interval(np.array([1.0, 2.0]), bad)
