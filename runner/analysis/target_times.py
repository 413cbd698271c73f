"""Steps and seconds to a target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.metrics import MEASURED, Curve, reach
from runner.analysis.records import Time, ToTarget
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.stats.intervals import Interval, paired_interval, welch_interval
from runner.analysis.stats.values import Values


def to_target(runs: Runs, cell: NDArray[np.int64], code: NDArray[np.int64]) -> dict[int, ToTarget]:
    if runs.curves is None or runs.target is None:
        return {}
    steps, reached = _steps(runs, cell)
    seconds = _seconds(runs.curves, cell, steps, reached)
    by_steps, by_seconds = _time_by_row(runs, code, steps), _time_by_row(runs, code, seconds)
    counts = reached.groupby(code).agg(["count", "sum"])
    return {
        int(key): ToTarget(int(count), int(number), by_steps.get(key), by_seconds.get(key))
        for key, count, number in counts.itertuples()
    }


def _steps(runs: Runs, cell: NDArray[np.int64]) -> tuple[pd.Series, pd.Series]:
    """Each run's steps to the target, censored at the horizon, and whether it got there; NaN where it does not count.

    The horizon is the last step that every ok run of the cell trained. (The claims' horizon is the last planned step,
    because a claim's runs all have the same plan.)
    """
    if runs.curves is None or runs.target is None:
        raise ValueError("there is no target")
    status = runs.facts["status"].to_numpy()
    clocks = [curve.steps for curve in runs.curves]
    last = np.array([clock[-1] if len(clock) else np.nan for clock in clocks])
    horizon = pd.Series(last).where(status == "ok").groupby(cell).transform("min").to_numpy()
    times, reached = np.full(len(status), np.nan), np.full(len(status), np.nan)
    for index in np.flatnonzero(np.isin(status, MEASURED) & (horizon > 0)).tolist():
        found = reach(
            clocks[index],
            runs.curves[index].values,
            metric=runs.metric,
            target=runs.target,
            horizon=float(horizon[index]),
            diverged=status[index] == "diverged",
        )
        times[index], reached[index] = found.time, found.reached
    table = pd.DataFrame({"times": times, "reached": reached})
    nobody = table["reached"].groupby(cell).transform("max") == 0  # equal times would read as a finding
    return table["times"].mask(nobody), table["reached"]


def _seconds(curves: Sequence[Curve], cell: NDArray[np.int64], steps: pd.Series, reached: pd.Series) -> pd.Series:
    """Seconds to the reading at which the target was reached; of a run that did not, the longest run's of its cell.

    Whether it was reached is decided by steps: in seconds runs have no common horizon.
    """
    longest = pd.Series([curve.seconds[-1] if len(curve.seconds) else np.nan for curve in curves])
    seconds = longest.groupby(cell).transform("max").where(steps.notna())
    for index in np.flatnonzero(reached == 1).tolist():
        seconds.iat[index] = curves[index].seconds_at(float(steps.to_numpy()[index]))
    return seconds


def _time_by_row(runs: Runs, code: NDArray[np.int64], times: pd.Series) -> dict[int, Time]:
    paired = pairs_by_row(runs, times, code)
    means = times.groupby(code).agg(["mean"]).dropna()
    return {int(key): Time(float(mean), *_time_intervals(paired.get(key))) for key, mean in means.itertuples()}


def _time_intervals(pairs: pd.DataFrame | None) -> tuple[Interval | None, Interval | None]:
    """Of the difference, and of the ratio: the exponential of the difference of logarithms."""
    if pairs is None:
        return None, None
    proven = not (pairs["weights"].any() or pairs["batches"].any())
    times, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()

    def interval(a: Values, b: Values) -> Interval:
        return paired_interval(a - b) if proven else welch_interval(a, b)

    ratio = interval(np.log(times), np.log(baseline)) if min(times.min(), baseline.min()) > 0 else None
    difference = interval(times, baseline)
    if ratio is None:
        return difference, None
    low, high = (None if end is None else float(np.exp(end)) for end in (ratio.low, ratio.high))
    return difference, Interval(float(np.exp(ratio.estimate)), low, high)
