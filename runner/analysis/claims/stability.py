"""Measures of claims about stability."""

import numpy as np
import pandas as pd

from runner.analysis.claims import per_seed
from runner.analysis.claims.per_seed import PP, Where, difference, measured
from runner.analysis.metrics import read_runs
from runner.analysis.stats.values import Values
from runner.storage.folder import PROBES
from runner.storage.results import Results, readings


def gradient_slope(results: Results, arm: object, every: int, where: Where) -> Values:
    """How flat the gradients are over the layers before the first step [S]: |the arm's slope| − |the baseline's|.

    The slope is that of log ‖∂L/∂h‖² (natural logarithm) per layer, towards the output, over the layers whose number is
    a multiple of `every`. Below 0, the arm's gradients change less from layer to layer.
    """
    probes = readings(results, PROBES)
    start = probes[(probes["step"] == 0) & (probes["measure"] == "output_gradient_squared")]
    layer = pd.to_numeric(start["layer"], errors="coerce")
    start = start.assign(layer=layer)[(layer > 0) & (layer % every == 0) & (start["value"] > 0)]
    slopes = {}
    for run, rows in start.sort_values("layer").groupby("run"):
        if len(rows) > 1:
            layers, squares = rows["layer"].to_numpy(float) / every, rows["value"].to_numpy(float)
            slopes[run] = abs(float(per_seed.least_squares_slopes(layers, np.log(squares)[:, None])[0]))
    return difference(results, measured(results, slopes), arm, where)


def diverged(results: Results, arm: object, where: Where) -> Values:
    """The difference in divergence, 1 or 0 per run [S]. Its sign-flip test is McNemar's exact test."""
    of_run = read_runs([results], "valid_accuracy", "last")[1]["diverged"]
    return difference(results, of_run, arm, where)


def deviation(results: Results, arm: object, metric: str = "test_accuracy") -> Values:
    """The difference in how far a seed is from its arm's median accuracy [S], in pp.

    This is Levene's test about the median, but for pairs.
    """
    accuracy = per_seed.values(results, metric)

    def deviations(arm: object) -> Values:
        found = per_seed.by_seed(results, accuracy, arm)
        return np.abs(found - np.nanmedian(found)) if np.isfinite(found).any() else found

    return PP * (deviations(arm) - deviations(results.baseline))


def late_range(results: Results, arm: object) -> Values:
    """The difference in the range of a run's validation accuracy over the later half of its epochs [S], in pp."""
    metrics = results.metrics
    late = metrics[metrics["epoch"] > metrics["epoch"].max() // 2].groupby("run")["valid_accuracy"]
    # A run that diverged before the later half lost all its accuracy. Its range is the best accuracy that it had.
    lost = results.runs.loc[results.runs["status"] == "diverged", "run"]
    best = metrics[metrics["run"].isin(lost)].groupby("run")["valid_accuracy"].max()
    ranges = (late.max() - late.min()).combine_first(best)
    return PP * difference(results, measured(results, ranges), arm)


def train_loss_gap(results: Results) -> Values:
    """The largest difference in an epoch's training loss, for each arm but the baseline [K, S], in nats."""
    losses = results.metrics.pivot_table(index="run", columns="epoch", values="train_loss", dropna=False)
    of_run = [measured(results, losses[epoch]) for epoch in losses]
    arms = per_seed.other_arms(results)
    gaps = [[np.abs(difference(results, losses, arm)) for losses in of_run] for arm in arms]
    return np.asarray(np.max(gaps, axis=1))
