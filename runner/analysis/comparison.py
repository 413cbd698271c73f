"""Compare the arms of a contrast: tables → the records of `runner.analysis.records`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd

from runner.analysis import sequential
from runner.analysis.best_lr import at_own_best_lr
from runner.analysis.differences import dependent, difference_of, divergences, judged
from runner.analysis.interaction import interaction_rows
from runner.analysis.metrics import FOLDER, At, check, of_sweep, read_curves, read_runs
from runner.analysis.pairing import Arms, Codes, group, names, plain
from runner.analysis.records import ArmRow, Comparison
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.streams import shared_seeds
from runner.analysis.target_times import to_target
from runner.errors import UserError, unknown
from runner.storage.contrast_history import Fixed
from runner.storage.result_warnings import warnings_of
from runner.storage.results import Metric, Results, Stated


def compare(
    results: Sequence[Results],
    *,
    metric: str | None = None,
    at: At = "last",
    group_by: Sequence[str] | None = None,
    sort: str | None = None,
    target: float | None = None,
    interaction: str | None = None,
) -> Comparison:
    """The mean and SD of each arm in each cell, and its difference from the baseline with interval, p and verdict.

    `metric`: valid_accuracy by default, or the metric of a table of another tool.
    `at`: the last epoch, each run's best epoch, or an epoch's number.
    `group_by`: the parameters that make a cell. By default these are all that differ. Runs are then averaged over the
    other parameters, and pairs still agree in everything but the arm.
    `sort`: a column of `Comparison.records`; `-column` sorts in descending order.
    `target`: a value of the metric. The steps and seconds that it took are then compared as well.
    `interaction`: a parameter. The rows then say how the differences change from its first value to the others.
    Errors: UserError for tables that cannot be compared, and for an unknown metric, epoch, target or column.
    """
    axis, baseline, smallest_effect = _contrast(results)
    stated = results[0].stated
    runs = _runs(results, axis, baseline, _metric(stated, metric), at, target)
    if interaction or not (runs.metric.share or stated):
        smallest_effect = None  # A sweep's effect is that of a difference in accuracy.
    cells, variants = _columns(runs, group_by, results[0].repeats, several=len(results) > 1)
    _check_counted_once(results, cells)
    rows, reference = _asked_rows(runs, cells, variants, baseline, interaction)
    comparison = Comparison(
        runs.metric,
        stated.at if stated else at,
        axis,
        baseline,
        interaction=reference,
        cell_columns=cells,
        variant_columns=variants,
        constant=_constant(runs.parameters),
        rows=judged(rows, smallest_effect, runs.metric.better),
        smallest_effect=smallest_effect,
        target=target,
        warnings=warnings_of(results),
        fixed=max((result.fixed for result in results), key=get_args(Fixed).index),
        stated=stated,
        sequential=sequential.of(results),
        shared_seeds=shared_seeds(runs.parameters),
        norm_changes=tuple(dict.fromkeys(change for result in results for change in result.norm_changes)),
    )
    return _sorted(_after_a_stop(comparison, alone=len(results) == 1), sort)


def _runs(
    results: Sequence[Results], axis: str | None, baseline: object, metric: Metric, at: At, target: float | None
) -> Runs:
    check(results, metric.name, at)
    parameters, facts = read_runs(results, metric.name, at)
    runs = Runs(parameters, facts, Arms(parameters, axis, baseline), _repeat(parameters, results[0].repeats), metric)
    return _with_target(runs, results, target)


def _repeat(parameters: pd.DataFrame, repeats: Sequence[str]) -> Codes:
    """The repeat of each run. Without a parameter that repeats, every run is one of its own."""
    known = [name for name in repeats if name in parameters]
    return group(parameters, known) if known else np.arange(len(parameters))


def _metric(stated: Stated | None, name: str | None) -> Metric:
    """The metric of a name. `compare` checks that there is one of this name."""
    if stated and name in (None, stated.metric.name):
        return stated.metric
    return of_sweep(name or "valid_accuracy")


def _contrast(results: Sequence[Results]) -> tuple[str | None, object | None, float | None]:
    if not results:
        raise UserError("no results to compare")
    contrasts = [(result.axis, result.baseline, result.smallest_effect) for result in results]
    axis = contrasts[0][0]
    if any(contrast != contrasts[0] for contrast in contrasts):
        shown = "; ".join(f"{result.folder}: {_contrast_text(result)}" for result in results)
        raise UserError(f"these results contrast different things: {shown}")
    for result in results:
        if axis and axis not in result.parameters:
            raise UserError(f"{result.folder}: {unknown('column', axis, result.parameters)}")
    return contrasts[0]


def _check_counted_once(results: Sequence[Results], cells: Sequence[str]) -> None:
    """Folders that are pooled must not hold the same run: it would count as two."""
    if FOLDER in cells:
        return
    ids = pd.concat([result.runs["run_id"].dropna() for result in results])
    if twice := int(ids.duplicated().sum()):
        raise UserError(f"{twice} runs are in more than one of these folders; name '{FOLDER}' in --group-by")


def _constant(parameters: pd.DataFrame) -> dict[str, object]:
    """The parameters that are the same in every run."""
    described = parameters.drop(columns=FOLDER)
    same = names(described.loc[:, described.nunique(dropna=False) == 1])
    constant = {name: plain(described[name].iloc[0]) for name in same}
    return {name: value for name, value in constant.items() if value is not None}


def _contrast_text(result: Results) -> str:
    effect = "" if result.smallest_effect is None else f", smallest effect {result.smallest_effect}"
    return f"{result.axis} against {result.baseline}{effect}" if result.axis else "no contrast"


def _with_target(runs: Runs, results: Sequence[Results], target: float | None) -> Runs:
    if target is None:
        return runs
    metric = runs.metric
    if not np.isfinite(target) or (metric.share and not 0 < target <= 1):
        rule = "a fraction above 0, such as 0.9" if metric.share else "a finite number"
        raise UserError(f"target: {target} is not a {metric.name}; allowed: {rule}")
    return replace(runs, target=target, curves=read_curves(results, metric.name))


def _columns(
    runs: Runs, group_by: Sequence[str] | None, repeats: Sequence[str], *, several: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that distinguish cells, and those that distinguish the variants of an arm."""
    parameters, arms = runs.parameters, runs.arms
    known = [name for name in names(parameters) if name != FOLDER or several]
    if group_by is None:
        chosen = [name for name in known if name not in repeats and _differs(parameters[name], arms)]
    else:
        chosen = list(dict.fromkeys(group_by))
        for name in chosen:
            if name not in known:
                raise UserError(unknown("column", name, known))
    cells = tuple(name for name in chosen if name != arms.axis and name not in arms.partial)
    return cells, tuple(name for name in chosen if name in arms.partial)


def _differs(column: pd.Series, arms: Arms) -> bool:
    if column.name in arms.partial:  # It differs between arms anyway. Variants are what differs within an arm.
        return bool((column.groupby(arms.code).nunique(dropna=False) > 1).any())
    return column.nunique(dropna=False) > 1


def _rows(runs: Runs, cells: tuple[str, ...], variants: tuple[str, ...]) -> tuple[ArmRow, ...]:
    parameters, facts, arms = runs.parameters, runs.facts, runs.arms
    cell = group(parameters, cells)
    code = group(parameters, [*cells, *([arms.axis] if arms.axis else []), *variants])
    statuses = facts.groupby([code, facts["status"]]).size().unstack(fill_value=0)
    moments = runs.by_repeat(facts["value"], code).groupby("row")["value"].agg(["count", "mean", "std"])
    planned_n = pd.Series(runs.repeat).groupby(code).nunique()
    paired = pairs_by_row(runs, facts["value"], code)
    diverged = divergences(runs, code)
    targets = to_target(runs, cell, code)
    contrasted = arms.code != arms.baseline
    order = pd.DataFrame({"cell": cell, "contrasted": contrasted, "arm": arms.code, "row": code})
    rows = []
    for run in order.drop_duplicates("row").sort_values(names(order)).index:
        values = {name: plain(value) for name, value in parameters.loc[run].items()}
        key = code[run]
        count, mean, sd = moments.loc[key]
        row = ArmRow(
            cell={name: values[name] for name in cells},
            arm=values[arms.axis] if arms.axis else None,
            variant={name: values[name] for name in variants},
            statuses={str(status): int(number) for status, number in statuses.loc[key].items() if number},
            n=int(count),
            mean=plain(mean),
            sd=plain(sd),
            difference=difference_of(paired.get(key), runs.metric.better) if contrasted[run] else None,
            divergence=diverged.get(key),
            to_target=targets.get(key),
            planned_n=int(planned_n[key]),
        )
        if runs.best_lr is not None:
            lr, edge = runs.best_lr.loc[run]
            row = replace(row, cell={**row.cell, "lr": plain(lr)}, own_best_lr="edge" if edge else "inner")
        rows.append(row)
    return tuple(rows)


def _asked_rows(
    runs: Runs, cells: tuple[str, ...], variants: tuple[str, ...], baseline: object, interaction: str | None
) -> tuple[tuple[ArmRow, ...], tuple[str, object] | None]:
    """The rows, and the reference of an interaction."""
    rows, reference = _rows(runs, cells, variants), None
    if interaction:
        rows, reference = interaction_rows(runs, cells, variants, interaction, rows)
    elif best := at_own_best_lr(runs, cells, variants, baseline):
        rows += _rows(best, cells, variants)
    return (dependent(rows) if shared_seeds(runs.parameters) else rows), reference


def _after_a_stop(comparison: Comparison, *, alone: bool) -> Comparison:
    """The comparison, with the verdict of the sequential test where a sweep grew until it was decided.

    There is none where it decided by another metric, or where several sweeps are in one table.
    """
    if not comparison.sequential:
        return comparison
    found = next(iter(comparison.sequential.values()))
    same = (comparison.metric, comparison.at) == (sequential.METRIC, "last") and alone
    word = found.standings[-1].word if same and found.seeds else None
    rows = tuple(
        replace(row, difference=row.difference and replace(row.difference, verdict=word, needed=None))
        for row in comparison.rows
    )
    return replace(comparison, rows=rows, grown=found if alone else None)


def _sorted(comparison: Comparison, sort: str | None) -> Comparison:
    """The comparison with its rows sorted by a column, where one is given. Rows without a value come last."""
    if not sort:
        return comparison
    records, name = comparison.records, sort.removeprefix("-")
    if name not in records[0]:
        raise UserError(unknown("column", name, list(records[0])))
    column = [record[name] for record in records]
    full = [index for index, value in enumerate(column) if value is not None]
    full.sort(key=lambda index: (isinstance(column[index], str), column[index]), reverse=sort.startswith("-"))
    empty = [index for index, value in enumerate(column) if value is None]
    return replace(comparison, rows=tuple(comparison.rows[index] for index in full + empty))
