"""The verdict on an effect whose size was fixed beforehand, and the number of pairs that a verdict needs."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scipy.special import gammaincinv, nctdtr, stdtrit

from runner.analysis.stats.estimates import Estimate, MeanDifference, MedianDifference
from runner.analysis.stats.robust import Robust
from runner.analysis.stats.values import ALPHA, Values, finite, positive, spread

POWER = 0.8

MOST = 100_000
"""Nobody plans more seeds than this."""

Word = Literal["SUPERIOR", "BETTER", "EQUIVALENT", "WORSE", "INFERIOR", "UNDECIDED"]

Verdict = Word | Literal["WITHHELD"]


def decide(estimate: Estimate, smallest_effect: float, better: int, tests: int = 1) -> Word:
    """What is shown about an effect, by tests against −δ, 0 and δ, where δ is the smallest effect of interest.

    SUPERIOR: better by δ or more. BETTER: better; the size is open. EQUIVALENT: within ±δ. WORSE: worse; the size is
    open. INFERIOR: worse by δ or more. UNDECIDED: nothing is shown.

    The direction is shown where p · `tests` is below .05, and the size where the interval at level .05 / `tests` lies
    beyond δ. EQUIVALENT is two one-sided tests (TOST; Schuirmann 1987): the interval at twice that level lies within
    ±δ. So at each true effect a wrong word comes in at most 5% of the cases (three-sided testing: Goeman, Solari &
    Stijnen 2010). `tests` is the number of effects that are judged together; each p is multiplied by it (Bonferroni).
    Holm's smaller factors would be wrong here: however many effects are decided, each of them still has a wrong word
    (Shaffer 1986).
    `better`: 1 where a higher value is better, else −1.
    Errors: ValueError for an effect that is not above 0, another sign, and fewer than one test.

    >>> import numpy as np
    >>> from runner.analysis.stats.estimates import MeanDifference
    >>> differences = np.array([0.02, 0.03, 0.02, 0.03, 0.02, 0.03])
    >>> decide(MeanDifference(differences), 0.01, better=1), decide(MeanDifference(differences), 0.1, better=1)
    ('SUPERIOR', 'EQUIVALENT')
    """
    positive("the smallest effect", smallest_effect)
    if better not in (1, -1) or tests < 1:
        raise ValueError(f"needs a sign of 1 or -1 and one test or more, got {better} and {tests}")
    wide, narrow = estimate.interval(ALPHA / tests), estimate.interval(2 * ALPHA / tests)
    if narrow.low is None or narrow.high is None or estimate.p is None:
        return "UNDECIDED"
    # Rounding must not decide: in floats, .105 − .1 is less than .005, and .605 − .6 is more.
    rounding = 1e-9 * smallest_effect
    # A few pairs that are all equal have an interval without width, which is no evidence.
    known = narrow.low < narrow.high or estimate.pairs >= fewest_pairs(tests)
    if known and -smallest_effect + rounding < narrow.low and narrow.high < smallest_effect - rounding:
        return "EQUIVALENT"
    if estimate.p * tests >= ALPHA:
        return "UNDECIDED"
    above = wide.low is not None and wide.low > smallest_effect + rounding
    below = wide.high is not None and wide.high < -smallest_effect - rounding
    if (estimate.interval().estimate > 0) == (better > 0):
        return "SUPERIOR" if above or below else "BETTER"
    return "INFERIOR" if above or below else "WORSE"


def judge(effect: MeanDifference, robust: Robust, smallest_effect: float, better: int, tests: int = 1) -> Verdict:
    """The verdict on a mean difference. It is WITHHELD where a few extreme pairs decide what the mean says.

    This is so where the mean lies outside the interval of a robust estimate, and the pairs' median difference
    (Hodges–Lehmann) or the pairs without a collapsed run would give another verdict. The other arguments are those of
    `decide`.
    """
    word = decide(effect, smallest_effect, better, tests)
    if not robust.disagrees:
        return word
    parts: list[Estimate] = [MedianDifference(effect.differences)]
    if len(robust.rest):
        parts.append(MeanDifference(robust.rest))
    agreed = all(decide(part, smallest_effect, better, tests) == word for part in parts)
    return word if agreed else "WITHHELD"


def fewest_pairs(tests: int = 1) -> int:
    """The smallest number of pairs with which a sign-flip test can give p · `tests` < .05.

    >>> fewest_pairs(), fewest_pairs(tests=10)
    (6, 9)
    """
    # The smallest p of n pairs is 2 / 2ⁿ.
    return math.floor(math.log2(2 * tests / ALPHA)) + 1


@dataclass(frozen=True)
class Needed:
    """How many pairs would give a verdict. `low` and `high`: the number at the ends of the SD's 80% interval.

    None means more than 100,000.
    """

    seeds: int | None
    low: int | None
    high: int | None


def seeds_needed(differences: Values, smallest_effect: float, tests: int = 1, *, equivalence: bool = False) -> Needed:
    """The number of pairs that gives a verdict with 80% power, if the observed mean is the true one.

    The verdict is that of `decide`: a direction, or EQUIVALENT; the smaller number of the two is taken. With
    `equivalence`, a direction alone does not count: the effect must be shown to be smaller than the smallest effect, or
    larger, whatever the observed mean says. The SD of a few pairs is uncertain itself, so the numbers for the ends of
    its 80% interval (chi-squared) are given, too. The power is that of t tests. It is never below `fewest_pairs`.
    Errors: ValueError for fewer than two differences, one that is not finite, and an effect that is not above 0.

    >>> seeds_needed([0.3, -0.1, 0.4, 0.0, 0.2, 0.1], smallest_effect=0.5)
    Needed(seeds=6, low=6, high=8)
    >>> differences = [0.3, 0.5, 0.4, 0.35, 0.45, 0.4]
    >>> seeds_needed(differences, 0.42).seeds, seeds_needed(differences, 0.42, equivalence=True).seeds
    (6, 79)
    """
    differences = finite(differences, at_least=2)
    positive("the smallest effect", smallest_effect)
    mean, sd, freedom = abs(float(differences.mean())), spread(differences), len(differences) - 1
    # The ends of the interval of the SD: sd · √(freedom / χ²).
    low, high = (sd * math.sqrt(freedom / (2 * float(gammaincinv(freedom / 2, share)))) for share in (0.9, 0.1))
    return Needed(*(_pairs(mean, value, smallest_effect, tests, equivalence) for value in (sd, low, high)))


def _pairs(mean: float, sd: float, smallest_effect: float, tests: int, equivalence: bool) -> int | None:
    if not sd:
        return fewest_pairs(tests)
    shown = max(0.0, mean - smallest_effect) if equivalence else mean
    direction = _fewest(lambda n: power(shown / sd, n, ALPHA / tests / 2), tests)
    if mean >= smallest_effect:
        return direction
    # Both of the one-sided tests have to reject.
    distances = [(smallest_effect - mean) / sd, (smallest_effect + mean) / sd]
    within = _fewest(lambda n: sum(power(distance, n, ALPHA / tests) for distance in distances) - 1, tests)
    return min((n for n in (direction, within) if n is not None), default=None)


def power(effect: float, n: int, alpha: float) -> float:
    """The chance that a one-sided paired t test of `n` pairs at `alpha` finds an effect of `effect` SDs.

    It is that of statsmodels' `TTestPower`, which takes half a second to import.
    Errors: ValueError for an effect that is below 0 or NaN, and for fewer than two pairs.
    """
    if not effect >= 0 or n < 2:
        raise ValueError(f"needs an effect of 0 or more and 2 or more pairs, got {effect} and {n}")
    shift = effect * math.sqrt(n)
    missed = float(nctdtr(n - 1, shift, stdtrit(n - 1, 1 - alpha)))
    return 1.0 if math.isnan(missed) else 1 - missed  # scipy gives NaN for some large shifts, where the power is 1.


def _fewest(power_of: Callable[[int], float], tests: int) -> int | None:
    """The smallest number of pairs with a power of .8. The power grows with the number of pairs."""
    if power_of(MOST) < POWER:
        return None
    fewest = fewest_pairs(tests)
    return fewest + bisect_left(range(fewest, MOST), True, key=lambda n: power_of(n) >= POWER)
