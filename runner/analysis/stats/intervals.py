"""An estimate and its 95% interval.

A mean difference has a t interval, because there are only a handful of seeds. A bootstrap of five values rejects a true
hypothesis two to three times as often as it should.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from runner.analysis.stats.values import ALPHA, CONFIDENCE, Values, finite


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95% interval. `low` and `high` are None where the spread is not known, as for one value."""

    estimate: float
    low: float | None = None
    high: float | None = None


def paired_interval(differences: Values) -> Interval:
    """The mean of the pairs' differences with Student's t interval (Student 1908).

    It equals the interval of `scipy.stats.ttest_rel`. Differences without spread give an interval of zero width.
    Errors: ValueError where there is no difference, or one is not finite.

    >>> paired_interval([0.25, 0.25, 0.25])
    Interval(estimate=0.25, low=0.25, high=0.25)
    """
    differences = finite(differences)
    n = len(differences)
    mean = float(differences.mean())
    if n == 1:
        return Interval(mean)
    return _t_interval(mean, float(differences.var(ddof=1)) / n, n - 1)


def welch_interval(values: Values, baseline: Values) -> Interval:
    """mean(values) − mean(baseline) with Welch's t interval (Welch 1947).

    It equals the interval of `scipy.stats.ttest_ind(equal_var=False)`. The samples may differ in size and in spread.
    Errors: ValueError where a sample has no value, or one that is not finite.

    >>> interval = welch_interval([3, 4, 5], [1, 2, 3])
    >>> interval.estimate, round(interval.low, 2), round(interval.high, 2)
    (2.0, -0.27, 4.27)
    """
    values, baseline = finite(values), finite(baseline)
    estimate = float(values.mean() - baseline.mean())
    n, m = len(values), len(baseline)
    if min(n, m) == 1:
        return Interval(estimate)
    a, b = float(values.var(ddof=1)) / n, float(baseline.var(ddof=1)) / m
    if a + b == 0:
        return Interval(estimate, estimate, estimate)
    # The Welch–Satterthwaite formula, in shares: the squares of tiny variances would be rounded to 0.
    share = a / (a + b)
    freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (m - 1))
    return _t_interval(estimate, a + b, freedom)


def _t_interval(estimate: float, variance: float, freedom: float) -> Interval:
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


def wilson_interval(count: int, n: int) -> Interval:
    """The share count/n with Wilson's score interval (Wilson 1927). It stays within 0 … 1 and never has zero width.

    (statsmodels' `proportion_confint` gives the same, but takes half a second to import. Every comparison has shares.)
    Errors: ValueError unless 0 ≤ count ≤ n and n ≥ 1.

    >>> interval = wilson_interval(0, 10)
    >>> interval.estimate, round(interval.high, 3)
    (0.0, 0.278)
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} is not a share")
    share, z2 = count / n, float(ndtri(1 - ALPHA / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2) / (1 + z2 / n)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def mean_band(values: Values) -> tuple[Values, Values, Values]:
    """(mean, low, high) of each column of `values` [runs, readings]: Student's t interval over its finite values.

    All three are NaN where a column has no finite value. `low` and `high` are NaN where it has one.
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    nothing = np.full(len(n), np.nan)
    sums = np.where(known, values, 0.0).sum(axis=0)
    mean = np.divide(sums, n, out=nothing.copy(), where=n > 0)
    squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    variance = np.divide(squares, (n - 1) * n, out=nothing, where=n > 1)
    half = stdtrit(np.maximum(n - 1, 1), (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    return mean, mean - half, mean + half
