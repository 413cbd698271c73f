"""How large a difference is, and how long a run took to get somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner.analysis.stats.values import Values, finite, positive, spread


def cohens_dz(differences: Values) -> float | None:
    """The pairs' mean difference in their standard deviations (Cohen 1988); None for one pair, or without spread.

    Errors: ValueError for none, or one not finite.
    """
    differences = finite(differences)
    sd = spread(differences) if len(differences) > 1 else 0.0
    return float(differences.mean()) / sd if sd else None


def probability_of_improvement(differences: Values) -> float:
    """The share of pairs with a difference above 0; a tie counts half. Negate where less is better.

    Errors: ValueError for none, or one not finite.
    """
    differences = finite(differences)
    return float(np.mean(differences > 0) + np.mean(differences == 0) / 2)


@dataclass(frozen=True)
class Reach:
    """When a curve reached its target: min(T, horizon), and whether it did by then."""

    time: float
    reached: bool


def time_to_target(steps: Values, values: Values, target: float, horizon: float) -> Reach:
    """The first of `steps` at which `values` is `target` or more, censored at `horizon`.

    NaN and infinity never reach; negate values and target where less is better. Errors: ValueError for a target,
    horizon or step that is not finite, a horizon not above 0, or arrays of different length.
    """
    steps, values = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if steps.shape != values.shape or steps.ndim != 1:
        raise ValueError(f"a curve needs a value a step, got {steps.shape} and {values.shape}")
    if not (np.isfinite(target) and np.isfinite(steps).all()):
        raise ValueError("the target and the steps must be finite")
    hits = steps[np.isfinite(values) & (values >= target) & (steps <= positive("the horizon", horizon))]
    return Reach(float(hits.min()), True) if len(hits) else Reach(float(horizon), False)


@dataclass(frozen=True)
class RestrictedMean:
    """The mean of min(T, horizon), and the share of runs that reached the target by the horizon."""

    mean: float
    share: float


def restricted_mean(reaches: Sequence[Reach]) -> RestrictedMean:
    """Exact, not an estimate, where every run was followed to the same horizon (Royston & Parmar 2013).

    Errors: ValueError for no run.
    """
    times = finite([reach.time for reach in reaches])
    return RestrictedMean(float(times.mean()), sum(reach.reached for reach in reaches) / len(reaches))
