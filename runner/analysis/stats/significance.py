"""p-values, two-sided, and their adjustment for being many.

None of them warns: where there is no spread the answer is the limit, and what has no answer is a ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, levene, ttest_ind_from_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from runner.analysis.stats.values import Values, finite, positive, spread

EXACT = 30
"""Up to how many pairs every one of the 2^n sign flips is counted."""

FLIPS = 9_999


def sign_flip_p(differences: Values, generator: np.random.Generator) -> float:
    """The p of the sign-flip permutation test that the differences are symmetric about 0 (Fisher 1935).

    What `scipy.stats.permutation_test(permutation_type="samples")` computes, for the mean; exact up to 30 pairs, where
    scipy draws above 13, and 100 times as fast, for a table has hundreds of rows. scipy's ties are those within
    rounding of the mean observed, so that a mean of 0 need not have p = 1; here rounding is that of the differences.
    Above 30 pairs `generator` draws 9,999 flips, and the observed one counts as one more (Phipson & Smyth 2010).

    n pairs cannot give less than 2/2^n: five never reject at .05. Errors: ValueError for none, or one not finite.
    """
    differences = finite(differences)
    scale = np.abs(differences).max()
    if scale == 0:
        return 1.0
    differences = differences / scale
    total = abs(float(differences.sum())) - 1e-12 * len(differences)  # no less, but for rounding
    if total <= 0:
        return 1.0
    if len(differences) <= EXACT:
        return min(1.0, 2 * _flips_above(differences, total) / 2.0 ** len(differences))
    sums = _drawn_sums(differences, generator)
    return float((np.count_nonzero(np.abs(sums) >= total) + 1) / (FLIPS + 1))


def _flips_above(differences: Values, total: float) -> int:
    """How many of the 2^n sums of ±differences are `total` or more: those of one half looked up among the other's."""
    half = len(differences) // 2
    some, others = _sums(differences[:half]), np.sort(_sums(differences[half:]))
    return int((len(others) - np.searchsorted(others, total - some)).sum())


def _sums(differences: Values) -> Values:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums - difference, sums + difference])
    return sums


def _drawn_sums(differences: Values, generator: np.random.Generator) -> Values:
    """Sums of ±differences under random signs: a byte is the signs of eight, whose 256 sums are looked up."""
    eights = np.pad(differences, (0, -len(differences) % 8)).reshape(-1, 8)
    signs = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) * 2.0 - 1
    drawn = generator.integers(0, 256, (len(eights), FLIPS), dtype=np.uint8)
    sums: Values = np.take_along_axis(eights @ signs.T, drawn.astype(np.intp), axis=1).sum(axis=0)
    return sums


def welch_p(values: Values, baseline: Values) -> float:
    """Welch's t test of equal means (Welch 1947), for runs that are not paired. Samples without spread: p is 1 or 0.

    Errors: ValueError for fewer than two values in either, or one not finite.
    """
    values, baseline = finite(values, at_least=2), finite(baseline, at_least=2)
    a, b = spread(values), spread(baseline)
    if a == b == 0:
        return 1.0 if np.isclose(values.mean(), baseline.mean(), rtol=1e-9, atol=0) else 0.0
    # Not ttest_ind, which warns of a sample without spread.
    means = float(values.mean()), float(baseline.mean())
    return float(ttest_ind_from_stats(means[0], a, len(values), means[1], b, len(baseline), equal_var=False).pvalue)


def equivalence_p(differences: Values, margin: float) -> float:
    """The p of two one-sided t tests that the mean difference lies within ±margin (TOST; Schuirmann 1987), by
    `statsmodels.stats.weightstats.ttost_paired`. Differences without spread: p is 0 inside the margin, else 1.

    Errors: ValueError for fewer than two differences, one not finite, or a margin that is not above 0.
    """
    differences, margin = finite(differences, at_least=2), positive("the margin", margin)
    if spread(differences) == 0:
        return 0.0 if abs(float(differences.mean())) < margin else 1.0
    return float(ttost_paired(differences, np.zeros(len(differences)), -margin, margin)[0])


def mcnemar_p(events: Sequence[bool] | NDArray[np.bool_], baseline: Sequence[bool] | NDArray[np.bool_]) -> float:
    """McNemar's exact test (McNemar 1947) that an event, such as divergence, is as frequent in both arms; by pairs.

    Errors: ValueError for no pair, or arms of different length.
    """
    ours, theirs = np.asarray(events, dtype=bool), np.asarray(baseline, dtype=bool)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"needs one pair or more, got {ours.shape} and {theirs.shape}")
    table = [[np.count_nonzero((ours == a) & (theirs == b)) for b in (True, False)] for a in (True, False)]
    return float(mcnemar(table, exact=True).pvalue)


def levene_p(*samples: Values) -> float:
    """The test of equal spread about the median (Levene 1960; Brown & Forsythe 1974), by `scipy.stats.levene`.

    Errors: ValueError for fewer than two samples, for a sample of fewer than three (both values of two lie equally far
    from their median, whatever the spread), or a value not finite.
    """
    if len(samples) < 2:
        raise ValueError(f"needs 2 or more samples, got {len(samples)}")
    checked = [finite(sample, at_least=3) for sample in samples]
    deviations = [np.abs(sample - np.median(sample)) for sample in checked]
    if all(spread(deviation) == 0 for deviation in deviations):  # scipy divides by their spread
        return 1.0 if spread(np.array([deviation.mean() for deviation in deviations])) == 0 else 0.0
    return float(levene(*checked, center="median").pvalue)


def holm(p: Values) -> Values:
    """p-values adjusted so that the chance of any false rejection stays (Holm 1979): over claims fixed beforehand.

    Errors: ValueError for a p that is not one. None in, none out.
    """
    return np.asarray(multipletests(_p_values(p), method="holm")[1]) if len(p) else np.zeros(0)


def benjamini_hochberg(p: Values) -> Values:
    """p-values adjusted so that the expected share of false rejections stays (Benjamini & Hochberg 1995): exploration.

    Errors: ValueError for a p that is not one. None in, none out.
    """
    return np.asarray(false_discovery_control(_p_values(p))) if len(p) else np.zeros(0)


def _p_values(p: Values) -> Values:
    p = finite(p)
    if p.min() < 0 or p.max() > 1:
        raise ValueError("a p-value lies between 0 and 1")
    return p
