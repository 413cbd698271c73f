"""What a measure gives: the values of an arm and of its baseline, seed by seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from runner.analysis.stats.estimates import Estimate, MeanDifference, RateDifference, RatioOfMeans
from runner.analysis.stats.values import Values

Effect = Literal["difference", "ratio", "rate"]
"""How an arm is compared with its baseline. difference: mean(arm − baseline). ratio: mean(arm) / mean(baseline) − 1, in
%. rate: the difference of two shares of runs; each value is 0 or 1."""

Bound = Literal["", "at most", "at least", "open"]
"""What is known of the true effect: the estimate itself, one side of it, or neither."""


@dataclass(frozen=True)
class PairedValues:
    """The arm's values and the baseline's. Each has one value per tested seed [S], NaN where a run has no result.

    For a claim of equivalence they may also be [K, S]: K comparisons that must all be small.

    >>> PairedValues(np.array([3.0, np.nan, 5.0]), np.array([1.0, 1.0, 4.0])).differences.tolist()
    [2.0, nan, 1.0]
    """

    values: Values
    baseline: Values
    censored: tuple[int, int] = (0, 0)
    """How many runs of the arm and of the baseline did not reach the target, and count with the horizon."""

    @property
    def differences(self) -> Values:
        """Arm minus baseline, [S] or [K, S]."""
        return np.asarray(np.asarray(self.values, dtype=np.float64) - np.asarray(self.baseline, dtype=np.float64))

    @property
    def bound(self) -> Bound:
        """A run that did not reach the target would have taken longer than the horizon that it counts with."""
        arm, baseline = self.censored
        if arm and baseline:
            return "open"
        return "at least" if arm else "at most" if baseline else ""

    def parts(self) -> list["PairedValues"]:
        """The K comparisons, each [S]."""
        values, baseline = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (self.values, self.baseline))
        return [PairedValues(*sides, self.censored) for sides in zip(values, baseline, strict=True)]

    @property
    def complete(self) -> "PairedValues":
        """The seeds whose two runs have a result. The values are [S]."""
        known = np.isfinite(self.differences)
        return PairedValues(np.asarray(self.values)[known], np.asarray(self.baseline)[known], self.censored)

    def estimate(self, effect: Effect) -> Estimate:
        """The effect over complete pairs."""
        match effect:
            case "ratio":
                return RatioOfMeans(self.values, self.baseline)
            case "rate":
                return RateDifference(self.values > 0, self.baseline > 0)
            case "difference":
                return MeanDifference(self.differences)
