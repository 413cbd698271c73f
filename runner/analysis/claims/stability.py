"""Measures of claims about stability."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from runner.analysis.claims import per_seed
from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.per_seed import PP, Where, accuracies, compared, measured
from runner.analysis.metrics import read_runs
from runner.analysis.stats.values import Values
from runner.storage.folder import CURVES, PROBES
from runner.storage.results import Results, readings


def vanishing(results: Results, arm: object, every: int, where: Where) -> PairedValues:
    """How much smaller the gradients become per layer towards the input [S]; 0 where they become larger.

    It is the slope of log ‖∂L/∂h‖² (natural logarithm) per layer towards the output, before the first step, over the
    layers whose number is a multiple of `every`; 0 where the slope is negative.
    """
    return _slopes(results, arm, every, where, lambda slope: max(slope, 0.0))


def exploding(results: Results, arm: object, every: int, where: Where) -> PairedValues:
    """How much larger the gradients become per layer towards the input [S]; 0 where they become smaller.

    It is minus the slope of `vanishing`; 0 where that is positive.
    """
    return _slopes(results, arm, every, where, lambda slope: max(-slope, 0.0))


def _slopes(results: Results, arm: object, every: int, where: Where, side: Callable[[float], float]) -> PairedValues:
    probes = readings(results, PROBES)
    start = probes[(probes["step"] == 0) & (probes["measure"] == "output_gradient_squared")]
    layer = pd.to_numeric(start["layer"], errors="coerce")
    start = start.assign(layer=layer)[(layer > 0) & (layer % every == 0) & (start["value"] > 0)]
    slopes = {}
    for run, rows in start.sort_values("layer").groupby("run"):
        if len(rows) > 1:
            layers, squares = rows["layer"].to_numpy(float) / every, rows["value"].to_numpy(float)
            slopes[run] = side(float(per_seed.least_squares_slopes(layers, np.log(squares)[:, None])[0]))
    return compared(results, measured(results, slopes), arm, where)


def diverged(results: Results, arm: object) -> PairedValues:
    """Whether a run diverged, 1 or 0 [S]."""
    return compared(results, read_runs([results], "valid_accuracy", "last")[1]["diverged"], arm)


def deviation(results: Results, arm: object) -> PairedValues:
    """How far a seed's accuracy is from its arm's median [S], in pp.

    This is Levene's test about the median, but for pairs.
    """
    accuracy = PP * accuracies(results)

    def side(arm: object) -> Values:
        found = per_seed.by_seed(results, accuracy, arm)
        return np.abs(found - np.nanmedian(found)) if np.isfinite(found).any() else found

    return PairedValues(side(arm), side(results.baseline))


def late_changes(results: Results, arm: object, share: float) -> PairedValues:
    """How much accuracy changes from reading to reading [S], in pp: a quantile of the absolute changes.

    The changes are those of the second half of the epochs. `share` is the quantile, so that a single bad step, which
    makes two large changes, cannot decide it. A run that diverged before counts with the best accuracy that it had.
    """
    curves = readings(results, CURVES).sort_values("step")
    half = curves["run"].map(results.runs.set_index("run")["epochs"].astype(float)) / 2
    late = curves[curves["epoch"] >= half].groupby("run")["valid_accuracy"]
    changes = late.apply(lambda accuracy: accuracy.diff().abs().quantile(share))
    lost = results.runs.loc[results.runs["status"] == "diverged", "run"]
    best = curves[curves["run"].isin(lost)].groupby("run")["valid_accuracy"].max()
    return compared(results, PP * measured(results, changes.combine_first(best)), arm)


def train_loss_gap(results: Results) -> PairedValues:
    """The largest difference in an epoch's training loss to the baseline, for each other arm [K, S], in nats."""
    losses = results.metrics.pivot_table(index="run", columns="epoch", values="train_loss", dropna=False)
    of_run = [measured(results, losses[epoch]) for epoch in losses]
    gaps = [
        [np.abs(compared(results, losses, arm).differences) for losses in of_run]
        for arm in per_seed.other_arms(results)
    ]
    largest = np.asarray(np.max(gaps, axis=1))
    return PairedValues(largest, np.zeros_like(largest))
