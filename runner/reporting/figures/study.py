"""A sweep's tables, sorted for drawing: which run is in which panel, and which line of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.comparison import compare
from runner.analysis.metrics import MEASURED, Curve, is_share, read_curves, read_runs
from runner.analysis.pairing import Arms, group, pairs, plain
from runner.analysis.records import ArmRow, Comparison
from runner.analysis.stats.values import Values
from runner.errors import UserError, unknown
from runner.reporting.figures.style import Series, series
from runner.reporting.formats import shown
from runner.storage import results as tables
from runner.storage.results import Results

MOST_SERIES = 10
"""Where nothing is contrasted, so many settings still share a panel."""


@dataclass(frozen=True)
class Study:
    """A sweep to be drawn. Everything per run has the order of `results.runs`."""

    results: Results
    comparison: Comparison
    parameters: pd.DataFrame
    facts: pd.DataFrame
    cell: NDArray[np.int64]
    """Each run's cell: the panel it is in."""
    cells: tuple[str, ...]
    """What a cell's runs have in common, "" where there is but one cell."""
    line: NDArray[np.int64]
    """Each run's arm (or variant of one): its line."""
    lines: tuple[Series, ...]

    @property
    def metric(self) -> str:
        return self.comparison.metric

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Runs that ended as planned, or diverged."""
        return self.facts["status"].isin(MEASURED).to_numpy()

    def groups(self, cell: int) -> Iterator[tuple[Series, NDArray[np.int64]]]:
        """Each line of a cell and its measured runs' positions."""
        for code, line in enumerate(self.lines):
            chosen = np.flatnonzero((self.cell == cell) & (self.line == code) & self.measured)
            if len(chosen):
                yield line, chosen

    def by_epoch(self, column: str) -> pd.DataFrame:
        """A column of metrics.csv, [run, epoch]; a run that diverged keeps the accuracy it ended in."""
        metrics, numbers = self.results.metrics, self.results.runs["run"]
        table = metrics.pivot(index="run", columns="epoch", values=column).reindex(numbers).astype(float)
        if is_share(column):
            end = metrics.sort_values("epoch").drop_duplicates("run", keep="last").set_index("run").reindex(numbers)
            diverged = (self.facts["status"] == "diverged").to_numpy()
            beyond = table.columns.to_numpy()[None, :] > end["epoch"].to_numpy()[:, None]
            table = table.mask(beyond & diverged[:, None], end[column], axis=0)
        return table

    @cached_property
    def curves(self) -> list[Curve]:
        return read_curves([self.results], self.metric)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """By the position of the run that is not the baseline's: `value`, `value_base`."""
        arms = Arms(self.parameters, self.comparison.axis, self.comparison.baseline)
        return pairs(self.parameters, self.facts, arms)

    def row(self, run: int) -> ArmRow | None:
        """The comparison's row that a run is in."""
        parameters = self.parameters.iloc[run]
        for row in self.comparison.planned_rows:
            wanted = {**row.cell, **row.variant}
            if self.comparison.axis:
                wanted[self.comparison.axis] = row.arm
            if all(plain(parameters[name]) == value for name, value in wanted.items()):
                return row
        return None


def study(folder: Path, where: Mapping[str, object] | None = None, target: float | None = None) -> Study:
    """Read a sweep's folder; `where` keeps the runs whose parameters have these values.

    Errors: UserError where there is no sweep, or no run or parameter of `where`.
    """
    results = _only(tables.load(folder), where or {})
    metric = _metric(results)
    comparison = compare([results], metric=metric, target=target)
    parameters, facts = read_runs([results], metric, "last")
    panels, lines = _panels_and_lines(comparison)
    cell, line = group(parameters, panels), group(parameters, lines)
    names = _labels(parameters, line, lines, with_names=comparison.axis is None)
    order = _baseline_first(parameters, line, comparison)
    return Study(
        results=results,
        comparison=comparison,
        parameters=parameters,
        facts=facts,
        cell=cell,
        cells=tuple(_labels(parameters, cell, panels, with_names=True)),
        line=np.argsort(order)[line],
        lines=series([names[code] for code in order], baseline_first=comparison.axis is not None),
    )


def timed_study(folder: Path, where: Mapping[str, object] | None = None, target: float | None = None) -> Study:
    """A `study` with a target: the one given, else `default_target`, where there is one."""
    found = study(folder, where, target)
    default = default_target(found.comparison) if target is None else None
    return found if default is None else study(folder, where, default)


def default_target(comparison: Comparison) -> float | None:
    """An accuracy to time the runs to: the whole percent at or below the best mean the baseline ends with."""
    baseline = [row for row in comparison.planned_rows if row.difference is None and row.mean is not None]
    best = max((row.mean or 0.0 for row in baseline), default=0.0)
    target = math.floor(100 * best + 1e-9) / 100
    return target if is_share(comparison.metric) and target > 0 else None


def _only(results: Results, where: Mapping[str, object]) -> Results:
    kept = np.ones(len(results.runs), dtype=bool)
    for name, value in where.items():
        if name not in results.parameters:
            raise UserError(f"{results.folder}: {unknown('parameter', name, results.parameters)}")
        found = results.runs[name].map(plain)
        kept &= (found == value).to_numpy() | (found.map(shown) == str(value)).to_numpy()
        if not kept.any():
            there = ", ".join(dict.fromkeys(found.map(shown)))
            raise UserError(f"{results.folder}: no run with {name} {value}; there are {there}")
    runs = results.runs[kept].reset_index(drop=True)
    metrics = results.metrics[results.metrics["run"].isin(runs["run"])]
    return replace(results, runs=runs, metrics=metrics.reset_index(drop=True))


def _metric(results: Results) -> str:
    """Validation accuracy; the tutorial's loop has none, and is drawn by its training accuracy."""
    nothing = results.metrics["valid_accuracy"].isna().all() and results.metrics["train_accuracy"].notna().any()
    return "train_accuracy" if nothing else "valid_accuracy"


def _panels_and_lines(comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if comparison.axis:
        return comparison.cell_columns, (comparison.axis, *comparison.variant_columns)
    few = len(comparison.planned_rows) <= MOST_SERIES
    return ((), comparison.cell_columns) if few else (comparison.cell_columns, ())


def _labels(
    parameters: pd.DataFrame, code: NDArray[np.int64], columns: Sequence[str], *, with_names: bool
) -> list[str]:
    """What each code stands for, in the order of the codes."""
    found = []
    for position in np.unique(code, return_index=True)[1]:
        values = {name: plain(parameters[name].iloc[position]) for name in columns}
        told = [
            shown(value) if index == 0 and not with_names else f"{name} {shown(value)}"
            for index, (name, value) in enumerate(values.items())
            if index == 0 or value is not None
        ]
        found.append(", ".join(told))
    return found


def _baseline_first(parameters: pd.DataFrame, line: NDArray[np.int64], comparison: Comparison) -> list[int]:
    codes = list(range(int(line.max()) + 1))
    if comparison.axis is None:
        return codes
    arms = Arms(parameters, comparison.axis, comparison.baseline)
    first = {int(code): int(arms.code[np.flatnonzero(line == code)[0]]) for code in codes}
    return sorted(codes, key=lambda code: (first[code] != arms.baseline, code))


def percent(values: Values | pd.DataFrame | pd.Series) -> Values:
    """Accuracies as a picture's axis shows them."""
    return 100 * np.asarray(values, dtype=float)
