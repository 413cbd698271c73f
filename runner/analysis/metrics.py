"""One value per run: a metric at an epoch, or the curve it came along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from runner.analysis.pairing import names
from runner.analysis.stats.effects import Reach, time_to_target
from runner.analysis.stats.values import Values
from runner.errors import UserError, allowed, unknown
from runner.storage.results import Results

At = Literal["last", "best"] | int

FOLDER = "results"
"""The column that says which folder a run is of, where several are compared."""

MEASURED = ("ok", "diverged")
"""Whose metrics count: a run cut off by an error has a last row too, but not the one that was planned."""

TEST_METRICS = ("test_loss", "test_accuracy")


def is_share(metric: str) -> bool:
    """Accuracies are shares: shown in percent, and more is better; of everything else less is."""
    return metric.endswith("accuracy")


def check(results: Sequence[Results], metric: str, at: At) -> None:
    """Errors: UserError for tables that cannot be compared, and for a metric or epoch there is none of."""
    for result in results:
        _check_tables(result)
        names = _metrics(result)
        if metric not in names:
            raise UserError(f"{result.folder}: {unknown('metric', metric, names)}")
    if metric in TEST_METRICS:
        if at != "last":
            raise UserError(f"{metric} is measured once, at the end: it has no epoch {at}, only the last one")
        if all(result.runs[metric].isna().all() for result in results):
            on_test = any("test" in set(result.runs.get("validate_on", ())) for result in results)
            hint = "; these runs validate on the test set: valid_accuracy and valid_loss are of it" if on_test else ""
            raise UserError(f"{metric} is empty: no run has read the test set at its end{hint}")
    if isinstance(at, str):
        if at not in ("last", "best"):
            raise UserError(unknown("epoch", at, ["last", "best"]) + ", or an epoch's number")
    elif not any((result.metrics["epoch"] == at).any() for result in results):
        reached = max((int(r.metrics["epoch"].max()) for r in results if len(r.metrics)), default=0)
        raise UserError(f"no run has an epoch {at}: the last one reached is {reached}")


def _check_tables(result: Results) -> None:
    if result.runs.empty:
        raise UserError(f"{result.folder}: holds no runs")
    if result.runs["run"].duplicated().any():
        raise UserError(f"{result.folder}: runs.csv has more than one row of a run")
    twice = result.metrics.duplicated(["run", "epoch"])
    if twice.any():
        run, epoch = result.metrics.loc[twice, ["run", "epoch"]].iloc[0]
        raise UserError(
            f"{result.folder}: metrics.csv has more than one row of run {run}, epoch {epoch}"
            f" ({twice.sum()} rows too many in all)"
        )


def _metrics(result: Results) -> list[str]:
    """What can be compared: the numbers of metrics.csv that are not a parameter, and the test set's."""
    table = result.metrics
    described = {"run", "epoch", "run_id", *result.parameters}
    # A table without rows has no types to go by: every column may be a number.
    numeric = [name for name in names(table) if table.empty or pd.api.types.is_numeric_dtype(table[name])]
    return [*(name for name in numeric if name not in described), *TEST_METRICS]


# One value per run


def read_runs(results: Sequence[Results], metric: str, at: At) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All planned runs of all folders, as two tables with one index: their parameters, and what came of them.

    `value` is the metric, `accuracy` the validation accuracy at the last epoch, `diverged` 1 or 0; NaN where a run has
    none.
    """
    parameters, facts = [], []
    for result, label in zip(results, _labels(results), strict=True):
        table = result.runs
        parameters.append(table[list(result.parameters)].assign(**{FOLDER: label}))
        measured, diverged = table["status"].isin(MEASURED), table["status"] == "diverged"
        hashes = {name: table[name].fillna("").astype(str) for name in ("weights_hash", "batches_hash")}
        of_run = {
            "status": table["status"],
            "value": _values(result, metric, at).where(measured),
            "accuracy": _last_accuracy(result).where(measured),
            "diverged": diverged.astype(float).where(measured),
        }
        facts.append(pd.DataFrame({**of_run, **hashes}))
    together = pd.concat(parameters, ignore_index=True)
    return together[[FOLDER, *together.columns.drop(FOLDER)]], pd.concat(facts, ignore_index=True)


def _last_accuracy(result: Results) -> pd.Series:
    if "valid_accuracy" not in result.metrics:
        return pd.Series(np.nan, index=result.runs.index)
    values = _values(result, "valid_accuracy", "last")
    return values.mask(values.isna() & (result.runs["status"] == "diverged"), 0.0)  # no number is no survivor's bias


@dataclass(frozen=True)
class Curve:
    """One run's metric, epoch by epoch: optimizer steps and seconds since the run began."""

    steps: Values
    seconds: Values
    values: Values

    def seconds_at(self, step: float) -> float:
        """The seconds at the first reading at or after a step."""
        return float(self.seconds[np.searchsorted(self.steps, step)])


def reach(clock: Values, values: Values, *, metric: str, target: float, horizon: float, diverged: bool) -> Reach:
    """When a run reached a target of a metric on its clock (steps or seconds), censored at the horizon.

    A diverged run never reached it. More of a share is better, less of any other metric.
    """
    if diverged:
        return Reach(horizon, False)
    sign = 1 if is_share(metric) else -1
    return time_to_target(clock, sign * values, sign * target, horizon)


def read_curves(results: Sequence[Results], metric: str) -> list[Curve]:
    """The curve of every planned run, in the order of `read_runs`; empty where a run has no epoch.

    Errors: UserError for a metric that has no curve.
    """
    if metric in TEST_METRICS:
        raise UserError(f"{metric} is measured once, at the end: no time to a target; use a metric of every epoch")
    curves = []
    for result in results:
        table = result.metrics.sort_values(["run", "epoch"], kind="stable")
        columns = [table[name].to_numpy(dtype=np.float64) for name in ("step", "run_duration", metric)]
        numbers = table["run"].to_numpy()
        wanted = result.runs["run"].to_numpy()
        bounds = zip(np.searchsorted(numbers, wanted), np.searchsorted(numbers, wanted, side="right"), strict=True)
        curves += [Curve(*(column[first:last] for column in columns)) for first, last in bounds]
    return curves


def _labels(results: Sequence[Results]) -> list[str]:
    for labels in ([result.name for result in results], [str(result.folder) for result in results]):
        if len(set(labels)) == len(labels):
            return labels
    raise UserError(f"the same results are given twice: {allowed(set(labels))}")


def _values(result: Results, metric: str, at: At) -> pd.Series:
    """The metric of every row of `result.runs`, NaN where there is none that is finite."""
    if metric in TEST_METRICS:
        values = pd.to_numeric(result.runs[metric])
    else:
        values = result.runs["run"].map(_at(result, metric, at)).astype(float)
    return values.where(np.isfinite(values))


def _at(result: Results, metric: str, at: At) -> pd.Series:
    """run → the metric at the chosen epoch."""
    curve = result.metrics[["run", "epoch", metric]]
    if at == "best":
        best = "max" if is_share(metric) else "min"
        # Neither NaN nor the constant guess of a network that has become NaN ranks best; a run that was never
        # anything else stays in with its last epoch.
        sound = np.isfinite(result.metrics["train_loss"]) & ~np.isinf(result.metrics["valid_loss"])
        sound &= result.metrics["valid_loss"].notna() | result.metrics["valid_accuracy"].isna()
        ranked: pd.Series = curve[sound].groupby("run")[metric].agg(best)
        return ranked.combine_first(_at(result, metric, "last"))
    if at != "last":
        curve = curve[curve["epoch"] <= at]
    # Not groupby().last(), which skips NaN: a run that ended in NaN has no last value.
    last = curve.sort_values("epoch").drop_duplicates("run", keep="last").set_index("run")
    if at != "last":
        # A diverged run stays where it ended; any other that has not got to the epoch has no value there.
        diverged = result.runs.loc[result.runs["status"] == "diverged", "run"]
        last = last[(last["epoch"] == at) | last.index.isin(diverged)]
    return last[metric]
