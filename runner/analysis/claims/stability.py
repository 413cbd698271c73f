"""Measures of claims about stability."""

from __future__ import annotations

import numpy as np
import pandas as pd

from runner.analysis.claims.per_seed import (
    PP,
    Where,
    by_seed,
    difference,
    least_squares_slopes,
    levels,
    measured,
    per_run,
    values,
)
from runner.analysis.metrics import read_runs
from runner.analysis.stats.values import Values
from runner.storage.folder import PROBES
from runner.storage.results import Results, readings


def gradient_slope(results: Results, arm: object, every: int, where: Where) -> Values:
    """How much nearer 0 the slope over layers of log ‖∂L/∂h‖² is before the first step [S]: |arm's| − |baseline's|.

    Of the layers whose number is a multiple of `every`, towards the output; per layer, natural logarithm. Below 0 the
    arm's gradients change less from layer to layer.
    """
    probes = readings(results, PROBES)
    start = probes[(probes["step"] == 0) & (probes["measure"] == "output_gradient_squared")]
    layer = pd.to_numeric(start["layer"], errors="coerce")
    start = start.assign(layer=layer)[(layer > 0) & (layer % every == 0) & (start["value"] > 0)]
    slopes = {}
    for run, rows in start.sort_values("layer").groupby("run"):
        if len(rows) > 1:
            numbers = rows["layer"].to_numpy(float) / every
            slopes[run] = abs(float(least_squares_slopes(numbers, np.log(rows["value"].to_numpy(float))[:, None])[0]))
    return difference(results, measured(results, results.runs["run"].map(slopes)), arm, where)


def diverged(results: Results, arm: object, where: Where) -> Values:
    """The difference in having diverged, 1 or 0 [S]; its sign-flip test is McNemar's exact test."""
    of_run = read_runs([results], "valid_accuracy", "last")[1]["diverged"]
    return difference(results, of_run, arm, where)


def deviation(results: Results, arm: object, metric: str = "test_accuracy") -> Values:
    """The difference in how far a seed is from its arm's median accuracy [S], in pp.

    Levene's test about the median, of pairs.
    """
    assert results.axis is not None
    of_run = values(results, metric)

    def deviations(value: object) -> Values:
        found = by_seed(results, of_run, {results.axis or "": value})
        return np.abs(found - np.nanmedian(found)) if np.isfinite(found).any() else found

    return PP * (deviations(arm) - deviations(results.baseline))


def late_range(results: Results, arm: object) -> Values:
    """The difference in the range of a run's validation accuracy over the later half of its epochs [S], in pp."""
    metrics = results.metrics
    late = metrics[metrics["epoch"] > metrics["epoch"].max() // 2]
    ranges = late.groupby("run")["valid_accuracy"].agg(lambda readings: readings.max() - readings.min())
    # A run that diverged before has none: it lost what it had, down to a constant guess.
    accuracy = metrics.groupby("run")["valid_accuracy"].max()
    lost = results.runs.loc[results.runs["status"] == "diverged", "run"]
    ranges = ranges.reindex(per_run(results).index)
    ranges[lost] = ranges[lost].fillna(accuracy.reindex(lost))
    return PP * difference(results, measured(results, ranges), arm)


def train_loss_gap(results: Results) -> Values:
    """Of each arm but the baseline the largest difference in an epoch's training loss, as it is [K, S]."""
    assert results.axis is not None
    table = results.metrics.pivot_table(index="run", columns="epoch", values="train_loss", dropna=False)
    losses = table.reindex(results.runs["run"])
    gaps = []
    for arm in levels(results, results.axis):
        if arm != results.baseline:
            of_epoch = [np.abs(difference(results, measured(results, losses[epoch]), arm)) for epoch in losses.columns]
            gaps.append(np.max(of_epoch, axis=0))
    return np.stack(gaps)
