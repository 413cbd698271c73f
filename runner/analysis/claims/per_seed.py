"""From a sweep's tables to one number per seed: what claims are made of.

Every function returns an array [S] over the planned seeds in ascending order, NaN where a run of that seed has no
result, so that a failed run is seen to be missing. A diverged run stays in, with the accuracy it has, and never reaches
a target. Accuracies are in percentage points (pp).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from runner.analysis.metrics import MEASURED, read_runs
from runner.analysis.stats import Values, time_to_target
from runner.errors import UserError
from runner.storage.results import Results, readings
from runner.storage.store import CURVES, PROBES

PP = 100.0

Where = Mapping[str, object]


def values(results: Results, metric: str) -> pd.Series:
    """The metric at the last epoch, a value a run in the order of `results.runs`."""
    return read_runs([results], metric, "last")[1]["value"]


def by_seed(results: Results, of_run: pd.Series, where: Where) -> Values:
    """The value of the one run a seed whose parameters are these. Errors: UserError for none, or several a seed."""
    runs = results.runs
    chosen = np.ones(len(runs), dtype=bool)
    for name, value in where.items():
        chosen &= (runs[name] == value).to_numpy()
    seeds = runs.loc[chosen, "seed"]
    if seeds.empty or seeds.duplicated().any():
        raise UserError(f"{results.folder}: {'no run' if seeds.empty else 'several runs a seed'} with {dict(where)}")
    found = pd.Series(of_run.to_numpy()[chosen], index=seeds.to_numpy(), dtype=float)
    return found.reindex(np.sort(runs["seed"].unique())).to_numpy()


def difference(results: Results, of_run: pd.Series, arm: object, where: Where | None = None) -> Values:
    """Arm minus baseline [S]."""
    assert results.axis is not None
    ours, theirs = ({**(where or {}), results.axis: value} for value in (arm, results.baseline))
    return by_seed(results, of_run, ours) - by_seed(results, of_run, theirs)


def levels(results: Results, name: str) -> list[object]:
    """The values a parameter takes, in the order of the config."""
    return list(results.runs[name].unique().tolist())


def final(results: Results, arm: object, metric: str = "test_accuracy") -> Values:
    """The difference in accuracy at the end [S], in pp."""
    return PP * difference(results, values(results, metric), arm)


def every_other(results: Results, metric: str = "test_accuracy") -> Values:
    """Of each arm but the baseline the difference in accuracy at the end [K, S], in pp."""
    assert results.axis is not None
    arms = [arm for arm in levels(results, results.axis) if arm != results.baseline]
    return np.stack([final(results, arm, metric) for arm in arms])


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


def best_lr(results: Results, arm: object) -> float | None:
    """The learning rate with the arm's highest mean validation accuracy at the end; the smallest of several.

    The mean over the seeds that have a result at every learning rate; None where there is none.
    """
    assert results.axis is not None
    accuracy = values(results, "valid_accuracy")
    rates = sorted(float(rate) for rate in results.runs["lr"].unique())
    table = np.stack([by_seed(results, accuracy, {results.axis: arm, "lr": rate}) for rate in rates])  # [L, S]
    complete = ~np.isnan(table).any(axis=0)
    return rates[int(table[:, complete].mean(axis=1).argmax())] if complete.any() else None


def best_lrs(results: Results, arm: object) -> tuple[str, ...]:
    """In words, the learning rate chosen for each arm, and whether it lies on the edge of the grid."""
    rates = [float(rate) for rate in results.runs["lr"].unique()]
    found = [(value, best_lr(results, value)) for value in (results.baseline, arm)]
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
    of_run = _measured(results, areas.reindex(_per_run(results).index))
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
    return PP * _slopes(np.log2(grid), table)


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
            slopes[run] = abs(float(_slopes(numbers, np.log(rows["value"].to_numpy(float))[:, None])[0]))
    return difference(results, _measured(results, results.runs["run"].map(slopes)), arm, where)


def diverged(results: Results, arm: object, where: Where) -> Values:
    """The difference in having diverged, 1 or 0 [S]; its sign-flip test is McNemar's exact test."""
    of_run = read_runs([results], "valid_accuracy", "last")[1]["diverged"]
    return difference(results, of_run, arm, where)


def accuracy_at_matched_loss(results: Results, arm: object) -> Values:
    """The difference in validation accuracy at the lowest training loss that both runs of a seed reach [S], in pp.

    Training loss in evaluation mode (the probe `train`), at the ends of epochs; linear between two of them.
    """
    assert results.axis is not None
    probes = readings(results, PROBES)
    losses = probes[probes["measure"] == "eval_train_loss"][["run", "step", "value"]]
    of_run = dict(list(results.metrics.merge(losses, on=["run", "step"]).sort_values("step").groupby("run")))
    lowest = _measured(results, results.runs["run"].map({run: rows["value"].min() for run, rows in of_run.items()}))
    ours, theirs = ({results.axis: value} for value in (arm, results.baseline))
    shared = np.maximum(by_seed(results, lowest, ours), by_seed(results, lowest, theirs))  # [S], NaN where one failed
    targets = results.runs["seed"].map(dict(zip(np.sort(results.runs["seed"].unique()), shared, strict=True)))
    found = [
        _accuracy_at_loss(of_run[run], target) if run in of_run and np.isfinite(target) else np.nan
        for run, target in zip(results.runs["run"], targets, strict=True)
    ]
    return PP * difference(results, _measured(results, pd.Series(found)), arm)


def _accuracy_at_loss(epochs: pd.DataFrame, target: float) -> float:
    """A run's validation accuracy when its training loss first fell to `target`; NaN where it did not."""
    losses, accuracies = epochs["value"].to_numpy(float), epochs["valid_accuracy"].to_numpy(float)
    if not (losses <= target).any():
        return np.nan
    first = int((losses <= target).argmax())
    before = max(first - 1, 0)
    return float(np.interp(target, losses[[first, before]], accuracies[[first, before]]))


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
    ranges = ranges.reindex(_per_run(results).index)
    ranges[lost] = ranges[lost].fillna(accuracy.reindex(lost))
    return PP * difference(results, _measured(results, ranges), arm)


def running_against_precise(results: Results, arm: object) -> Values:
    """The arm's validation accuracy with its moving averages, minus that with precise averages [S], in pp."""
    assert results.axis is not None
    probes = readings(results, PROBES)
    of_measure = probes[probes["measure"] == "precise_valid_accuracy"].sort_values("step")
    precise = of_measure.drop_duplicates("run", keep="last").set_index("run")["value"]
    gap = values(results, "valid_accuracy") - _measured(results, precise.reindex(_per_run(results).index))
    return PP * by_seed(results, gap, {results.axis: arm})


def precise_against_running_at_first(results: Results, arm: object) -> Values:
    """The arm's validation accuracy with precise averages minus that with moving averages [S], in pp.

    At the first reading after training began.
    """
    assert results.axis is not None
    first = readings(results, CURVES).sort_values("step").drop_duplicates("run").set_index("run")
    probes = readings(results, PROBES)
    precise = probes[probes["measure"] == "precise_valid_accuracy"].set_index(["run", "step"])["value"]
    found = (
        precise.reindex(pd.MultiIndex.from_arrays([first.index, first["step"]])).to_numpy() - first["valid_accuracy"]
    )
    gap = _measured(results, found.reindex(_per_run(results).index))
    return PP * by_seed(results, gap, {results.axis: arm})


def batch_against_moving(results: Results, arm: object, size: int) -> Values:
    """The arm's validation accuracy with a batch's own statistics minus that with moving averages [S], in pp.

    At the end, on the samples of the probe `batch_statistics`.
    """
    assert results.axis is not None
    probes = readings(results, PROBES).sort_values("step")
    found = []
    for measure in (f"batch_valid_accuracy_{size}", "moving_valid_accuracy"):
        last = probes[probes["measure"] == measure].drop_duplicates("run", keep="last").set_index("run")["value"]
        found.append(last.reindex(_per_run(results).index))
    return PP * by_seed(results, _measured(results, found[0] - found[1]), {results.axis: arm})


def train_loss_gap(results: Results) -> Values:
    """Of each arm but the baseline the largest difference in an epoch's training loss, as it is [K, S]."""
    assert results.axis is not None
    table = results.metrics.pivot_table(index="run", columns="epoch", values="train_loss", dropna=False)
    losses = table.reindex(results.runs["run"])
    gaps = []
    for arm in levels(results, results.axis):
        if arm != results.baseline:
            of_epoch = [np.abs(difference(results, _measured(results, losses[epoch]), arm)) for epoch in losses.columns]
            gaps.append(np.max(of_epoch, axis=0))
    return np.stack(gaps)


def _times(results: Results, curves: pd.DataFrame, clock: str, target: float, horizon: float) -> tuple[pd.Series, bool]:
    """Of every run the time to a validation accuracy, the horizon where it is not reached, and whether any reached."""
    diverged = set(results.runs.loc[results.runs["status"] == "diverged", "run"])
    times = {}
    for run, curve in curves.groupby("run"):
        readings = curve[clock].to_numpy(float), curve["valid_accuracy"].to_numpy(float)
        times[run] = horizon if run in diverged else time_to_target(*readings, target, horizon).time
    of_run = _measured(results, results.runs["run"].map(times))
    return of_run, bool((of_run < horizon).any())


def _relative(results: Results, of_run: pd.Series, reached: bool, ours: Where, theirs: Where) -> Values:
    """The difference between two runs a seed [S], in % of the latter's mean; NaN where no run reached the target."""
    baseline = by_seed(results, of_run, theirs)
    if np.isnan(baseline).all() or not reached:
        return np.full(len(baseline), np.nan)
    return np.asarray(100 * (by_seed(results, of_run, ours) - baseline) / np.nanmean(baseline))


def _at_best_lr(results: Results, arm: object) -> tuple[Where, Where] | None:
    """The parameters of arm and baseline, each at its own best learning rate."""
    ours, theirs = best_lr(results, arm), best_lr(results, results.baseline)
    if ours is None or theirs is None:
        return None
    axis = results.axis or ""
    return {axis: arm, "lr": ours}, {axis: results.baseline, "lr": theirs}


def _slopes(x: Values, table: Values) -> Values:
    """Least-squares slopes of the columns of `table` [N, S] on `x` [N]."""
    centred = x - x.mean()
    return np.asarray(centred @ table / (centred @ centred))


def _per_run(results: Results) -> pd.Series:
    return pd.Series(np.nan, index=results.runs["run"].to_numpy(), dtype=float)


def _measured(results: Results, of_run: pd.Series) -> pd.Series:
    """Without the runs that failed: what they have is not what was planned."""
    return pd.Series(of_run.to_numpy(dtype=float)).where(results.runs["status"].isin(MEASURED).to_numpy())
