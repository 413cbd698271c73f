"""Measures of claims about how fast training goes, and at which learning rates."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from runner.analysis.best_lr import best_lr
from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.per_seed import PP, Where, accuracies, by_seed, measured, only_seeds
from runner.analysis.metrics import MEASURED, reach
from runner.analysis.stats.values import Values
from runner.storage.folder import CURVES
from runner.storage.results import Results, readings

Seeds = Collection[int]


def steps_to_target(results: Results, arm: object, target: float) -> PairedValues:
    """The steps to an accuracy [S].

    A run that does not reach it counts with the last step of the sweep, which all runs were planned to reach, and is
    counted as censored.
    """
    return _times(results, "step", target, arm)


def seconds_to_target(results: Results, arm: object, target: float) -> PairedValues:
    """The seconds of training to an accuracy [S].

    The seconds are those of the machine that trained. The horizon is the shortest whole run, so every run was followed
    to it.
    """
    return _times(results, "duration", target, arm)


def best_lrs(results: Results, arm: object, selection_seeds: Seeds) -> tuple[str, ...]:
    """Sentences that name each arm's best learning rate, and warn where it is on the edge of the grid."""
    if not results.runs["seed"].isin(list(selection_seeds)).any():
        return ("the sweep has none of the seeds that choose the learning rates, so nothing can be compared",)
    edges = results.runs["lr"].min(), results.runs["lr"].max()
    warning = ", the edge of the grid: a rate beyond it may be better"
    chosen = {name: _best_lr(results, name, selection_seeds) for name in (results.baseline, arm)}
    return tuple(
        f"best lr of {name}: {lr:g}" + (warning if lr in edges else "") for name, lr in chosen.items() if lr is not None
    )


def steps_at_best_lr(results: Results, arm: object, target: float, selection_seeds: Seeds) -> PairedValues:
    """`steps_to_target` [S], each arm at its best learning rate. Seeds that are not compared choose the rates."""
    wheres = [_at_best_lr(results, name, selection_seeds) for name in (arm, results.baseline)]
    tested = only_seeds(results, selection_seeds, among=False)
    return _times(tested, "step", target, arm, *wheres)


def area_at_best_lr(results: Results, arm: object, selection_seeds: Seeds) -> PairedValues:
    """The mean validation accuracy over all readings [S], in pp, each arm at its best learning rate.

    Other seeds choose the rates than are compared. A diverged run keeps the accuracy of its last reading for the
    readings that it did not get to.
    """
    curves = readings(results, CURVES)
    table = curves.pivot_table(index="run", columns="step", values="valid_accuracy", dropna=False)
    tested = only_seeds(results, selection_seeds, among=False)
    areas = PP * measured(tested, table.ffill(axis=1).mean(axis=1))

    def side(arm: object) -> Values:
        return _side(tested, areas, arm, _at_best_lr(results, arm, selection_seeds))

    return PairedValues(side(arm), side(results.baseline))


def largest_lr(results: Results, arm: object, within: float, epochs: int, selection_seeds: Seeds) -> PairedValues:
    """log10 of the largest learning rate that keeps a seed within `within` of its arm's best [S].

    Accuracy is the median of the readings of the last `epochs` epochs. The best is the arm's highest mean accuracy over
    the grid, on the seeds that choose. Where no learning rate keeps a seed there, it counts with the smallest one.
    """
    accuracy = accuracies(results, epochs)
    rates = np.sort(results.runs["lr"].unique().astype(float))
    chosen = np.isin(np.sort(results.runs["seed"].unique()), list(selection_seeds))

    def side(arm: object) -> Values:
        table = np.stack([by_seed(results, accuracy, arm, {"lr": rate}) for rate in rates])  # [rates, S]
        complete = ~np.isnan(table).any(axis=0)
        if not (complete & chosen).any():
            return np.full((~chosen).sum(), np.nan)
        good = table >= table[:, complete & chosen].mean(axis=1).max() - within
        logarithms = np.log10(rates)[:, None]
        found = np.where(complete, np.where(good, logarithms, logarithms[0]).max(axis=0), np.nan)
        return np.asarray(found[~chosen])

    return PairedValues(side(arm), side(results.baseline))


def _times(results: Results, clock: str, target: float, arm: object, *wheres: Where | None) -> PairedValues:
    """Each run's time to an accuracy [S], censored at the horizon. `wheres` select the runs of arm and baseline."""
    curves = readings(results, CURVES)
    status = curves["run"].map(results.runs.set_index("run")["status"])
    horizon = curves["step"].max()
    if clock == "duration":
        horizon = curves[status == "ok"].groupby("run")["duration"].max().min()
    times, missed = {}, {}
    for run, curve in curves[status.isin(MEASURED) & np.isfinite(horizon)].groupby("run"):
        steps, accuracy = curve[clock].to_numpy(float), curve["valid_accuracy"].to_numpy(float)
        diverged = status[curve.index[0]] == "diverged"
        reached = reach(steps, accuracy, 1, target, float(horizon), diverged)
        times[run], missed[run] = reached.time, float(not reached.reached)
    of_run, censored = measured(results, times), measured(results, missed)
    sides = list(zip((arm, results.baseline), wheres or ({}, {}), strict=True))
    found = [_side(results, of_run, *side) for side in sides]
    counts = [int(np.nansum(_side(results, censored, *side))) for side in sides]
    return PairedValues(found[0], found[1], (counts[0], counts[1]))


def _side(results: Results, of_run: pd.Series, arm: object, where: Where | None) -> Values:
    """The values of an arm's runs [S]; NaN where `where` is None, because no run can be chosen."""
    if where is None:
        return np.full(results.runs["seed"].nunique(), np.nan)
    return by_seed(results, of_run, arm, where)


def _at_best_lr(results: Results, arm: object, selection_seeds: Seeds) -> Where | None:
    lr = _best_lr(results, arm, selection_seeds)
    return None if lr is None else {"lr": lr}


def _best_lr(results: Results, arm: object, selection_seeds: Seeds) -> float | None:
    """The learning rate with the arm's highest mean accuracy at the end, on the seeds that choose."""
    chosen = (results.runs[results.axis] == arm) & results.runs["seed"].isin(list(selection_seeds))
    runs = results.runs[chosen]
    return best_lr(accuracies(results)[chosen], runs["lr"], runs["seed"]) if len(runs) else None
