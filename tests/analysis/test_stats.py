"""Intervals against scipy's tests and closed forms."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from runner.analysis.stats.intervals import Interval, paired_interval, welch_interval


def samples(n: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng(n * 100 + m)
    return generator.normal(0.92, 0.01, n), generator.normal(0.90, 0.03, m)


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_paired_interval_is_scipys(n: int) -> None:
    a, b = samples(n, n)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    interval = paired_interval(a - b)
    assert interval.estimate == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert interval.low == pytest.approx(expected.low)
    assert interval.high == pytest.approx(expected.high)


def test_paired_interval_of_three_by_hand() -> None:
    # mean 2, SD 1, t(0.975, 2) = 4.302653: 2 ± 4.302653 / √3
    interval = paired_interval(np.array([1.0, 2.0, 3.0]))
    assert interval.estimate == 2
    assert interval.low == pytest.approx(2 - 4.302652729911275 / math.sqrt(3))
    assert interval.high == pytest.approx(2 + 4.302652729911275 / math.sqrt(3))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 10), (10, 3), (20, 20)])
def test_welch_interval_is_scipys(n: int, m: int) -> None:
    a, b = samples(n, m)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    interval = welch_interval(a, b)
    assert interval.estimate == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert interval.low == pytest.approx(expected.low)
    assert interval.high == pytest.approx(expected.high)


def test_welch_interval_survives_tiny_variances() -> None:
    a, b = (sample * 1e-120 for sample in samples(5, 6))
    scaled = welch_interval(*samples(5, 6))
    interval = welch_interval(a, b)
    assert scaled.high is not None
    assert interval.high == pytest.approx(scaled.high * 1e-120)


def test_one_value_has_no_interval() -> None:
    one, three = np.array([0.5]), np.array([0.125, 0.25, 0.375])
    assert paired_interval(one) == Interval(0.5, None, None)
    assert welch_interval(one, three) == Interval(0.25, None, None)
    assert welch_interval(three, one) == Interval(-0.25, None, None)


def test_no_spread_is_an_interval_of_no_width() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paired_interval(np.array([0.25, 0.25, 0.25])) == Interval(0.25, 0.25, 0.25)
        assert welch_interval(np.array([0.5, 0.5]), np.array([0.25, 0.25])) == Interval(0.25, 0.25, 0.25)


def test_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    # 95% of 2,000 is 1,900, SD 9.75: four SDs either side.
    generator = np.random.default_rng(1)
    intervals = [paired_interval(generator.normal(1, 2, 5)) for _ in range(2000)]
    covered = sum(i.low is not None and i.high is not None and i.low <= 1 <= i.high for i in intervals)
    assert 1861 <= covered <= 1939
