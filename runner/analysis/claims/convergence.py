"""Measures of claims about how fast training goes, and at which learning rates."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from runner.analysis.best_lr import best_lr
from runner.analysis.claims.per_seed import PP, by_seed, measured, values
from runner.analysis.metrics import MEASURED, reach
from runner.analysis.stats.values import Values
from runner.storage.folder import CURVES
from runner.storage.results import Results, readings

Select = Callable[[Results, pd.Series, object], Values]
"""The values of an arm's runs [S]."""


def steps_to_target(results: Results, arm: object, target: float) -> Values:
    """The difference in steps to a validation accuracy [S], in % of the baseline's mean.

    A run that does not reach the target counts with the last step of the sweep, which all runs were planned to reach.
    All differences are NaN where no run of any arm reaches it.
    """
    return _relative(results, _times(results, "step", target), arm)


def seconds_to_target(results: Results, arm: object, target: float) -> Values:
    """The difference in seconds of training to a validation accuracy [S], in % of the baseline's mean.

    The seconds are those of the machine that trained. The horizon is the shortest whole run, so every run was followed
    to it.
    """
    return _relative(results, _times(results, "duration", target), arm)


def best_lrs(results: Results, arm: object) -> tuple[str, ...]:
    """Sentences that name each arm's best learning rate, and say whether it is on the edge of the grid."""
    edges = results.runs["lr"].min(), results.runs["lr"].max()
    chosen = {name: _best_lr(results, name) for name in (results.baseline, arm)}
    return tuple(
        f"best lr of {name}: {lr:g}" + (" (edge of the grid)" if lr in edges else "")
        for name, lr in chosen.items()
        if lr is not None
    )


def steps_at_best_lr(results: Results, arm: object, target: float) -> Values:
    """`steps_to_target` [S], each arm at its own best learning rate."""
    return _relative(results, _times(results, "step", target), arm, select=_at_best_lr)


def area_at_best_lr(results: Results, arm: object) -> Values:
    """The difference in mean validation accuracy over all readings [S], in pp, each arm at its own best learning rate.

    A diverged run keeps the accuracy of its last reading for the readings that it did not get to.
    """
    curves = readings(results, CURVES)
    table = curves.pivot_table(index="run", columns="step", values="valid_accuracy", dropna=False)
    areas = measured(results, table.ffill(axis=1).mean(axis=1))
    return PP * (_at_best_lr(results, areas, arm) - _at_best_lr(results, areas, results.baseline))


def largest_lr(results: Results, arm: object, within: float) -> Values:
    """The difference in log10 of the largest learning rate that keeps a seed within `within` of its arm's best [S].

    The best is the arm's highest mean validation accuracy over the grid. Where no learning rate keeps a seed there, it
    counts with the smallest one.
    """
    accuracy = values(results, "valid_accuracy")
    rates = np.sort(results.runs["lr"].unique().astype(float))

    def largest(arm: object) -> Values:
        table = np.stack([by_seed(results, accuracy, arm, {"lr": rate}) for rate in rates])  # [rates, S]
        complete = ~np.isnan(table).any(axis=0)
        if not complete.any():
            return _nothing(results)
        good = table >= table[:, complete].mean(axis=1).max() - within
        logarithms = np.log10(rates)[:, None]
        return np.where(complete, np.where(good, logarithms, logarithms[0]).max(axis=0), np.nan)

    return largest(arm) - largest(results.baseline)


def _nothing(results: Results) -> Values:
    """NaN for every seed [S]."""
    return np.full(results.runs["seed"].nunique(), np.nan)


def _times(results: Results, clock: str, target: float) -> pd.Series:
    """Each run's time to a validation accuracy, censored at the horizon; all NaN where no run reaches it."""
    curves = readings(results, CURVES)
    status = curves["run"].map(results.runs.set_index("run")["status"])
    horizon = curves["step"].max()
    if clock == "duration":
        horizon = curves[status == "ok"].groupby("run")["duration"].max().min()
    times = {}
    for run, curve in curves[status.isin(MEASURED) & np.isfinite(horizon)].groupby("run"):
        steps, accuracy = curve[clock].to_numpy(float), curve["valid_accuracy"].to_numpy(float)
        diverged = status[curve.index[0]] == "diverged"
        times[run] = reach(steps, accuracy, 1, target, float(horizon), diverged).time
    of_run = measured(results, times)
    return of_run if (of_run < horizon).any() else of_run * np.nan


def _relative(results: Results, times: pd.Series, arm: object, select: Select = by_seed) -> Values:
    """The difference between arm and baseline [S], in % of the baseline's mean."""
    baseline = select(results, times, results.baseline)
    if np.isnan(baseline).all():
        return baseline
    return np.asarray(100 * (select(results, times, arm) - baseline) / np.nanmean(baseline))


def _best_lr(results: Results, arm: object) -> float | None:
    """The best learning rate of an arm, by validation accuracy at the last epoch."""
    of_arm = results.runs[results.axis] == arm
    runs = results.runs[of_arm]
    return best_lr(values(results, "valid_accuracy")[of_arm], runs["lr"], runs["seed"])


def _at_best_lr(results: Results, of_run: pd.Series, arm: object) -> Values:
    """The value of the arm's runs at its best learning rate [S]; NaN where it has none."""
    lr = _best_lr(results, arm)
    return _nothing(results) if lr is None else by_seed(results, of_run, arm, {"lr": lr})
