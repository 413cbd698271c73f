"""Steps and seconds to a target."""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd

from runner.analysis.metrics import MEASURED, Curve, reach
from runner.analysis.pairing import Codes, unproven
from runner.analysis.records import Bound, Time, ToTarget
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.stats.intervals import Interval, paired_interval, ratio_interval, welch_interval


def to_target(runs: Runs, cell: Codes, code: Codes) -> dict[int, ToTarget]:
    """Each row's times to the target; no row where there is no target.

    `cell` and `code` are the cell and the row that each run belongs to.
    """
    if runs.target is None:
        return {}
    steps, reached = _steps(runs, runs.target, cell)
    seconds = _seconds(runs.curves, steps)
    by_steps, by_seconds = (_time_by_row(runs, code, times, reached) for times in (steps, seconds))
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


def _seconds(curves: Sequence[Curve], steps: pd.Series) -> pd.Series:
    """The seconds that each run took for its steps: to the target, or to the horizon where it was not reached."""
    known = np.flatnonzero(steps.notna())
    seconds = [curves[run].seconds_at(steps[run]) for run in known.tolist()]
    return pd.Series(seconds, index=known, dtype=float).reindex(steps.index)


def _time_by_row(runs: Runs, code: Codes, times: pd.Series, reached: pd.Series) -> dict[int, Time]:
    paired, all_reached = pairs_by_row(runs, times, code), pairs_by_row(runs, reached, code)
    means = runs.by_repeat(times, code).groupby("row")["value"].agg(["mean"]).dropna()
    return {
        int(row): Time(float(mean), *_intervals(paired.get(row)), bound=_bound(all_reached.get(row)))
        for row, mean in means.itertuples()
    }


def _bound(reached: pd.DataFrame | None) -> Bound | None:
    """What is known of the ratio of the true times: the times that are compared end at the horizon."""
    if reached is None:
        return None
    arm, baseline = (bool((reached[name] == 1).all()) for name in ("value", "value_base"))
    if arm and baseline:
        return "exact"
    return "at most" if arm else "at least" if baseline else "unknown"


def _intervals(pairs: pd.DataFrame | None) -> tuple[Interval | None, Interval | None]:
    """The intervals of the difference of the means, and of their ratio (Fieller)."""
    if pairs is None:
        return None, None
    times, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()
    paired = not unproven(pairs)
    difference = paired_interval(times - baseline) if paired else welch_interval(times, baseline)
    return difference, ratio_interval(times, baseline, paired=paired) if baseline.mean() > 0 else None
