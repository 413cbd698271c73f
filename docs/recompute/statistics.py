"""Intervals and tests, from scipy."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Values = NDArray[np.float64]


def t_interval(differences: Values, level: float) -> tuple[float, float]:
    """Student's interval of the mean."""
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    low, high = stats.t.interval(1 - level, len(differences) - 1, differences.mean(), stats.sem(differences))
    return float(low), float(high)


def fieller(arm: Values, baseline: Values, level: float) -> tuple[float, float]:
    """The ratios r of the means for which a t test of mean(arm − r · baseline) = 0 does not reject, minus 1.

    An end is NaN where no ratio is too far away.
    """

    def excess(ratio: float) -> float:
        left = arm - ratio * baseline
        if np.ptp(left) <= 1e-9 * np.abs(arm).max():  # All values are equal, and no t test can tell them from 0.
            return 1 - level if np.abs(left).max() <= 1e-9 * np.abs(arm).max() else -level
        return float(stats.ttest_1samp(left, 0).pvalue) - level

    middle = arm.mean() / baseline.mean()
    step = max(1e-3 * abs(middle), 1e-6)
    ends = []
    for sign in (-1, 1):
        reach = step
        while excess(middle + sign * reach) > 0 and reach < 1e6:
            reach *= 2
        end = np.nan if reach >= 1e6 else optimize.brentq(excess, middle, middle + sign * reach, xtol=1e-12)
        ends.append(end - 1)
    return ends[0], ends[1]


def rate_interval(arm: Values, baseline: Values, level: float) -> tuple[float, float]:
    """Of a difference of two shares, from Clopper and Pearson's intervals of the pairs in which only one run has it."""
    n = len(arm)
    only = [int(((arm > 0) & (baseline == 0)).sum()), int(((baseline > 0) & (arm == 0)).sum())]
    (low, high), (other_low, other_high) = (
        stats.binomtest(count, n).proportion_ci(1 - level / 2, method="exact") for count in only
    )
    return low - other_high, high - other_low


def sign_flip_p(differences: Values) -> float:
    """The share of all 2^n sign changes whose mean is at least as far from 0."""
    scaled = differences / max(np.abs(differences).max(), 1e-300)
    sums = []
    for part in (scaled[::2], scaled[1::2]):
        found = np.zeros(1)
        for value in part:
            found = np.concatenate([found - value, found + value])
        sums.append(np.sort(found))
    least = abs(scaled.sum()) - 1e-9
    if least <= 0:
        return 1.0
    above = len(sums[1]) - np.searchsorted(sums[1], least - sums[0], side="left")
    return min(1.0, 2 * float(above.sum()) / 2.0 ** len(scaled))


def mcnemar_p(arm: Values, baseline: Values) -> float:
    more, fewer = int((arm > baseline).sum()), int((baseline > arm).sum())
    return float(stats.binomtest(more, more + fewer).pvalue) if more + fewer else 1.0


def tost_p(differences: Values, margin: float) -> float:
    """Two one-sided t tests that the mean lies within ±margin."""
    if np.ptp(differences) == 0:
        return 0.0 if abs(differences[0]) < margin else 1.0
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    return float(max(below, above))


def hodges_lehmann(differences: Values) -> float:
    first, second = np.triu_indices(len(differences))
    return float(np.median((differences[first] + differences[second]) / 2))
