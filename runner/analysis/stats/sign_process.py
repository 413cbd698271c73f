"""A verdict about the median of the pairs' differences that stays valid if one looks after every pair.

For each number c there are two hypotheses: the median is c or less, and the median is c or more. Against the first, the
pairs bet that more than half of the differences lie above c: each value p of the share of such differences, from 1/2 to
1, multiplies its stake by p / ½ for a difference above c and by (1 − p) / ½ for any other one. Stakes are spread over p
as the density of Beta(½, ½), cut at 1/2. If the hypothesis is true, each factor is at most 1 on average, whatever the
pairs before. So the wealth is a non-negative supermartingale, and the chance that it ever reaches 1/α is at most α
(Ville 1939). A difference that equals c counts against the rejection, on both sides.
"""

from bisect import bisect_left
from functools import cache
from math import inf, log

import numpy as np
from scipy.special import betainc, betaln

from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.values import ALPHA, Values, finite, positive
from runner.analysis.stats.verdicts import Word

SHAPE = 0.5
"""Both parameters of the beta density."""


def log_wealth(above: int, n: int) -> float:
    """The logarithm of the wealth after n pairs, of whose differences this number lies above c.

    >>> round(log_wealth(7, 7), 3)  # the wealth is 53.6
    3.981
    """
    a, b = SHAPE + above, SHAPE + n - above
    # betainc(b, a, ½) is the share of Beta(a, b) above ½.
    return float(n * log(2) + betaln(a, b) + np.log(betainc(b, a, 0.5)) - betaln(SHAPE, SHAPE) + log(2))


@cache
def fewest(n: int, level: float) -> int | None:
    """How many of n differences must lie above c, so that "the median is c or less" is rejected at this level.

    None where even all of them are too few.

    >>> fewest(6, 0.025), fewest(7, 0.025), fewest(30, 0.025)
    (None, 7, 24)
    """
    counts = range((n + 1) // 2, n + 1)
    found = bisect_left(counts, -log(level), key=lambda above: log_wealth(above, n))
    return counts[found] if found < len(counts) else None


def median_interval(differences: Values, level: float = ALPHA) -> Interval:
    """The median, and all c that are not rejected at level/2 from below or from above.

    With one interval after each pair, all of them hold the median with probability 1 − level (a confidence sequence).
    An end is infinite where no c is rejected. Both ends are differences: a c below the k-th largest difference has k
    differences above it.
    Errors: ValueError where there is no difference, or one is not finite.

    >>> median_interval(np.array([0.03, 0.01, 0.02, 0.04, 0.02, 0.05, 0.03]))
    Interval(estimate=0.03, low=0.01, high=0.05)
    """
    ordered = np.sort(finite(differences))
    low, high = _ends(ordered, level)
    return Interval(float(np.median(ordered)), low, high)


def _ends(ordered: Values, level: float) -> tuple[float, float]:
    needed = fewest(len(ordered), level / 2)
    return (-inf, inf) if needed is None else (float(ordered[-needed]), float(ordered[needed - 1]))


def decide(differences: Values, smallest_effect: float, better: int = 1) -> Word:
    """The verdict on the median of the pairs' differences. It may be asked for after every pair.

    Whatever the median is, the chance that a wrong verdict ever comes is at most .05: a direction and a size are tested
    at .025 on each side, equivalence at .05 on each side. At a median from 0 to the smallest effect, the wrong verdicts
    are WORSE and INFERIOR, and SUPERIOR. At a larger one, they are those that reject "the smallest effect or more".
    `better` is 1 where a higher metric is better, else −1.
    Errors: ValueError where there is no difference, or one is not finite, and for an effect that is not above 0.

    >>> differences = np.array([0.03, 0.01, 0.02, 0.04, 0.02, 0.05, 0.03])
    >>> decide(differences, 0.005), decide(differences, 0.02), decide(differences, 0.1), decide(differences[:5], 0.1)
    ('SUPERIOR', 'BETTER', 'EQUIVALENT', 'UNDECIDED')
    """
    positive("the smallest effect", smallest_effect)
    # Rounding makes .04 − .035 more than .005, and a difference that equals a boundary must count as equal.
    ordered = np.sort(np.round(better * finite(differences), 12))
    low, high = _ends(ordered, ALPHA)
    equivalence_low, equivalence_high = _ends(ordered, 2 * ALPHA)
    if low > smallest_effect:
        return "SUPERIOR"
    if high < -smallest_effect:
        return "INFERIOR"
    if -smallest_effect < equivalence_low and equivalence_high < smallest_effect:
        return "EQUIVALENT"
    return "BETTER" if low > 0 else "WORSE" if high < 0 else "UNDECIDED"
