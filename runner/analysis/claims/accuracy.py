"""Measures of claims about accuracy."""

from dataclasses import replace

import numpy as np
import pandas as pd

from runner.analysis.claims.per_seed import PP, by_seed, difference, least_squares_slopes, measured, other_arms, values
from runner.analysis.stats.values import Values
from runner.storage.folder import PROBES
from runner.storage.results import Results, readings


def final(results: Results, arm: object, metric: str = "test_accuracy") -> Values:
    """The difference in accuracy at the end [S], in pp."""
    return PP * difference(results, values(results, metric), arm)


def every_other(results: Results, metric: str = "test_accuracy") -> Values:
    """The difference in accuracy at the end, for each arm but the baseline [K, S], in pp."""
    return np.stack([final(results, arm, metric) for arm in other_arms(results)])


def interaction(results: Results, arm: object, parameter: str, good: object) -> Values:
    """How the difference in test accuracy depends on a parameter [S], in pp.

    It is the mean difference over the parameter's other values, minus the difference at its value `good`.
    """
    accuracy = values(results, "test_accuracy")
    levels = results.runs[parameter].unique().tolist()
    at = {value: difference(results, accuracy, arm, {parameter: value}) for value in levels}
    bad = [differences for value, differences in at.items() if value != good]
    return np.asarray(PP * (np.mean(bad, axis=0) - at[good]))


def slope(
    results: Results, arm: object, parameter: str, metric: str = "test_accuracy", against: object = None
) -> Values:
    """The least-squares slope of the difference in accuracy against log2 of a parameter [S], in pp per doubling.

    `against` is another arm to compare with, instead of the baseline.
    """
    accuracy = values(results, metric)
    if against is not None:
        results = replace(results, baseline=against)
    levels = [float(level) for level in results.runs[parameter].unique()]
    # [levels, S]
    table = np.stack([difference(results, accuracy, arm, {parameter: level}) for level in levels])
    return PP * least_squares_slopes(np.log2(levels), table)


def accuracy_at_matched_loss(results: Results, arm: object) -> Values:
    """The difference in validation accuracy at the lowest training loss that both runs of a seed reach [S], in pp.

    The training loss is read in evaluation mode (the probe `train`) at the ends of epochs, and interpolated between.
    """
    probes = readings(results, PROBES)
    losses = probes.loc[probes["measure"] == "eval_train_loss", ["run", "step", "value"]]
    epochs = results.metrics.merge(losses, on=["run", "step"]).sort_values("step").groupby("run")
    lowest = measured(results, epochs["value"].min())
    # NaN where one of the two runs failed.
    shared = np.maximum(by_seed(results, lowest, arm), by_seed(results, lowest, results.baseline))
    runs = results.runs.set_index("run")
    targets = runs["seed"].map(pd.Series(shared, np.sort(runs["seed"].unique())))
    accuracies = {run: _accuracy_at_loss(rows, targets[run]) for run, rows in epochs}
    return PP * difference(results, measured(results, accuracies), arm)


def _accuracy_at_loss(epochs: pd.DataFrame, target: float) -> float:
    """A run's validation accuracy when its training loss first fell to `target`; NaN where it did not."""
    losses, accuracies = epochs["value"].to_numpy(float), epochs["valid_accuracy"].to_numpy(float)
    hits = np.isfinite(target) & (losses <= target)
    if not hits.any():
        return np.nan
    first = int(hits.argmax())
    around = [first, max(first - 1, 0)]
    return float(np.interp(target, losses[around], accuracies[around]))
