"""The verdict on an effect whose size was fixed beforehand, and the number of pairs that a verdict needs."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from runner.analysis.stats.significance import equivalence_p
from runner.analysis.stats.values import ALPHA, Values, finite, positive, spread

POWER = 0.8

FEWEST = 6
"""A sign-flip test of fewer pairs cannot give p < .05."""

MOST = 100_000
"""Nobody plans more seeds than this."""


def power(effect: float, n: int, alpha: float = ALPHA / 2) -> float:
    """The chance that a one-sided paired t test of `n` pairs at `alpha` finds an effect of `effect` SDs.

    By default this is a two-sided test at .05 that also finds the right sign. It is computed by statsmodels'
    `TTestPower` with one side, because its two-sided power is NaN from about 6 SDs on.
    Errors: ValueError for an effect that is below 0 or NaN, and for fewer than two pairs.
    """
    from statsmodels.stats.power import TTestPower

    if not effect >= 0 or n < 2:
        raise ValueError(f"needs an effect of 0 or more and 2 or more pairs, got {effect} and {n}")
    # Above 1,000 SDs statsmodels gives NaN, and the power is 1.
    return float(TTestPower().power(min(effect, 1e3), n, alpha, alternative="larger"))


def seeds_needed(smallest_effect: float, sd: float) -> int | None:
    """The number of pairs that finds an effect with 80% power. `sd` is that of the pairs' differences.

    It is never below 6, because fewer pairs cannot reject. None means above 100,000.
    Errors: ValueError for an effect that is not above 0, for an SD below 0, and where either is not finite.

    >>> seeds_needed(0.01, sd=0.01)
    10
    """
    positive("the smallest effect", smallest_effect)
    if not 0 <= sd < float("inf"):
        raise ValueError(f"the SD must be 0 or more and finite, got {sd}")
    effect = smallest_effect / sd if sd else float("inf")
    return _fewest(lambda n: power(effect, n))


def _fewest(power_of: Callable[[int], float]) -> int | None:
    """The smallest number of pairs with a power of .8. The power grows with the number of pairs."""
    if power_of(MOST) < POWER:
        return None
    return FEWEST + bisect_left(range(FEWEST, MOST), True, key=lambda n: power_of(n) >= POWER)


Word = Literal["SUPPORTED", "REFUTED", "EQUIVALENT", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Verdict:
    """One word. `seeds` is how many seeds would settle an INCONCLUSIVE verdict, or None where that is not known."""

    word: Word
    seeds: int | None = None


def verdict(differences: Values, smallest_effect: float, sign: int, adjusted_p: float) -> Verdict:
    """Judge the pairs' differences by a smallest effect of interest that was fixed beforehand.

    SUPPORTED: adjusted p < .05, and the mean has the claimed `sign` (1 or −1) and at least the size of that effect.
    REFUTED: the same with the opposite sign. EQUIVALENT: within ± that effect, by TOST at .05. INCONCLUSIVE: none of
    these; then `seeds` is the number that finds the smallest effect with 80% power. If there are as many seeds already,
    it is the number that would tell the observed difference from the margin.
    Errors: ValueError for no difference, one that is not finite, an effect that is not above 0, another sign, and a p
    that is not a probability.

    >>> verdict([0.02, 0.03, 0.02, 0.03, 0.02, 0.03], smallest_effect=0.01, sign=1, adjusted_p=0.03125)
    Verdict(word='SUPPORTED', seeds=None)
    """
    differences = finite(differences)
    positive("the smallest effect", smallest_effect)
    if sign not in (1, -1) or not 0 <= adjusted_p <= 1:
        raise ValueError(f"needs a sign of 1 or -1 and a p between 0 and 1, got {sign} and {adjusted_p}")
    n = len(differences)
    if n == 1:
        return Verdict("INCONCLUSIVE")
    mean = float(differences.mean())
    large = abs(mean) >= smallest_effect * (1 - 1e-9)  # Rounding makes .04 − .035 less than .005.
    if adjusted_p < ALPHA and large:
        return Verdict("SUPPORTED" if mean * sign > 0 else "REFUTED")
    if equivalence_p(differences, smallest_effect) < ALPHA:
        return Verdict("EQUIVALENT")
    sd = spread(differences)
    needed = seeds_needed(smallest_effect, sd)
    if needed is not None and needed <= n:
        needed = n + 1 if large else _seeds_for_equivalence(abs(mean), smallest_effect, sd)
    return Verdict("INCONCLUSIVE", needed)


def _seeds_for_equivalence(mean: float, margin: float, sd: float) -> int | None:
    """The number of pairs that gives TOST 80% power, if `mean` is the true mean. Both of its tests have to reject."""
    distances = [(margin - mean) / sd, (margin + mean) / sd]
    return _fewest(lambda n: sum(power(distance, n, ALPHA) for distance in distances) - 1)
