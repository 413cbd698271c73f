"""An estimate and its 95% interval.

A handful of seeds is what there is, so a mean difference has a t interval: a bootstrap of five values rejects a true
hypothesis two to three times as often as it says. The bootstrap is for aggregates over many cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import bootstrap, trim_mean
from statsmodels.stats.proportion import proportion_confint

from runner.analysis.stats.values import ALPHA, CONFIDENCE, Values, finite


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95% interval; no interval where one value says nothing about the spread."""

    estimate: float
    low: float | None = None
    high: float | None = None


def paired_interval(differences: Values) -> Interval:
    """The mean of the pairs' differences with Student's t interval (Student 1908), as `scipy.stats.ttest_rel` has it.

    Differences without any spread give an interval of zero width. Errors: ValueError for none, or one not finite.
    """
    differences = finite(differences)
    n = len(differences)
    if n == 1:
        return Interval(float(differences[0]))
    return _interval(float(differences.mean()), float(differences.var(ddof=1)) / n, n - 1)


def welch_interval(values: Values, baseline: Values) -> Interval:
    """mean(values) − mean(baseline) with Welch's t interval (Welch 1947), as `ttest_ind(equal_var=False)` has it.

    The two samples need not be paired, of one size or of one spread. Errors: ValueError for none, or one not finite.
    """
    values, baseline = finite(values), finite(baseline)
    estimate = float(values.mean() - baseline.mean())
    if min(len(values), len(baseline)) == 1:
        return Interval(estimate)
    a, b = (float(sample.var(ddof=1)) / len(sample) for sample in (values, baseline))
    if a + b == 0:
        return Interval(estimate, estimate, estimate)
    # Welch–Satterthwaite, written in shares so that tiny variances do not underflow when squared.
    share = a / (a + b)
    return _interval(estimate, a + b, 1 / (share**2 / (len(values) - 1) + (1 - share) ** 2 / (len(baseline) - 1)))


def _interval(estimate: float, variance: float, freedom: float) -> Interval:
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


def wilson_interval(count: int, n: int) -> Interval:
    """The share count/n with Wilson's score interval (Wilson 1927): never outside 0 … 1, never of zero width.

    Errors: ValueError unless 0 ≤ count ≤ n and n ≥ 1.
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"{count} of {n} is no share")
    low, high = proportion_confint(count, n, alpha=ALPHA, method="wilson")
    return Interval(count / n, float(low), float(high))


def iqm(values: Values) -> float:
    """The interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021).

    Errors: ValueError for no value, or one not finite.
    """
    return float(trim_mean(finite(values), 0.25))


def iqm_interval(cells: Sequence[Values], generator: np.random.Generator, resamples: int = 2000) -> Interval:
    """The IQM over the runs of all cells, with a percentile bootstrap that resamples runs within each cell
    (Agarwal et al. 2021), by `scipy.stats.bootstrap`. For one cell, `paired_interval` covers what this does not.

    Errors: ValueError for fewer than two cells, fewer than two runs in one, or a value not finite.
    """
    if len(cells) < 2:
        raise ValueError(f"an aggregate needs 2 or more cells, got {len(cells)}; of one, use paired_interval")
    samples = [finite(cell, at_least=2) for cell in cells]
    estimate = iqm(np.concatenate(samples))
    if all(np.ptp(sample) == 0 for sample in samples):  # resampling changes nothing; scipy warns
        return Interval(estimate, estimate, estimate)

    def statistic(*resampled: Any, axis: int = -1) -> Any:
        return trim_mean(np.concatenate(resampled, axis=axis), 0.25, axis=axis)

    found = bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=100,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=generator,
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))


def mean_band(values: Values) -> tuple[Values, Values, Values]:
    """(mean, low, high) of each column of `values` [runs, readings] with Student's t interval over its finite values.

    NaN where a column has none; of one run's, low and high are NaN.
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    filled = np.where(known, values, 0.0)
    mean = np.divide(filled.sum(axis=0), n, out=np.full(len(n), np.nan), where=n > 0)
    squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    several = n > 1
    variance = np.divide(squares, (n - 1) * n, out=np.full(len(n), np.nan), where=several)
    half = stdtrit(np.maximum(n - 1, 1), (1 + CONFIDENCE) / 2) * np.sqrt(variance)
    return mean, mean - half, mean + half
