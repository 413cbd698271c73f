"""How the arms of a contrast compare: tables in, the records of `runner.analysis.records` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from runner.analysis.best_lr import at_own_best_lr
from runner.analysis.differences import difference_of, divergences, judged
from runner.analysis.metrics import FOLDER, At, check, is_share, read_curves, read_runs
from runner.analysis.pairing import Arms, group, names, plain
from runner.analysis.records import ArmRow, Comparison
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.target_times import to_target
from runner.errors import UserError, unknown
from runner.storage.results import Results


def compare(
    results: Sequence[Results],
    *,
    metric: str = "valid_accuracy",
    at: At = "last",
    group_by: Sequence[str] | None = None,
    sort: str | None = None,
    target: float | None = None,
) -> Comparison:
    """Mean and SD per cell and arm, and each arm's difference to the baseline: its 95% interval, p and verdict.

    `at`: the last epoch, each run's best, or an epoch's number. `group_by`: the parameters that make a cell, instead
    of all that differ; runs then average over the others, and pairs still match in everything but the arm.
    `sort`: a column of `Comparison.records`, `-column` for descending. `target`: a value of the metric; how many steps
    and seconds it took is compared as well.

    Errors: UserError for tables that cannot be compared, and for a metric, epoch, target or column there is none of.
    """
    axis, baseline, smallest_effect = _contrast(results)
    check(results, metric, at)
    parameters, facts = read_runs(results, metric, at)
    curves = None if target is None else read_curves(results, metric)
    runs = Runs(parameters, facts, Arms(parameters, axis, baseline), metric, _checked(target, metric), curves)
    cells, variants = _columns(parameters, runs.arms, group_by, several=len(results) > 1)
    if FOLDER not in cells:
        _check_counted_once(results)
    constant = [name for name in names(parameters) if name != FOLDER and parameters[name].nunique(dropna=False) == 1]
    best = at_own_best_lr(runs, cells, variants, baseline)
    rows = _rows(runs, cells, variants) + (_rows(best, cells, variants) if best else ())
    smallest_effect = smallest_effect if is_share(metric) else None  # it is one of accuracy
    comparison = Comparison(
        metric=metric,
        at=at,
        axis=axis,
        baseline=baseline,
        cell_columns=cells,
        variant_columns=variants,
        constant={name: value for name in constant if (value := plain(parameters[name].iloc[0])) is not None},
        rows=judged(rows, smallest_effect),
        smallest_effect=smallest_effect,
        target=target,
    )
    return _sorted(comparison, sort) if sort else comparison


# What is compared


def _contrast(results: Sequence[Results]) -> tuple[str | None, object | None, float | None]:
    if not results:
        raise UserError("no results to compare")
    first = results[0]
    same = (first.axis, first.baseline, first.smallest_effect)
    if any((other.axis, other.baseline, other.smallest_effect) != same for other in results):
        said = [f"{result.folder}: {_contrast_text(result)}" for result in results]
        raise UserError("these results contrast different things: " + "; ".join(said))
    for result in results:
        if first.axis and first.axis not in result.parameters:
            raise UserError(f"{result.folder}: {unknown('column', first.axis, result.parameters)}")
    return same


def _check_counted_once(results: Sequence[Results]) -> None:
    """Folders that are pooled must not hold the same run twice: it would count as two."""
    ids = pd.concat([result.runs["run_id"].dropna() for result in results])
    if twice := int(ids.duplicated().sum()):
        raise UserError(f"{twice} runs stand in more than one of these folders; name '{FOLDER}' in --group-by")


def _contrast_text(result: Results) -> str:
    effect = "" if result.smallest_effect is None else f", smallest effect {result.smallest_effect}"
    return f"{result.axis} against {result.baseline}{effect}" if result.axis else "no contrast"


def _checked(target: float | None, metric: str) -> float | None:
    if target is not None and (not np.isfinite(target) or (is_share(metric) and not 0 < target <= 1)):
        rule = "a fraction above 0, such as 0.9" if is_share(metric) else "a finite number"
        raise UserError(f"target: {target} is no {metric}; allowed: {rule}")
    return target


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


def _rows(runs: Runs, cells: tuple[str, ...], variants: tuple[str, ...]) -> tuple[ArmRow, ...]:
    parameters, facts, arms = runs.parameters, runs.facts, runs.arms
    axis = [arms.axis] if arms.axis else []
    cell = group(parameters, cells)
    code = group(parameters, [*cells, *axis, *variants])
    statuses = facts.groupby([code, facts["status"]]).size().unstack(fill_value=0)
    moments = facts["value"].groupby(code).agg(["count", "mean", "std"])
    paired = pairs_by_row(runs, facts["value"], code)
    diverged = divergences(runs, code)
    targets = to_target(runs, cell, code)

    _, first = np.unique(code, return_index=True)
    order = sorted(first.tolist(), key=lambda i: (cell[i], arms.code[i] != arms.baseline, arms.code[i], code[i]))
    rows = []
    for index in order:
        run, key = parameters.iloc[index], code[index]
        contrasted = arms.axis and arms.code[index] != arms.baseline
        count, mean, sd = moments.loc[key]
        row = ArmRow(
            cell={name: plain(run[name]) for name in cells},
            arm=plain(run[arms.axis]) if arms.axis else None,
            variant={name: plain(run[name]) for name in variants},
            statuses={str(status): int(number) for status, number in statuses.loc[key].items() if number},
            n=int(count),
            mean=plain(mean),
            sd=plain(sd),
            difference=difference_of(paired.get(key), runs.better) if contrasted else None,
            divergence=diverged.get(key),
            to_target=targets.get(key),
        )
        if runs.best_lr is not None:
            lr, edge = runs.best_lr.iloc[index]
            row = replace(row, cell={**row.cell, "lr": plain(lr)}, own_best_lr="edge" if edge else "inner")
        rows.append(row)
    return tuple(rows)


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
