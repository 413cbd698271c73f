"""Measures of claims about how fast training goes, and at which learning rates."""

from __future__ import annotations

import numpy as np
import pandas as pd

from runner.analysis.best_lr import best_lr
from runner.analysis.claims.per_seed import PP, Where, by_seed, measured, per_run, values
from runner.analysis.metrics import reach
from runner.analysis.stats.values import Values
from runner.storage.folder import CURVES
from runner.storage.results import Results, readings


def steps_to_target(results: Results, arm: object, target: float) -> Values:
    """The difference in steps to a validation accuracy [S], in % of the baseline's mean.

    A run that does not get there counts as the last step of the sweep, which all runs were planned to reach. Where no
    run of either arm gets there nothing is known: NaN.
    """
    curves = readings(results, CURVES)
    of_run, reached = _times(results, curves, "step", target, float(curves["step"].max()))
    return _relative(results, of_run, reached, {results.axis or "": arm}, {results.axis or "": results.baseline})


def seconds_to_target(results: Results, arm: object, target: float) -> Values:
    """The difference in seconds of training to a validation accuracy [S], in % of the baseline's mean.

    Of the machine that trained. The horizon is the shortest whole run, so that every run was followed to it.
    """
    curves = readings(results, CURVES)
    whole = curves["run"].isin(results.runs.loc[results.runs["status"] == "ok", "run"])
    horizon = curves[whole].groupby("run")["duration"].max().min()
    if np.isnan(horizon):
        return np.full(results.runs["seed"].nunique(), np.nan)
    of_run, reached = _times(results, curves, "duration", target, float(horizon))
    return _relative(results, of_run, reached, {results.axis or "": arm}, {results.axis or "": results.baseline})


def best_lrs(results: Results, arm: object) -> tuple[str, ...]:
    """In words, the learning rate chosen for each arm, and whether it lies on the edge of the grid."""
    rates = [float(rate) for rate in results.runs["lr"].unique()]
    found = [(value, _best_lr(results, value)) for value in (results.baseline, arm)]
    edge = {min(rates): " (edge of the grid)", max(rates): " (edge of the grid)"}
    return tuple(f"best lr of {value}: {lr:g}{edge.get(lr, '')}" for value, lr in found if lr is not None)


def steps_at_best_lr(results: Results, arm: object, target: float) -> Values:
    """`steps_to_target`, each arm at its own best learning rate [S]."""
    curves = readings(results, CURVES)
    of_run, reached = _times(results, curves, "step", target, float(curves["step"].max()))
    if (chosen := _at_best_lr(results, arm)) is None:
        return np.full(results.runs["seed"].nunique(), np.nan)
    return _relative(results, of_run, reached, *chosen)


def area_at_best_lr(results: Results, arm: object) -> Values:
    """The difference in mean validation accuracy over all readings, each arm at its own best learning rate [S], in pp.

    A diverged run keeps its last reading's accuracy for those that it did not get to.
    """
    if (chosen := _at_best_lr(results, arm)) is None:
        return np.full(results.runs["seed"].nunique(), np.nan)
    table = readings(results, CURVES).pivot_table(index="run", columns="step", values="valid_accuracy", dropna=False)
    areas = table.ffill(axis=1).mean(axis=1)
    of_run = measured(results, areas.reindex(per_run(results).index))
    return PP * (by_seed(results, of_run, chosen[0]) - by_seed(results, of_run, chosen[1]))


def largest_lr(results: Results, arm: object, within: float) -> Values:
    """The difference in log10 of the largest learning rate that keeps a seed within `within` of its arm's best [S].

    The best is the arm's highest mean validation accuracy over the grid. A seed that no learning rate keeps there
    counts as the smallest one.
    """
    assert results.axis is not None
    accuracy = values(results, "valid_accuracy")
    rates = sorted(float(rate) for rate in results.runs["lr"].unique())

    def largest(value: object) -> Values:
        table = np.stack(
            [by_seed(results, accuracy, {results.axis or "": value, "lr": rate}) for rate in rates]
        )  # [L, S]
        complete = ~np.isnan(table).any(axis=0)
        if not complete.any():
            return np.full(table.shape[1], np.nan)
        good = table >= table[:, complete].mean(axis=1).max() - within
        best = np.where(good, np.log10(rates)[:, None], np.log10(rates[0])).max(axis=0)
        return np.where(complete, best, np.nan)

    return largest(arm) - largest(results.baseline)


def _times(results: Results, curves: pd.DataFrame, clock: str, target: float, horizon: float) -> tuple[pd.Series, bool]:
    """Each run's time to a validation accuracy, censored at the horizon, and whether any run got there."""
    diverged = set(results.runs.loc[results.runs["status"] == "diverged", "run"])
    times = {}
    for run, curve in curves.groupby("run"):
        readings = curve[clock].to_numpy(float), curve["valid_accuracy"].to_numpy(float)
        found = reach(*readings, metric="valid_accuracy", target=target, horizon=horizon, diverged=run in diverged)
        times[run] = found.time
    of_run = measured(results, results.runs["run"].map(times))
    return of_run, bool((of_run < horizon).any())


def _relative(results: Results, of_run: pd.Series, reached: bool, ours: Where, theirs: Where) -> Values:
    """The difference between two runs a seed [S], in % of the latter's mean; NaN where no run reached the target."""
    baseline = by_seed(results, of_run, theirs)
    if np.isnan(baseline).all() or not reached:
        return np.full(len(baseline), np.nan)
    return np.asarray(100 * (by_seed(results, of_run, ours) - baseline) / np.nanmean(baseline))


def _best_lr(results: Results, arm: object) -> float | None:
    """The best learning rate of an arm, by validation accuracy at the last epoch."""
    chosen = (results.runs[results.axis] == arm).to_numpy()
    runs, accuracy = results.runs[chosen], values(results, "valid_accuracy").to_numpy()[chosen]
    return best_lr(pd.Series(accuracy), runs["lr"], runs["seed"])


def _at_best_lr(results: Results, arm: object) -> tuple[Where, Where] | None:
    """The parameters of arm and baseline, each at its own best learning rate."""
    ours, theirs = _best_lr(results, arm), _best_lr(results, results.baseline)
    if ours is None or theirs is None:
        return None
    axis = results.axis or ""
    return {axis: arm, "lr": ours}, {axis: results.baseline, "lr": theirs}
