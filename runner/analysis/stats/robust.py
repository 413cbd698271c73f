"""Estimates that a few extreme pairs cannot move, and runs that collapsed.

The mean of the differences says what happens on average over all runs. Rare collapses dominate it, and its t interval
then covers far too rarely. The estimates here say what happens in most pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from runner.analysis.stats.intervals import Interval, interval_record, paired_interval, wilson_interval
from runner.analysis.stats.significance import mcnemar_p
from runner.analysis.stats.values import ALPHA, Values, finite

TRIM = 0.2

COLLAPSE = 10.0
"""A normal distribution has a value so many SDs from its median once in 10²³ cases."""

BULK = 6
"""With fewer runs, the SD of the bulk is too uncertain to say that a run collapsed."""

LISTED = 1_000
"""Up to this number of pairs, the means of two differences are listed."""

EXACT = 50
"""Up to this number of pairs, the distribution of the signed-rank statistic is counted."""


def hodges_lehmann(differences: Values, level: float = ALPHA) -> Interval:
    """The median of all means of two differences, with the interval of Wilcoxon's signed-rank test.

    (Hodges & Lehmann 1963; the interval: Hollander, Wolfe & Chicken 2014, chapter 3.) It is exact up to 50 pairs
    where the differences are symmetric. There are no ends where so few pairs can never reject.
    Errors: ValueError where there is no difference, or one is not finite.

    >>> hodges_lehmann([1, 2, 3, 4, 5, 60])
    Interval(estimate=3.5, low=1.0, high=60.0)
    """
    ordered = np.sort(finite(differences))
    n = len(ordered)
    count = n * (n + 1) // 2
    cut = _signed_rank_quantile(n, level / 2)
    middle = ((count - 1) // 2, count // 2)
    ranks = [*middle, *([] if cut is None else (cut, count - 1 - cut))]
    one, two, *ends = _means_of_two(ordered, ranks)
    return Interval((one + two) / 2, *ends)


def _means_of_two(ordered: Values, ranks: Sequence[int]) -> list[float]:
    """The means of two values with these ranks (from 0) among all n (n + 1) / 2 of them."""
    n = len(ordered)
    if n <= LISTED:
        one, two = np.triu_indices(n)
        means = np.sort((ordered[one] + ordered[two]) / 2)
        return [float(means[rank]) for rank in ranks]

    # A list would not fit into memory, so each mean is found by halving the range.
    return [_mean_of_two(ordered, rank) for rank in ranks]


def _mean_of_two(ordered: Values, rank: int) -> float:
    low, high = float(ordered[0]), float(ordered[-1])
    while low < (middle := (low + high) / 2) < high:
        pairs = int(np.searchsorted(ordered, 2 * middle - ordered, side="right").sum())
        # `pairs` has each mean of two twice, and each single value once.
        not_above = (pairs + int(np.searchsorted(ordered, middle, side="right"))) // 2
        low, high = (low, middle) if not_above > rank else (middle, high)
    return high


def _signed_rank_quantile(n: int, level: float) -> int | None:
    """The largest c with P(W ≤ c) ≤ level, where W is the sum of the positive ranks; None if there is none."""
    if n > EXACT:
        mean, variance = n * (n + 1) / 4, n * (n + 1) * (2 * n + 1) / 24
        return int(np.floor(mean - 0.5 + float(ndtri(level)) * np.sqrt(variance)))
    chances = np.ones(1)
    for rank in range(1, n + 1):
        without, with_rank = np.pad(chances, (0, rank)), np.pad(chances, (rank, 0))
        chances = (without + with_rank) / 2
    below = int(np.searchsorted(np.cumsum(chances), level, side="right"))
    return below - 1 if below else None


def trimmed_mean(differences: Values, level: float = ALPHA) -> Interval:
    """The mean without the lowest and the highest 20%, with its t interval (Tukey & McLaughlin 1963).

    Yuen (1974) compares two samples in the same way, as `scipy.stats.ttest_ind(trim=0.2)` does.
    Errors: ValueError where there is no difference, or one is not finite.

    >>> trimmed_mean([1, 2, 3, 4, 50]).estimate
    3.0
    """
    ordered = np.sort(finite(differences))
    cut = int(TRIM * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    h, mean = len(kept), float(kept.mean())
    if h < 2:
        return Interval(mean)
    winsorized = np.clip(ordered, kept[0], kept[-1])
    variance = float(((winsorized - winsorized.mean()) ** 2).sum()) / (h * (h - 1))
    half = float(stdtrit(h - 1, 1 - level / 2)) * np.sqrt(variance)
    return Interval(mean, float(mean - half), float(mean + half))


def collapsed(values: Values, better: int) -> NDArray[np.bool_]:
    """Which runs of an arm collapsed: those worse than the arm's median by more than 10 SDs of its bulk.

    The SD of the bulk is 1.4826 times the median distance from the median. Where it is 0, and with fewer than six runs,
    no run is said to collapse.
    `better`: 1 where a higher value is better, else −1.

    >>> collapsed([0.97, 0.98, 0.97, 0.11, 0.96, 0.98], better=1).tolist()
    [False, False, False, True, False, False]
    """
    values = finite(values)
    middle = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.asarray((middle - values) * better > COLLAPSE * spread) & (spread > 0) & (len(values) >= BULK)


@dataclass(frozen=True)
class Robust:
    """What holds for most pairs, beside the mean over all."""

    mean: Interval
    hodges_lehmann: Interval
    trimmed_mean: Interval
    collapsed: Interval
    """The share of the arm's runs that collapsed, with Wilson's interval."""
    collapsed_baseline: Interval
    collapse_p: float
    """McNemar's exact test of equal shares."""
    without_collapse: Interval | None
    """The mean difference of the pairs without a collapsed run; None where no pair is left, or nothing collapsed."""
    disagrees: bool
    """Whether the mean lies outside the interval of one of these three estimates."""
    rest: Values = field(compare=False, repr=False)
    """The differences of the pairs without a collapsed run."""


def robust(values: Values, baseline: Values, better: int) -> Robust:
    """Robust estimates of the difference of pairs. `values` and `baseline` have one entry per pair.

    Errors: ValueError where there is no pair, or a value is not finite.
    """
    values, baseline = finite(values), finite(baseline)
    differences, n = values - baseline, len(values)
    arm, other = collapsed(values, better), collapsed(baseline, better)
    rest = differences[~(arm | other)]
    mean = paired_interval(differences)
    medians, trimmed = hodges_lehmann(differences), trimmed_mean(differences)
    without = paired_interval(rest) if 0 < len(rest) < n else None
    return Robust(
        mean,
        medians,
        trimmed,
        wilson_interval(int(arm.sum()), n),
        wilson_interval(int(other.sum()), n),
        mcnemar_p(arm, other),
        without,
        any(_outside(mean.estimate, interval) for interval in (medians, trimmed, without)),
        rest,
    )


def _outside(value: float, interval: Interval | None) -> bool:
    if interval is None or interval.low is None or interval.high is None:
        return False
    rounding = 1e-9 * max(abs(value), abs(interval.low), abs(interval.high))
    return not interval.low - rounding <= value <= interval.high + rounding


def robust_record(found: Robust | None) -> dict[str, float | None]:
    """The estimates as columns of a table, all None where there are none."""
    return {
        **interval_record("hodges_lehmann", found.hodges_lehmann if found else None),
        **interval_record("trimmed_mean", found.trimmed_mean if found else None),
        **interval_record("collapsed_share", found.collapsed if found else None),
        **interval_record("baseline_collapsed_share", found.collapsed_baseline if found else None),
        "collapsed_p": found.collapse_p if found else None,
        **interval_record("without_collapse", found.without_collapse if found else None),
    }
