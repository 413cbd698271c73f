"""Intervals for a mean difference: arrays in, numbers out.

A handful of seeds is what there is, so these are t intervals: a bootstrap of five values rejects a true hypothesis two
to three times as often as it says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

CONFIDENCE = 0.95

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95% interval; no interval where one value says nothing about the spread."""

    estimate: float
    low: float | None = None
    high: float | None = None


def paired_interval(differences: Values) -> Interval:
    """The mean of the pairs' differences with Student's t interval (Student 1908), as `scipy.stats.ttest_rel` has it.

    Differences without any spread give an interval of zero width. Needs one difference at least.
    """
    n = len(differences)
    if n == 1:
        return Interval(float(differences[0]))
    return _interval(float(differences.mean()), float(differences.var(ddof=1)) / n, n - 1)


def welch_interval(values: Values, baseline: Values) -> Interval:
    """mean(values) − mean(baseline) with Welch's t interval (Welch 1947), as `ttest_ind(equal_var=False)` has it.

    The two samples need not be paired, of one size or of one spread. Each needs one value at least.
    """
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
