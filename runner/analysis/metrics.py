"""One value per run: a metric at an epoch, or its curve over the epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from runner.analysis.stats.effects import Reach, time_to_target
from runner.analysis.stats.values import Values
from runner.errors import UserError, allowed, unknown
from runner.storage.results import TEST_METRICS, Metric, Results

At = Literal["last", "best"] | int

FOLDER = "results"
"""The column that says which folder a run comes from, where several folders are compared."""

MEASURED = ("ok", "diverged")
"""The statuses whose metrics count. A run that was cut off has a last row too, but it is not the planned one."""


def is_share(metric: str) -> bool:
    """Whether a sweep's metric is an accuracy. Of an accuracy, more is better; of another metric, less is better.

    >>> is_share("test_accuracy"), is_share("test_loss")
    (True, False)
    """
    return metric.endswith("accuracy")


def of_sweep(name: str) -> Metric:
    """A metric of a sweep, by its name.

    >>> of_sweep("valid_accuracy").words, of_sweep("valid_loss").better
    ('validation accuracy', -1)
    """
    words = name.replace("_", " ").replace("valid", "validation").replace("train", "training")
    return Metric(name, words, is_share(name), 1 if is_share(name) else -1)


def check(results: Sequence[Results], metric: str, at: At) -> None:
    """Check what can be compared.

    Errors: UserError for tables that cannot be compared, and for a metric or an epoch that they do not have.
    """
    for result in results:
        _check_tables(result)
        known = _metrics(result)
        if metric not in known:
            raise UserError(f"{result.folder}: {unknown('metric', metric, known)}")
    if all(metric in result.once for result in results) and at != "last":
        raise UserError(f"{metric} is measured once, at the end: it has no epoch {at}")
    if metric in TEST_METRICS:
        runs = pd.concat([result.runs for result in results])
        if runs[metric].isna().all():
            hint = ""
            if "test" in set(runs.get("validate_on", ())):
                hint = "; these runs validate on the test set: use valid_accuracy or valid_loss"
            raise UserError(f"{metric} is empty: no run has read the test set at its end{hint}")
    if isinstance(at, str):
        if at not in ("last", "best"):
            raise UserError(unknown("epoch", at, ["last", "best"]) + ", or an epoch's number")
        return
    epochs = pd.concat([result.metrics["epoch"] for result in results])
    if not (epochs == at).any():
        reached = 0 if epochs.empty else int(epochs.max())
        raise UserError(f"no run has an epoch {at}: the last one reached is {reached}")


def _check_tables(result: Results) -> None:
    folder, metrics = result.folder, result.metrics
    if result.runs.empty:
        raise UserError(f"{folder}: holds no runs")
    if result.runs["run"].duplicated().any():
        raise UserError(f"{folder}: runs.csv has more than one row of a run")
    rows = metrics[["run", "epoch"]]
    if rows.duplicated().any():
        run, epoch = rows[rows.duplicated()].iloc[0]
        raise UserError(f"{folder}: metrics.csv has more than one row of run {run}, epoch {epoch}")


def _metrics(result: Results) -> list[str]:
    """The metrics that can be compared: the numbers in metrics.csv that are no parameter, and those of the runs."""
    table = result.metrics
    # A table without rows has no types, so every column may be a number.
    numeric = table if table.empty else table.select_dtypes("number")
    described = {"run", "epoch", "run_id", *result.parameters}
    return [*(str(name) for name in numeric if name not in described), *result.once]


def read_runs(results: Sequence[Results], metric: str, at: At) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All planned runs of all folders, as two tables with the same index: their parameters, and their outcomes.

    The outcomes are `status`, `value` (the metric), `accuracy` (validation accuracy at the last epoch), `diverged` (1
    or 0) and the hashes. The numbers are NaN where a run has none.
    """
    parameters, facts = [], []
    for result, label in zip(results, _labels(results), strict=True):
        runs, status = result.runs, result.runs["status"]
        described = runs[list(result.parameters)].copy()
        described.insert(0, FOLDER, label)
        parameters.append(described)
        numbers: dict[str, Any] = {
            "value": _values(result, metric, at),
            "accuracy": _last_accuracy(result),
            "diverged": (status == "diverged").astype(float),
        }
        numbers = {name: values.where(status.isin(MEASURED)) for name, values in numbers.items()}
        if result.stated:
            numbers["diverged"] = np.nan  # Nobody knows which runs of another tool's table diverged.
        names = ("weights_hash", "batches_hash", "code_hash")
        hashes = {name: runs[name].fillna("").astype(str) if name in runs else "" for name in names}
        facts.append(pd.DataFrame({"status": status, **numbers, **hashes}))
    return pd.concat(parameters, ignore_index=True), pd.concat(facts, ignore_index=True)


def _last_accuracy(result: Results) -> pd.Series:
    if "valid_accuracy" not in result.metrics:
        return pd.Series(np.nan, index=result.runs.index)
    values = _values(result, "valid_accuracy", "last")
    # A diverged run without a number counts as 0. Otherwise a learning rate would be judged by its survivors.
    return values.mask(values.isna() & (result.runs["status"] == "diverged"), 0.0)


@dataclass(frozen=True)
class Curve:
    """One run's metric, epoch by epoch: optimizer steps, seconds since the run began, and values."""

    steps: Values
    seconds: Values
    values: Values

    def seconds_at(self, step: float) -> float:
        """The seconds at the first reading at or after a step. After the last reading, the run's mean speed counts."""
        reading = int(np.searchsorted(self.steps, step))
        if reading < len(self.steps):
            return float(self.seconds[reading])
        return float(self.seconds[-1] * step / self.steps[-1])


def reach(clock: Values, values: Values, better: int, target: float, horizon: float, diverged: bool) -> Reach:
    """When a run reached a target of a metric on its clock (steps or seconds), censored at the horizon.

    `better`: 1 where a higher metric is better, else −1. A diverged run never reaches the target.
    """
    if diverged:
        return Reach(horizon, False)
    return time_to_target(clock, better * values, better * target, horizon)


def read_curves(results: Sequence[Results], metric: str) -> list[Curve]:
    """The curve of every planned run, in the order of `read_runs`. It is empty where a run has no epoch.

    Errors: UserError for a metric that has no curve.
    """
    if any(metric in result.once for result in results):
        raise UserError(f"{metric} is measured once, at the end: it has no time to a target")
    curves = []
    for result in results:
        table = result.metrics.sort_values(["run", "epoch"], kind="stable")
        columns = table[["step", "run_duration", metric]].to_numpy(float)
        by_run = {run: columns[rows].T for run, rows in table.groupby("run").indices.items()}
        curves += [Curve(*by_run.get(run, np.zeros((3, 0)))) for run in result.runs["run"]]
    return curves


def _labels(results: Sequence[Results]) -> list[str]:
    for labels in ([result.name for result in results], [str(result.folder) for result in results]):
        if len(set(labels)) == len(labels):
            return labels
    raise UserError(f"the same results are given twice: {allowed(set(labels))}")


def _values(result: Results, metric: str, at: At) -> pd.Series:
    """The metric of every row of `result.runs`; NaN where there is none that is finite."""
    if metric in result.once:
        values = pd.to_numeric(result.runs[metric])
    else:
        values = result.runs["run"].map(_at(result, metric, at)).astype(float)
    return values.where(np.isfinite(values))


def _at(result: Results, metric: str, at: At) -> pd.Series:
    """Run number → the metric at the chosen epoch."""
    metrics = result.metrics
    if at == "best":
        # An epoch of NaN has no rank, and neither has the constant guess of a network that has become NaN. A run
        # without any other epoch counts with its last one.
        sound = np.isfinite(metrics["train_loss"]) & ~np.isinf(metrics["valid_loss"])
        sound &= metrics["valid_loss"].notna() | metrics["valid_accuracy"].isna()
        ranked = metrics[sound].groupby("run")[metric]
        best: pd.Series = ranked.max() if is_share(metric) else ranked.min()
        return best.combine_first(_at(result, metric, "last"))
    if at != "last":
        metrics = metrics[metrics["epoch"] <= at]
    # groupby().last() would skip NaN. A run that ended in NaN has no last value.
    newest = metrics.groupby("run")["epoch"].transform("max")
    last = metrics[metrics["epoch"] == newest].drop_duplicates("run", keep="last").set_index("run")
    if at != "last":
        # A diverged run keeps the value that it ended with. Any other run needs to have got to this epoch.
        diverged = result.runs.loc[result.runs["status"] == "diverged", "run"]
        last = last[(last["epoch"] == at) | last.index.isin(diverged)]
    return last[metric]
