"""What the pairs say about an effect fixed beforehand, and how many it takes to say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from statsmodels.stats.power import TTestPower

from runner.analysis.stats.significance import equivalence_p
from runner.analysis.stats.values import ALPHA, Values, finite, positive, spread

POWER = 0.8

FEWEST = 6
"""No sign-flip test of fewer pairs can give p < .05."""

MOST = 100_000
"""More seeds than this are not a plan."""


def power(effect: float, n: int) -> float:
    """The chance that a two-sided paired t test of `n` pairs at .05 finds an effect of `effect` SDs, with its sign.

    By `statsmodels.stats.power.TTestPower`; one-sided at .025, since the far tail of its two-sided power is NaN from
    some 6 SDs on. Errors: ValueError for an effect below 0 or NaN, or fewer than two pairs.
    """
    return _power(effect, n, ALPHA / 2)


def _power(effect: float, n: int, alpha: float) -> float:
    if not effect >= 0 or n < 2:
        raise ValueError(f"needs an effect of 0 or more and 2 or more pairs, got {effect} and {n}")
    # Beyond 1,000 SDs the power is 1, and statsmodels' NaN.
    return float(TTestPower().power(min(effect, 1e3), n, alpha, alternative="larger"))


def seeds_needed(smallest_effect: float, sd: float) -> int | None:
    """The pairs with which an effect is found with 80% power, `sd` being that of the pairs' differences.

    Never below 6, of which fewer cannot reject; None above 100,000. Errors: ValueError for an effect not above 0, an
    SD below 0, or either not finite.
    """
    positive("the smallest effect", smallest_effect)
    if not 0 <= sd < float("inf"):
        raise ValueError(f"the SD must be 0 or more and finite, got {sd}")
    return _fewest(lambda n: power(smallest_effect / sd if sd else float("inf"), n))


def _fewest(power_of: Callable[[int], float]) -> int | None:
    """The smallest number of pairs of power .8; power grows with their number."""
    low, high = FEWEST, MOST
    if power_of(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= POWER else (middle + 1, high)
    return low


Word = Literal["SUPPORTED", "REFUTED", "EQUIVALENT", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Verdict:
    """One word; `seeds` is how many would settle an INCONCLUSIVE one, None where that is not known."""

    word: Word
    seeds: int | None = None


def verdict(differences: Values, smallest_effect: float, sign: int, adjusted_p: float) -> Verdict:
    """SUPPORTED: adjusted p < .05, the mean has the claimed `sign` (1 or −1) and at least the size of the smallest
    effect of interest, fixed beforehand. REFUTED: the same with the opposite sign. EQUIVALENT: within ± that effect by
    TOST at .05. Else INCONCLUSIVE, with the seeds it would take: those that find the smallest effect with 80% power;
    where there are as many already, those that would tell the difference seen from the margin.

    Errors: ValueError for no difference, one not finite, an effect not above 0, another sign, or a p that is not one.
    """
    differences = finite(differences)
    positive("the smallest effect", smallest_effect)
    if sign not in (1, -1) or not 0 <= adjusted_p <= 1:
        raise ValueError(f"needs a sign of 1 or -1 and a p between 0 and 1, got {sign} and {adjusted_p}")
    if len(differences) == 1:
        return Verdict("INCONCLUSIVE")
    mean = float(differences.mean())
    large = abs(mean) >= smallest_effect * (1 - 1e-9)  # .04 − .035 is not less than .005
    if adjusted_p < ALPHA and large:
        return Verdict("SUPPORTED" if mean * sign > 0 else "REFUTED")
    if equivalence_p(differences, smallest_effect) < ALPHA:
        return Verdict("EQUIVALENT")
    sd, n = spread(differences), len(differences)
    needed = seeds_needed(smallest_effect, sd)
    if needed is not None and needed <= n:
        needed = n + 1 if large else _seeds_for_equivalence(abs(mean), smallest_effect, sd)
    return Verdict("INCONCLUSIVE", needed)


def _seeds_for_equivalence(mean: float, margin: float, sd: float) -> int | None:
    """The pairs with which TOST has 80% power, were the mean seen the true one: both its tests have to reject."""
    rooms = [(margin - mean) / sd, (margin + mean) / sd]
    return _fewest(lambda n: sum(_power(room, n, ALPHA) for room in rooms) - 1)
