"""Measures of claims about accuracy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from runner.analysis.claims.per_seed import PP, by_seed, difference, least_squares_slopes, levels, measured, values
from runner.analysis.stats.values import Values
from runner.storage.folder import PROBES
from runner.storage.results import Results, readings


def final(results: Results, arm: object, metric: str = "test_accuracy") -> Values:
    """The difference in accuracy at the end [S], in pp."""
    return PP * difference(results, values(results, metric), arm)


def every_other(results: Results, metric: str = "test_accuracy") -> Values:
    """Of each arm but the baseline the difference in accuracy at the end [K, S], in pp."""
    assert results.axis is not None
    arms = [arm for arm in levels(results, results.axis) if arm != results.baseline]
    return np.stack([final(results, arm, metric) for arm in arms])


def interaction(results: Results, arm: object, parameter: str, good: object) -> Values:
    """The mean difference in test accuracy over a parameter's other values, minus that at its good one [S], in pp."""
    accuracy = values(results, "test_accuracy")
    at = {value: difference(results, accuracy, arm, {parameter: value}) for value in levels(results, parameter)}
    bad = [differences for value, differences in at.items() if value != good]
    return np.asarray(PP * (np.mean(bad, axis=0) - at[good]))


def slope(
    results: Results, arm: object, parameter: str, metric: str = "test_accuracy", against: object = None
) -> Values:
    """The least-squares slope of the difference in accuracy against log2 of a parameter [S], in pp per doubling.

    `against` is another arm to compare with than the sweep's baseline.
    """
    of_run = values(results, metric)
    results = results if against is None else replace(results, baseline=against)
    grid = [float(str(value)) for value in levels(results, parameter)]
    table = np.stack([difference(results, of_run, arm, {parameter: value}) for value in grid])  # [B, S]
    return PP * least_squares_slopes(np.log2(grid), table)


def accuracy_at_matched_loss(results: Results, arm: object) -> Values:
    """The difference in validation accuracy at the lowest training loss that both runs of a seed reach [S], in pp.

    Training loss in evaluation mode (the probe `train`), at the ends of epochs; linear between two of them.
    """
    assert results.axis is not None
    probes = readings(results, PROBES)
    losses = probes[probes["measure"] == "eval_train_loss"][["run", "step", "value"]]
    of_run = dict(list(results.metrics.merge(losses, on=["run", "step"]).sort_values("step").groupby("run")))
    lowest = measured(results, results.runs["run"].map({run: rows["value"].min() for run, rows in of_run.items()}))
    ours, theirs = ({results.axis: value} for value in (arm, results.baseline))
    shared = np.maximum(by_seed(results, lowest, ours), by_seed(results, lowest, theirs))  # [S], NaN where one failed
    targets = results.runs["seed"].map(dict(zip(np.sort(results.runs["seed"].unique()), shared, strict=True)))
    found = [
        _accuracy_at_loss(of_run[run], target) if run in of_run and np.isfinite(target) else np.nan
        for run, target in zip(results.runs["run"], targets, strict=True)
    ]
    return PP * difference(results, measured(results, pd.Series(found)), arm)


def _accuracy_at_loss(epochs: pd.DataFrame, target: float) -> float:
    """A run's validation accuracy when its training loss first fell to `target`; NaN where it did not."""
    losses, accuracies = epochs["value"].to_numpy(float), epochs["valid_accuracy"].to_numpy(float)
    if not (losses <= target).any():
        return np.nan
    first = int((losses <= target).argmax())
    before = max(first - 1, 0)
    return float(np.interp(target, losses[[first, before]], accuracies[[first, before]]))
