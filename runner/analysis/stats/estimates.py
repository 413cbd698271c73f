"""What a verdict judges: an estimate of an effect over pairs, with its interval at every level and its p."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from runner.analysis.stats.intervals import Interval, paired_interval, rate_interval, ratio_interval
from runner.analysis.stats.robust import hodges_lehmann
from runner.analysis.stats.significance import mcnemar_p, sign_flip_p
from runner.analysis.stats.values import ALPHA, Events, Values


class Estimate(Protocol):
    """An effect that was estimated from pairs."""

    test: ClassVar[str]
    """The name of the test that gives `p`."""

    @property
    def pairs(self) -> int:
        """The number of pairs."""

    @property
    def p(self) -> float | None:
        """The two-sided p that there is no effect; None for one pair."""

    def interval(self, level: float = ALPHA) -> Interval:
        """The estimate and its two-sided interval, which covers at 1 − level."""


@dataclass(frozen=True)
class MeanDifference:
    """The mean of the pairs' differences.

    >>> effect = MeanDifference(np.array([0.01, 0.02, 0.01, 0.03, 0.02, 0.01]))
    >>> effect.p, round(effect.interval().low, 3)
    (0.03125, 0.008)
    """

    differences: Values
    test: ClassVar[str] = "sign-flip"

    @property
    def pairs(self) -> int:
        return len(self.differences)

    @cached_property
    def p(self) -> float | None:
        # Each estimate has its own generator, so its p does not depend on the others.
        return sign_flip_p(self.differences, np.random.default_rng(0)) if len(self.differences) > 1 else None

    def interval(self, level: float = ALPHA) -> Interval:
        return paired_interval(self.differences, level)


@dataclass(frozen=True)
class MedianDifference:
    """The Hodges–Lehmann median of the pairs' differences."""

    differences: Values
    test: ClassVar[str] = "signed-rank"

    @property
    def pairs(self) -> int:
        return len(self.differences)

    @cached_property
    def p(self) -> float | None:
        from scipy.stats import wilcoxon

        if len(self.differences) < 2:
            return None
        return float(wilcoxon(self.differences).pvalue) if np.any(self.differences) else 1.0

    def interval(self, level: float = ALPHA) -> Interval:
        return hodges_lehmann(self.differences, level)


@dataclass(frozen=True)
class RatioOfMeans:
    """The relative difference mean(values) / mean(baseline) − 1 of pairs: −.2 is 20% less than the baseline."""

    values: Values
    baseline: Values
    test: ClassVar[str] = "sign-flip"

    @property
    def pairs(self) -> int:
        return len(self.values)

    @cached_property
    def p(self) -> float | None:
        return MeanDifference(np.asarray(self.values) - self.baseline).p

    def interval(self, level: float = ALPHA) -> Interval:
        ratio = ratio_interval(self.values, self.baseline, level=level)
        low, high = (None if end is None else end - 1 for end in (ratio.low, ratio.high))
        return Interval(ratio.estimate - 1, low, high)


@dataclass(frozen=True)
class RateDifference:
    """The difference in the share of pairs with an event, such as a divergence."""

    events: Events
    baseline: Events
    test: ClassVar[str] = "McNemar"

    @property
    def pairs(self) -> int:
        return len(self.events)

    @cached_property
    def p(self) -> float | None:
        return mcnemar_p(self.events, self.baseline)

    def interval(self, level: float = ALPHA) -> Interval:
        return rate_interval(self.events, self.baseline, level)
