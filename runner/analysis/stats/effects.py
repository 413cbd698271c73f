"""How large a difference is, and how long a run takes to reach a target."""

from dataclasses import dataclass

import numpy as np

from runner.analysis.stats.values import Values, finite, positive, spread


def cohens_dz(differences: Values) -> float | None:
    """The mean of the pairs' differences, in their standard deviations (Cohen 1988).

    None for one pair, and for differences without spread.
    Errors: ValueError where there is no difference, or one is not finite.

    >>> cohens_dz([0.25, 0.5, 0.75])
    2.0
    """
    differences = finite(differences)
    sd = spread(differences) if len(differences) > 1 else 0.0
    return float(differences.mean()) / sd if sd else None


def probability_of_improvement(differences: Values) -> float:
    """The share of pairs with a difference above 0; a tie counts half. Negate the differences where less is better.

    Errors: ValueError where there is no difference, or one is not finite.
    """
    differences = finite(differences)
    return float(np.mean(differences > 0) + np.mean(differences == 0) / 2)


@dataclass(frozen=True)
class Reach:
    """When a curve reached its target."""

    time: float
    """The smaller of this time and the horizon."""
    reached: bool
    """Whether the target was reached by the horizon."""


def time_to_target(steps: Values, values: Values, target: float, horizon: float) -> Reach:
    """The first of `steps` at which `values` is `target` or more, censored at `horizon`.

    `steps` and `values` have one entry per reading. NaN and infinity do not reach a target. Negate values and target
    where less is better.
    Errors: ValueError for a target, horizon or step that is not finite, for a horizon that is not above 0, and for
    arrays of different length.

    >>> time_to_target([100, 200, 300], [0.5, 0.8, 0.9], target=0.8, horizon=300)
    Reach(time=200.0, reached=True)
    """
    positive("the horizon", horizon)
    steps, values = finite(steps, at_least=0), np.asarray(values, dtype=np.float64)
    if steps.shape != values.shape:
        raise ValueError(f"a curve needs a value per step, got {steps.shape} and {values.shape}")
    if not np.isfinite(target):
        raise ValueError("the target must be finite")
    hits = steps[np.isfinite(values) & (values >= target) & (steps <= horizon)]
    return Reach(float(hits.min()), True) if len(hits) else Reach(float(horizon), False)
