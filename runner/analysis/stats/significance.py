"""Two-sided p-values, and their adjustment where there are many.

No function here warns. Without spread, p is its limit, 0 or 1. Where p cannot be computed, a ValueError is raised.
"""

from collections.abc import Callable, Sequence

import numpy as np

from runner.analysis.stats.values import Events, Values, event_arrays, finite, positive, spread

EXACT = 30
"""Up to this number of pairs, all 2^n sign flips are counted."""

FLIPS = 9_999
"""The number of flips that are drawn for more pairs."""

BLOCK = 4_096
"""So many eights of differences are drawn and summed at a time, which takes 50 MB. It is a multiple of 4: numpy takes
four bytes from each random number, so blocks have the same signs as one draw."""


def sign_flip_p(differences: Values, generator: np.random.Generator) -> float:
    """The p of the sign-flip permutation test that the differences are symmetric about 0 (Fisher 1935).

    This is `scipy.stats.permutation_test(permutation_type="samples")` of the mean, but about 100 times as fast, and
    exact up to 30 pairs (scipy: 13). scipy counts sums as ties that lie within rounding of the observed mean, so a mean
    of 0 may get a p below 1; here the tolerance comes from the differences. Above 30 pairs `generator` draws 9,999
    flips, and the observed one counts as one more (Phipson & Smyth 2010). p is at least 2/2^n for n pairs, so five
    pairs never reject at .05.
    Errors: ValueError where there is no difference, or one is not finite.

    >>> sign_flip_p([0.01, 0.02, 0.01, 0.03, 0.02, 0.01], np.random.default_rng(0))
    0.03125
    """
    differences = finite(differences)
    scale = np.abs(differences).max()
    if scale == 0:
        return 1.0
    differences = differences / scale
    # Sums that are smaller only by rounding count as ties.
    total = abs(float(differences.sum())) - 1e-12 * len(differences)
    if total <= 0:
        return 1.0
    if len(differences) <= EXACT:
        return min(1.0, 2 * _flips_above(differences, total) / 2.0 ** len(differences))
    sums = _drawn_sums(differences, generator)
    return float((np.count_nonzero(np.abs(sums) >= total) + 1) / (FLIPS + 1))


def _flips_above(differences: Values, total: float) -> int:
    """How many of the 2^n sums of ±differences are `total` or more.

    The differences are cut into halves. Each sum of one half is looked up among the sorted sums of the other.
    """
    half = len(differences) // 2
    left, right = _sums(differences[:half]), np.sort(_sums(differences[half:]))
    return int((len(right) - np.searchsorted(right, total - left)).sum())


def _sums(differences: Values) -> Values:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums - difference, sums + difference])
    return sums


def _drawn_sums(differences: Values, generator: np.random.Generator) -> Values:
    """Sums of ±differences under random signs. One byte holds the signs of eight differences: 256 possible sums."""
    eights = np.pad(differences, (0, -len(differences) % 8)).reshape(-1, 8)
    signs = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * 2.0 - 1
    sums = np.zeros(FLIPS)
    for start in range(0, len(eights), BLOCK):
        possible = eights[start : start + BLOCK] @ signs.T
        drawn = generator.integers(0, 256, (len(possible), FLIPS), dtype=np.uint8)
        for of_eight, bytes_of_flips in zip(possible, drawn, strict=True):
            sums += of_eight[bytes_of_flips]
    return sums


def welch_p(values: Values, baseline: Values) -> float:
    """The p of Welch's t test of equal means (Welch 1947), for runs that are not paired.

    p is 1 or 0 where both samples are without spread.
    Errors: ValueError where a sample has fewer than two values, or one that is not finite.
    """
    from scipy.stats import ttest_ind_from_stats

    values, baseline = finite(values, at_least=2), finite(baseline, at_least=2)
    a, b = spread(values), spread(baseline)
    mean, other = float(values.mean()), float(baseline.mean())
    if a == b == 0:
        return 1.0 if np.isclose(mean, other, rtol=1e-9, atol=0) else 0.0
    # ttest_ind would warn about a sample without spread.
    test = ttest_ind_from_stats(mean, a, len(values), other, b, len(baseline), equal_var=False)
    return float(test.pvalue)


def equivalence_p(differences: Values, margin: float) -> float:
    """The p of two one-sided t tests (TOST; Schuirmann 1987) that the mean difference lies within ±margin.

    It is computed by `statsmodels.stats.weightstats.ttost_paired`. Without spread, p is 0 inside the margin, else 1.
    Errors: ValueError for fewer than two differences, for one that is not finite, and for a margin that is not above 0.

    >>> equivalence_p([0.001, -0.001, 0.002, -0.002], margin=0.01) < 0.05
    True
    """
    from statsmodels.stats.weightstats import ttost_paired

    differences, margin = finite(differences, at_least=2), positive("the margin", margin)
    if spread(differences) == 0:
        return 0.0 if abs(float(differences.mean())) < margin else 1.0
    return float(ttost_paired(differences, np.zeros(len(differences)), -margin, margin)[0])


def mcnemar_p(events: Events, baseline: Events) -> float:
    """The p of McNemar's exact test (McNemar 1947) that an event, such as divergence, is equally frequent in both arms.

    `events` and `baseline` have one entry per pair.
    Errors: ValueError where there is no pair, or the arms have different lengths.

    >>> mcnemar_p([True] * 6, [False] * 6)
    0.03125
    """
    from statsmodels.stats.contingency_tables import mcnemar

    arm, other = event_arrays(events, baseline)
    table = [[np.count_nonzero((arm == a) & (other == b)) for b in (True, False)] for a in (True, False)]
    return float(mcnemar(table, exact=True).pvalue)


def benjamini_hochberg(p: Values) -> Values:
    """p-values adjusted by Benjamini & Hochberg (1995), for exploration.

    They bound the expected share of false rejections.
    Errors: ValueError for a value that is not a probability.

    >>> benjamini_hochberg(np.array([0.01, 0.25]))
    array([0.02, 0.25])
    """
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(_probabilities(p)))


def adjusted(p: Sequence[float | None], adjust: Callable[[Values], Values]) -> list[float | None]:
    """p-values adjusted by `adjust`. None stands for a test that was not made, and stays None."""
    known = [value for value in p if value is not None]
    # One p-value stays as it is. (scipy.stats takes half a second to import.)
    values = iter(adjust(np.array(known)).tolist() if len(known) > 1 else known)
    return [None if value is None else next(values) for value in p]


def _probabilities(p: Values) -> Values:
    p = finite(p, at_least=0)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("a p-value lies between 0 and 1")
    return p
