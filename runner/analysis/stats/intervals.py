"""An estimate and its interval, at 95% unless another `level` (1 − confidence) is given.

A mean difference has a t interval, because there are only a handful of seeds. A bootstrap of five values rejects a true
hypothesis two to three times as often as it should.
"""

import math
from dataclasses import astuple, dataclass

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

from runner.analysis.stats.values import ALPHA, CONFIDENCE, Events, Values, event_arrays, finite


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval. `low` or `high` is None where the interval has no such end, as for one value."""

    estimate: float
    low: float | None = None
    high: float | None = None


def paired_interval(differences: Values, level: float = ALPHA) -> Interval:
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
    return _t_interval(mean, float(differences.var(ddof=1)) / n, n - 1, level)


def welch_interval(values: Values, baseline: Values, level: float = ALPHA) -> Interval:
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
    return _t_interval(estimate, a + b, freedom, level)


def _t_interval(estimate: float, variance: float, freedom: float, level: float) -> Interval:
    half = _t(freedom, level) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


def _t(freedom: float, level: float) -> float:
    """The quantile of Student's t that leaves `level` / 2 on each side."""
    return float(stdtrit(freedom, 1 - level / 2))


def ratio_interval(values: Values, baseline: Values, *, paired: bool = True, level: float = ALPHA) -> Interval:
    """mean(values) / mean(baseline) with Fieller's interval (Fieller 1954).

    It holds the ratios r for which a t test of mean(values − r · baseline) = 0 does not reject. `paired`: one value of
    each per pair. If not, the samples are independent, and Student's t has one degree of freedom less than the smaller
    sample. An end is None where the baseline's mean may be 0.
    Errors: ValueError for a sample without values, a value that is not finite, a baseline whose mean is not above 0,
    and pairs that are not complete.

    >>> ratio_interval([2, 2.4, 2.2], [1, 1.2, 1.1])
    Interval(estimate=2.0, low=2.0, high=2.0)
    """
    values, baseline = finite(values), finite(baseline)
    n, m = len(values), len(baseline)
    a, b = float(values.mean()), float(baseline.mean())
    if b <= 0 or (paired and n != m):
        raise ValueError("needs a baseline with a mean above 0, and complete pairs")
    if min(n, m) == 1:
        return Interval(a / b)
    if paired:
        (aa, ab), (_, bb) = np.cov(values, baseline) / n
    else:
        aa, ab, bb = values.var(ddof=1) / n, 0.0, baseline.var(ddof=1) / m
    # The ends are the roots of (a − r b)² = t² (aa − 2 r ab + r² bb).
    t2 = _t(min(n, m) - 1, level) ** 2
    square, middle, constant = b * b - t2 * bb, a * b - t2 * ab, a * a - t2 * aa
    if square <= 0:
        return Interval(a / b)
    half = math.sqrt(max(middle * middle - square * constant, 0.0)) / square
    if half < 1e-9 * abs(middle / square):  # Only rounding is left.
        half = 0.0
    return Interval(a / b, float(middle / square - half), float(middle / square + half))


def rate_interval(events: Events, baseline: Events, level: float = ALPHA) -> Interval:
    """The difference of the shares of pairs with an event, with an interval that never covers too rarely.

    `events` and `baseline` have one entry per pair. Pairs with an event in both arms or in none say nothing. The share
    of pairs with an event in only one arm has the exact interval of Clopper & Pearson (1934), at half the level for
    each arm (Bonferroni). The ends are the differences of their ends.
    Errors: ValueError where there is no pair, or the arms have different lengths.

    >>> interval = rate_interval([True] * 12, [False] * 12)
    >>> interval.estimate, round(interval.low, 2), interval.high
    (1.0, 0.39, 1.0)
    """
    arm, other = event_arrays(events, baseline)
    n = len(arm)
    (low, high), (other_low, other_high) = (
        _clopper_pearson(int(np.count_nonzero(only)), n, level / 2) for only in (arm & ~other, other & ~arm)
    )
    return Interval(float(arm.mean() - other.mean()), low - other_high, high - other_low)


def _clopper_pearson(count: int, n: int, level: float) -> tuple[float, float]:
    low = float(betaincinv(count, n - count + 1, level / 2)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - level / 2)) if count < n else 1.0
    return low, high


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


def interval_record(name: str, interval: Interval | None, prefix: str | None = None) -> dict[str, float | None]:
    """An estimate and its ends as columns of a table: `name`, `name_low` and `name_high`.

    >>> interval_record("gain", Interval(2.0, 1.0, 3.0))
    {'gain': 2.0, 'gain_low': 1.0, 'gain_high': 3.0}
    """
    before = f"{name}_" if prefix is None else prefix
    values = astuple(interval) if interval else (None, None, None)
    return dict(zip((name, f"{before}low", f"{before}high"), values, strict=True))
