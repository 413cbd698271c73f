"""How the arms of a contrast compare: tables in, plain records out.

arm: one value of the contrast's axis. cell: the runs equal in everything but arm and seed. pair: two runs equal in
everything but the arm. variant: an arm under one value of a parameter that other arms do not have (batch norm's eps,
where the baseline has no norm layer); each variant is compared with the same baseline runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from runner.errors import UserError, allowed, unknown
from runner.pairing import Arms, group, names, pairs, plain
from runner.results import Results
from runner.stats import Interval, paired_interval, welch_interval

At = Literal["last", "best"] | int

FOLDER = "results"
"""The column that says which folder a run is of, where several are compared."""

MEASURED = ("ok", "diverged")
"""Whose metrics count: a run cut off by an error has a last row too, but not the one that was planned."""

NOT_OK = ("diverged", "failed", "oom", "timeout", "interrupted", "missing")
TEST_METRICS = ("test_loss", "test_accuracy")


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, and whether its pairs are proven to be pairs."""

    pairs: int
    weights_differ: int  # pairs whose shared layers did not start from the same weights
    batches_differ: int  # pairs that did not see the same batches, over the epochs both trained
    interval: (
        Interval | None
    )  # of the pairs' differences; of the difference of means (Welch) where not paired; None: no pair

    @property
    def paired(self) -> bool:
        return self.pairs > 0 and not self.weights_differ and not self.batches_differ


@dataclass(frozen=True)
class Row:
    """One arm (or variant of it) in one cell."""

    cell: Mapping[str, object]
    arm: object | None
    variant: Mapping[str, object]
    statuses: Mapping[str, int]  # of all planned runs
    n: int  # runs with a finite value
    mean: float | None
    sd: float | None
    difference: Difference | None  # None for the baseline, and where nothing is contrasted

    @property
    def ok(self) -> int:
        return self.statuses.get("ok", 0)

    @property
    def planned(self) -> int:
        return sum(self.statuses.values())


@dataclass(frozen=True)
class Comparison:
    """What a table says; `runner.tables` says how it looks."""

    metric: str
    at: At
    axis: str | None
    baseline: object | None
    cell_columns: tuple[str, ...]
    variant_columns: tuple[str, ...]
    constant: Mapping[str, object]  # the run parameters that are the same in every run
    rows: tuple[Row, ...]

    @property
    def statuses(self) -> dict[str, int]:
        """How many planned runs ended how, over the whole table."""
        return {status: sum(row.statuses.get(status, 0) for row in self.rows) for status in ("ok", *NOT_OK)}

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as flat records, full precision: the columns of CSV and JSON, and the names `sort` knows."""
        return [self._record(row) for row in self.rows]

    def _record(self, row: Row) -> dict[str, Any]:
        arm = {self.axis: row.arm} if self.axis else {}
        return {
            **row.cell,
            **arm,
            **row.variant,
            "metric": self.metric,
            "at": self.at,
            "n": row.n,
            "ok": row.ok,
            "planned": row.planned,
            "mean": row.mean,
            "sd": row.sd,
            **(_difference_record(row.difference) if self.axis else {}),
            **{status: row.statuses.get(status, 0) for status in NOT_OK},
        }


def _difference_record(difference: Difference | None) -> dict[str, Any]:
    interval = difference.interval if difference else None
    kind = "paired t" if difference and difference.paired else "Welch"
    return {
        "pairs": difference.pairs if difference else None,
        "difference": interval.estimate if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "interval": kind if interval and interval.low is not None else None,
        "paired": ("yes" if difference.paired else "no") if difference else None,
        "weights_differ": difference.weights_differ if difference else None,
        "batches_differ": difference.batches_differ if difference else None,
    }


def compare(
    results: Sequence[Results],
    *,
    metric: str = "valid_accuracy",
    at: At = "last",
    group_by: Sequence[str] | None = None,
    sort: str | None = None,
) -> Comparison:
    """Mean and SD per cell and arm, and each arm's difference to the baseline with its 95% interval.

    `at`: the last epoch, each run's best, or an epoch's number. `group_by`: the parameters that make a cell, instead
    of all that differ; runs then average over the others, and pairs still match in everything but the arm.
    `sort`: a column of `Comparison.records`, `-column` for descending.

    Errors: UserError for tables that cannot be compared, and for a metric, epoch or column there is none of.
    """
    axis, baseline = _contrast(results)
    _check(results, metric, at)
    parameters, facts = _runs(results, metric, at)
    arms = Arms(parameters, axis, baseline)
    cells, variants = _columns(parameters, arms, group_by, several=len(results) > 1)
    constant = [name for name in names(parameters) if name != FOLDER and parameters[name].nunique(dropna=False) == 1]
    comparison = Comparison(
        metric=metric,
        at=at,
        axis=axis,
        baseline=baseline,
        cell_columns=cells,
        variant_columns=variants,
        constant={name: value for name in constant if (value := plain(parameters[name].iloc[0])) is not None},
        rows=_rows(parameters, facts, arms, cells, variants),
    )
    return _sorted(comparison, sort) if sort else comparison


# What is compared


def _contrast(results: Sequence[Results]) -> tuple[str | None, object | None]:
    if not results:
        raise UserError("no results to compare")
    first = results[0]
    if any((other.axis, other.baseline) != (first.axis, first.baseline) for other in results):
        said = [f"{result.folder}: {_contrast_text(result)}" for result in results]
        raise UserError("these results contrast different things: " + "; ".join(said))
    for result in results:
        if first.axis and first.axis not in result.parameters:
            raise UserError(f"{result.folder}: {unknown('column', first.axis, result.parameters)}")
    return first.axis, first.baseline


def _contrast_text(result: Results) -> str:
    return f"{result.axis} against {result.baseline}" if result.axis else "no contrast"


def _check(results: Sequence[Results], metric: str, at: At) -> None:
    for result in results:
        _check_tables(result)
        names = _metrics(result)
        if metric not in names:
            raise UserError(f"{result.folder}: {unknown('metric', metric, names)}")
    if metric in TEST_METRICS:
        if at != "last":
            raise UserError(f"{metric} is measured once, at the end: it has no epoch {at}, only the last one")
        if all(result.runs[metric].isna().all() for result in results):
            raise UserError(f"{metric} is empty: the test set has not been read by any of these runs")
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


def _runs(results: Sequence[Results], metric: str, at: At) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All planned runs of all folders, as two tables with one index: their parameters, and what came of them."""
    parameters, facts = [], []
    for result, label in zip(results, _labels(results), strict=True):
        table = result.runs
        parameters.append(table[list(result.parameters)].assign(**{FOLDER: label}))
        values = _values(result, metric, at).where(table["status"].isin(MEASURED))
        hashes = {name: table[name].fillna("").astype(str) for name in ("weights_hash", "batches_hash")}
        facts.append(pd.DataFrame({"status": table["status"], "value": values, **hashes}))
    together = pd.concat(parameters, ignore_index=True)
    return together[[FOLDER, *together.columns.drop(FOLDER)]], pd.concat(facts, ignore_index=True)


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
        best = "max" if metric.endswith("accuracy") else "min"
        return curve.groupby("run")[metric].agg(best)  # skips NaN, so that it never ranks best
    if at != "last":
        curve = curve[curve["epoch"] <= at]
    # Not groupby().last(), which skips NaN: a run that ended in NaN has no last value.
    last = curve.sort_values("epoch").drop_duplicates("run", keep="last").set_index("run")
    if at != "last":
        # A diverged run stays where it ended; any other that has not got to the epoch has no value there.
        diverged = result.runs.loc[result.runs["status"] == "diverged", "run"]
        last = last[(last["epoch"] == at) | last.index.isin(diverged)]
    return last[metric]


# Cells, arms, pairs


def _columns(
    parameters: pd.DataFrame, arms: Arms, group_by: Sequence[str] | None, *, several: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that tell cells apart, and those that tell an arm's variants apart."""
    known = [name for name in names(parameters) if name != FOLDER or several]
    if group_by is None:
        chosen = [name for name in known if name != "seed" and _differs(parameters[name], arms, name)]
    else:
        for name in group_by:
            if name not in known:
                raise UserError(unknown("column", name, known))
        chosen = list(dict.fromkeys(group_by))
    chosen = [name for name in chosen if name != arms.axis]
    partial = set(arms.partial)
    return tuple(n for n in chosen if n not in partial), tuple(n for n in chosen if n in partial)


def _differs(column: pd.Series, arms: Arms, name: str) -> bool:
    if name in arms.partial:  # differs between arms by nature: only what differs within one tells variants apart
        return bool((column.groupby(arms.code).nunique(dropna=False) > 1).any())
    return column.nunique(dropna=False) > 1


def _rows(
    parameters: pd.DataFrame, facts: pd.DataFrame, arms: Arms, cells: tuple[str, ...], variants: tuple[str, ...]
) -> tuple[Row, ...]:
    axis = [arms.axis] if arms.axis else []
    cell = group(parameters, cells)
    code = group(parameters, [*cells, *axis, *variants])
    statuses = facts.groupby([code, facts["status"]]).size().unstack(fill_value=0)
    moments = facts["value"].groupby(code).agg(["count", "mean", "std"])
    paired = pairs(parameters, facts, arms)
    row_pairs: dict[int, pd.DataFrame] = dict(iter(paired.groupby(code[paired.index])))  # type: ignore[arg-type]

    _, first = np.unique(code, return_index=True)
    order = sorted(first.tolist(), key=lambda i: (cell[i], arms.code[i] != arms.baseline, arms.code[i], code[i]))
    rows = []
    for index in order:
        run, key = parameters.iloc[index], code[index]
        contrasted = arms.axis and arms.code[index] != arms.baseline
        count, mean, sd = moments.loc[key]
        row = Row(
            cell={name: plain(run[name]) for name in cells},
            arm=plain(run[arms.axis]) if arms.axis else None,
            variant={name: plain(run[name]) for name in variants},
            statuses={str(status): int(number) for status, number in statuses.loc[key].items() if number},
            n=int(count),
            mean=plain(mean),
            sd=plain(sd),
            difference=_difference(row_pairs.get(key)) if contrasted else None,
        )
        rows.append(row)
    return tuple(rows)


def _difference(pairs: pd.DataFrame | None) -> Difference:
    if pairs is None:
        return Difference(0, 0, 0, None)
    weights, batches = int(pairs["weights"].sum()), int(pairs["batches"].sum())
    values, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()
    # What is not paired is still matched, run for run: an arm that failed at one lr is not compared across lrs.
    interval = welch_interval(values, baseline) if weights or batches else paired_interval(values - baseline)
    return Difference(len(pairs), weights, batches, interval)


# Small things


def _sorted(comparison: Comparison, sort: str) -> Comparison:
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    records = comparison.records
    if name not in records[0]:
        raise UserError(unknown("column", name, list(records[0])))
    keyed = [(record[name], row) for record, row in zip(records, comparison.rows, strict=True)]
    full = [(value, row) for value, row in keyed if value is not None]
    full.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=descending)
    rows = (*(row for _, row in full), *(row for value, row in keyed if value is None))
    return replace(comparison, rows=rows)
