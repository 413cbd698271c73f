"""Steps and seconds to a target."""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd

from runner.analysis.metrics import MEASURED, Curve, reach
from runner.analysis.pairing import Codes, unproven
from runner.analysis.records import Time, ToTarget
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.stats.intervals import Interval, paired_interval, welch_interval
from runner.analysis.stats.values import Values


def to_target(runs: Runs, cell: Codes, code: Codes) -> dict[int, ToTarget]:
    """Each row's times to the target; no row where there is no target.

    `cell` and `code` are the cell and the row that each run belongs to.
    """
    if runs.target is None:
        return {}
    steps, reached = _steps(runs, runs.target, cell)
    seconds = _seconds(runs.curves, cell, steps, reached)
    by_steps, by_seconds = _time_by_row(runs, code, steps), _time_by_row(runs, code, seconds)
    counts = reached.groupby(code).agg(["count", "sum"])
    return {
        int(row): ToTarget(int(count), int(number), by_steps.get(row), by_seconds.get(row))
        for row, count, number in counts.itertuples()
    }


def _steps(runs: Runs, target: float, cell: Codes) -> tuple[pd.Series, pd.Series]:
    """Each run's steps to the target, censored at the horizon, and whether it got there; NaN where it does not count.

    The horizon is the last step that every ok run of the cell trained. (The claims use the last planned step, because
    all runs of a claim have the same plan.)
    """
    curves, status = runs.curves, runs.facts["status"]
    last = pd.Series([curve.steps[-1] if len(curve.steps) else np.nan for curve in curves])
    horizon = last.where(status == "ok").groupby(cell).transform("min")
    found = {}
    for run in np.flatnonzero(status.isin(MEASURED) & (horizon > 0)).tolist():
        steps, values = curves[run].steps, curves[run].values
        diverged = status[run] == "diverged"
        found[run] = astuple(reach(steps, values, runs.metric.better, target, float(horizon[run]), diverged))
    table = pd.DataFrame.from_dict(found, "index", float, ["time", "reached"]).reindex(status.index)
    # Where no run of a cell gets there, all times are equal, which would look like a result.
    nobody = table["reached"].groupby(cell).transform("max") == 0
    return table["time"].mask(nobody), table["reached"]


def _seconds(curves: Sequence[Curve], cell: Codes, steps: pd.Series, reached: pd.Series) -> pd.Series:
    """Seconds to the reading at which the target was reached; where it was not, those of the cell's longest run.

    Steps decide whether it was reached, because runs have no common horizon in seconds.
    """
    longest = pd.Series([curve.seconds[-1] if len(curve.seconds) else np.nan for curve in curves])
    seconds = longest.groupby(cell).transform("max").where(steps.notna())
    for run in np.flatnonzero(reached == 1).tolist():
        seconds[run] = curves[run].seconds_at(steps[run])
    return seconds


def _time_by_row(runs: Runs, code: Codes, times: pd.Series) -> dict[int, Time]:
    paired = pairs_by_row(runs, times, code)
    means = times.groupby(code).agg(["mean"]).dropna()
    return {int(row): Time(float(mean), *_intervals(paired.get(row))) for row, mean in means.itertuples()}


def _intervals(pairs: pd.DataFrame | None) -> tuple[Interval | None, Interval | None]:
    """The intervals of the difference, and of the ratio of geometric means."""
    if pairs is None:
        return None, None
    times, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()
    paired = not unproven(pairs)

    def interval(a: Values, b: Values) -> Interval:
        return paired_interval(a - b) if paired else welch_interval(a, b)

    difference = interval(times, baseline)
    if min(times.min(), baseline.min()) <= 0:
        return difference, None
    # The logarithm of the ratio is the difference of the logarithms.
    ratio = interval(np.log(times), np.log(baseline))
    low, high = (None if end is None else float(np.exp(end)) for end in (ratio.low, ratio.high))
    return difference, Interval(float(np.exp(ratio.estimate)), low, high)
