"""A sweep's tables, sorted for drawing: the panel of each run, and its line in the panel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.comparison import compare
from runner.analysis.metrics import MEASURED, At, is_share, read_runs
from runner.analysis.pairing import Arms, group, plain
from runner.analysis.records import ArmRow, Comparison
from runner.analysis.selection import Where, only
from runner.reporting.figures.style import Series, series
from runner.reporting.formats import shown
from runner.storage import results as tables
from runner.storage.results import Metric, Results

MOST_SERIES = 10
"""Without a contrast, up to this many settings share a panel. With more settings, each has its own."""


LARGE = 5000
"""Of a sweep with more runs, the page draws and lists only some runs, and says so."""


@dataclass(frozen=True)
class Study:
    """A sweep to be drawn. Arrays and tables with one entry per run have the order of `results.runs`."""

    results: Results
    comparison: Comparison
    parameters: pd.DataFrame
    facts: pd.DataFrame
    arms: Arms
    cell: NDArray[np.int64]
    """The cell of each run. A cell is a panel."""
    cells: tuple[str, ...]
    """The name of each cell: the parameters of its runs, "" where there is only one cell."""
    line: NDArray[np.int64]
    """The arm (or variant of one) of each run. An arm is a line in the panel."""
    lines: tuple[Series, ...]

    @property
    def metric(self) -> Metric:
        """What is drawn: the accuracy on the validation set or, without one, on the training set."""
        return self.comparison.metric

    @property
    def diverged(self) -> NDArray[np.bool_]:
        return (self.facts["status"] == "diverged").to_numpy()

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Runs that ended as planned, or diverged."""
        return self.facts["status"].isin(MEASURED).to_numpy()

    @property
    def empty(self) -> bool:
        """Whether there is no epoch and no value yet."""
        return self.results.metrics.empty and bool(self.facts["value"].isna().all())

    @property
    def large(self) -> bool:
        """Whether the sweep has more than `LARGE` runs."""
        return len(self.results.runs) > LARGE

    def groups(self, cell: int) -> Iterator[tuple[Series, NDArray[np.int64]]]:
        """Each line of a cell and the positions of its measured runs."""
        for code, line in enumerate(self.lines):
            chosen = np.flatnonzero((self.cell == cell) & (self.line == code) & self.measured)
            if len(chosen):
                yield line, chosen

    def by_epoch(self, column: str) -> pd.DataFrame:
        """A column of metrics.csv [run, epoch]. A run that diverged keeps its last accuracy."""
        metrics, numbers = self.results.metrics, self.results.runs["run"]
        table = metrics.pivot(index="run", columns="epoch", values=column)
        table = table.reindex(numbers).astype(float)
        if is_share(column):
            last = metrics.sort_values("epoch").groupby("run").tail(1)
            last = last.set_index("run").reindex(numbers)
            after_last = table.columns.to_numpy()[None, :] > last["epoch"].to_numpy()[:, None]
            table = table.mask(after_last & self.diverged[:, None], last[column], axis=0)
        return table

    def row(self, run: int) -> ArmRow | None:
        """The row of the comparison that holds a run."""
        parameters = self.parameters.iloc[run]
        for row in self.comparison.planned_rows:
            arm = {self.comparison.axis: row.arm} if self.comparison.axis else {}
            wanted = {**row.cell, **row.variant, **arm}
            if all(plain(parameters[name]) == value for name, value in wanted.items()):
                return row
        return None


def at_own_best_lr(study: Study) -> Study | None:
    """The runs of each arm at its own best learning rate, with a panel for each other cell.

    None where the arms have no best learning rate.
    """
    best = [row for row in study.comparison.rows if row.own_best_lr]
    kept = np.zeros(len(study.parameters), dtype=bool)
    for row in best:
        wanted = {**row.cell, **row.variant, str(study.comparison.axis): row.arm}
        kept |= np.logical_and.reduce([study.parameters[name].map(plain) == value for name, value in wanted.items()])
    if not kept.any():
        return None
    others = [name for name in study.comparison.cell_columns if name != "lr"]
    parameters = study.parameters[kept].reset_index(drop=True)
    cell = group(parameters, others)
    names = [
        ", ".join([*filter(None, [name]), *_lrs(best, {other: plain(parameters[other].iloc[run]) for other in others})])
        for name, run in zip(labels(parameters, cell, others), np.unique(cell, return_index=True)[1], strict=True)
    ]
    return replace(
        study,
        results=replace(study.results, runs=study.results.runs[kept].reset_index(drop=True)),
        parameters=parameters,
        facts=study.facts[kept].reset_index(drop=True),
        cell=cell,
        cells=tuple(names),
        line=study.line[kept],
    )


def _lrs(best: Sequence[ArmRow], cell: dict[str, object]) -> list[str]:
    """The learning rate of each arm in a cell: "none lr 0.1"."""
    rows = [row for row in best if all(row.cell[name] == value for name, value in cell.items())]
    return [f"{shown(row.arm)} lr {shown(row.cell['lr'])}" for row in rows]


def study(
    source: Path | Results,
    where: Where | None = None,
    target: float | None = None,
    *,
    metric: str | None = None,
    at: At = "last",
    timed: bool = False,
) -> Study:
    """A sweep's folder, or its tables, for drawing. `where` keeps only the runs whose parameters have these values.

    `metric` is the accuracy on the validation set by default, or on the training set where there is no validation.
    `timed`: without a target, `default_target` is taken, where there is one.
    Errors: UserError where there is no sweep, and for an unknown parameter, metric or epoch.
    """
    results = source if isinstance(source, Results) else tables.load(source, whole=False)
    results = only(results, where or {})
    found = _study(results, metric or _drawn(results), at, target)
    default = default_target(results, found.comparison) if timed and target is None else None
    return found if default is None else _study(results, found.metric.name, at, default)


def _study(results: Results, metric: str | None, at: At, target: float | None) -> Study:
    comparison = compare([results], metric=metric, at=at, target=target)
    parameters, facts = read_runs([results], comparison.metric.name, at)
    arms = Arms(parameters, comparison.axis, comparison.baseline)
    panels, lines = _panels_and_lines(comparison)
    cell, line = group(parameters, panels), group(parameters, lines)
    names = labels(parameters, line, lines, short=comparison.axis is not None)
    baseline = set(line[arms.code == arms.baseline].tolist())
    order = sorted(range(len(names)), key=lambda code: code not in baseline)
    return Study(
        results=results,
        comparison=comparison,
        parameters=parameters,
        facts=facts,
        arms=arms,
        cell=cell,
        cells=tuple(labels(parameters, cell, panels)),
        line=np.argsort(order)[line],
        lines=series([names[code] for code in order], baseline_first=comparison.axis is not None),
    )


def _drawn(results: Results) -> str | None:
    metrics = results.metrics
    if results.stated or metrics["valid_accuracy"].notna().any() or metrics["train_accuracy"].isna().all():
        return None
    return "train_accuracy"  # The tutorial's loop does not validate.


def default_target(results: Results, comparison: Comparison) -> float | None:
    """An accuracy to time the runs to: the best mean at which the baseline ends, rounded down to a whole percent.

    None where the metric is no accuracy or has no curve, as in a table of another tool.
    """
    if not comparison.metric.share or comparison.metric.name in results.once:
        return None
    means = [row.mean or 0.0 for row in comparison.planned_rows if row.difference is None]
    target = math.floor(100 * max(means, default=0.0) + 1e-9) / 100
    return target if target > 0 else None


def _panels_and_lines(comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters that make a panel, and those that make a line in it."""
    if comparison.axis:
        return comparison.cell_columns, (comparison.axis, *comparison.variant_columns)
    few = len(comparison.planned_rows) <= MOST_SERIES
    return ((), comparison.cell_columns) if few else (comparison.cell_columns, ())


def labels(table: pd.DataFrame, code: NDArray[np.int64], columns: Sequence[str], short: bool = False) -> list[str]:
    """The values of `columns` for each code, in the order of the codes. `short` leaves the first name out."""
    found = []
    for position in np.unique(code, return_index=True)[1]:
        values = {name: plain(table[name].iloc[position]) for name in columns}
        known = [name for name in columns if values[name] is not None or name == columns[0]]
        text = ", ".join(f"{name} {shown(values[name])}" for name in known)
        found.append(text.removeprefix(f"{columns[0]} ") if short else text)
    return found


def titled(title: str, cell: str) -> str:
    """A panel's title with the name of its cell, if it has one."""
    return f"{title}, {cell}" if cell else title
