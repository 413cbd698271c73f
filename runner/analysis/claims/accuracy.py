"""Measures of claims about accuracy. Accuracies are in pp; at the end, they are medians of the last readings."""

import numpy as np
import pandas as pd

from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.per_seed import (
    PP,
    accuracies,
    by_seed,
    compared,
    least_squares_slopes,
    measured,
    other_arms,
)
from runner.analysis.stats.values import Values
from runner.storage.folder import PROBES
from runner.storage.results import Results, readings


def final(results: Results, arm: object, epochs: int = 1) -> PairedValues:
    """The accuracies at the end [S]."""
    return compared(results, PP * accuracies(results, epochs), arm)


def every_other(results: Results) -> PairedValues:
    """The accuracies at the end, for each arm but the baseline [K, S]."""
    sides = [final(results, arm) for arm in other_arms(results)]
    return PairedValues(np.stack([side.values for side in sides]), np.stack([side.baseline for side in sides]))


def interaction(results: Results, arm: object, parameter: str, good: object) -> PairedValues:
    """How much accuracy depends on a parameter [S].

    It is the mean accuracy over the parameter's other values, minus the accuracy at its value `good`.
    """
    accuracy = PP * accuracies(results)
    levels = results.runs[parameter].unique().tolist()

    def side(arm: object) -> Values:
        at = {value: by_seed(results, accuracy, arm, {parameter: value}) for value in levels}
        return np.asarray(np.mean([found for value, found in at.items() if value != good], axis=0) - at[good])

    return PairedValues(side(arm), side(results.baseline))


def slope(results: Results, arm: object, parameter: str, against: object, epochs: int = 1) -> PairedValues:
    """The least-squares slope of accuracy against log2 of a parameter [S], in pp per doubling.

    `against` is the arm to compare with.
    """
    accuracy = PP * accuracies(results, epochs)
    levels = [float(level) for level in results.runs[parameter].unique()]

    def side(arm: object) -> Values:
        # [levels, S]
        table = np.stack([by_seed(results, accuracy, arm, {parameter: level}) for level in levels])
        return least_squares_slopes(np.log2(levels), table)

    return PairedValues(side(arm), side(against))


def accuracy_at_matched_loss(results: Results, arm: object) -> PairedValues:
    """The validation accuracies at the lowest training loss that both runs of a seed reach [S].

    The training loss is read in evaluation mode (the probe `train`) at the ends of epochs, and interpolated between. An
    accuracy is the median of three epochs, so that one bad step cannot spoil it.
    """
    probes = readings(results, PROBES)
    losses = probes.loc[probes["measure"] == "eval_train_loss", ["run", "step", "value"]]
    epochs = results.metrics.merge(losses, on=["run", "step"]).sort_values("step").groupby("run")
    lowest = measured(results, epochs["value"].min())
    # NaN where one of the two runs failed.
    shared = np.maximum(by_seed(results, lowest, arm), by_seed(results, lowest, results.baseline))
    runs = results.runs.set_index("run")
    targets = runs["seed"].map(pd.Series(shared, np.sort(runs["seed"].unique())))
    found = {run: _accuracy_at_loss(rows, targets[run]) for run, rows in epochs}
    return compared(results, PP * measured(results, found), arm)


def _accuracy_at_loss(epochs: pd.DataFrame, target: float) -> float:
    """A run's validation accuracy when its training loss first fell to `target`; NaN where it did not."""
    losses = epochs["value"].to_numpy(float)
    smooth = epochs["valid_accuracy"].rolling(3, center=True, min_periods=1).median().to_numpy(float)
    hits = np.isfinite(target) & (losses <= target)
    if not hits.any():
        return np.nan
    first = int(hits.argmax())
    around = [first, max(first - 1, 0)]
    return float(np.interp(target, losses[around], smooth[around]))
