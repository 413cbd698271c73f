"""The tables of a comparison: their titles, columns and notes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runner.analysis.records import ArmRow, Comparison, Difference, Time
from runner.analysis.stats.robust import Robust
from runner.reporting import notes
from runner.reporting.error_notes import has_images
from runner.reporting.formats import (
    NOTHING,
    difference_text,
    effect_text,
    interval_text,
    needed_text,
    number_format,
    p_text,
    percents_text,
    shown,
)
from runner.storage.results import Metric


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, the text of its cell in a row, and whether the cells are numbers."""

    heading: str
    cell: Callable[[Any], str]
    number: bool = False
    leaves: int = 0
    """Where a table is too wide, its columns leave in this order: 1 first. 0 stays. See `text_table`."""


@dataclass(frozen=True)
class Part:
    """One table of a comparison and the text around it. Its rows are `Comparison.rows`."""

    title: str
    columns: list[Column]
    notes: list[str]


def parts(comparison: Comparison) -> list[Part]:
    """The table of differences and, where a target was given, the table of the times to it."""
    found = [Part(notes.title(comparison), columns(comparison), notes.notes(comparison))]
    if comparison.target is not None:
        found.append(Part(notes.target_title(comparison), target_columns(comparison), notes.target_notes(comparison)))
    return found


def robust_part(comparison: Comparison) -> Part | None:
    """The mean differences beside estimates that a few extreme pairs cannot move; None where there are no pairs."""
    metric = comparison.metric

    def add(heading: str, text: Callable[[Robust], str]) -> None:
        def cell(row: ArmRow) -> str:
            return text(row.difference.robust) if row.difference and row.difference.robust else ""

        table.append(Column(heading, cell))

    if not any(row.difference and row.difference.robust for row in comparison.rows):
        return None
    table = _identity_columns(comparison)
    add("mean", lambda found: effect_text(found.mean, metric))
    add("Hodges–Lehmann", lambda found: effect_text(found.hodges_lehmann, metric))
    add("20% trimmed mean", lambda found: effect_text(found.trimmed_mean, metric))
    add("collapsed", lambda found: percents_text(found.collapsed))
    add("collapsed, baseline", lambda found: percents_text(found.collapsed_baseline))
    add("without collapsed", lambda f: effect_text(f.without_collapse, metric) if f.without_collapse else NOTHING)
    title = "The mean difference beside estimates that a few extreme pairs cannot move"
    note = "collapsed: runs that are worse than their arm's median by more than 10 SDs of the arm's bulk."
    return Part(title, table, [note])


def columns(comparison: Comparison) -> list[Column]:
    """The columns of the first table. A column that would only repeat `n` is left out."""
    rows, metric = comparison.rows, comparison.metric
    table = _identity_columns(comparison)
    table.append(Column("n", lambda row: str(row.n), number=True, leaves=5))
    if any(row.ok != row.planned or row.n < row.planned_n for row in rows):
        table.append(Column("ok", lambda row: f"{row.ok}/{row.planned}", number=True))
    percent = " (%)" if metric.share else ""
    if comparison.interaction is None:
        table.append(Column(f"mean ± SD{percent}", lambda row: _mean(row, metric), number=True, leaves=6))
    return [*table, *_difference_columns(comparison)] if comparison.axis else table


def _difference_columns(comparison: Comparison) -> list[Column]:
    """The columns about an arm's difference to the baseline. They are empty in the baseline's own rows."""
    table: list[Column] = []

    def add(heading: str, text: Callable[[Difference], str], number: bool = False, leaves: int = 0) -> None:
        table.append(Column(heading, lambda row: text(row.difference) if row.difference else "", number, leaves))

    add("difference", lambda d: difference_text(d, comparison.metric))
    if has_images(comparison):
        add(
            "over seeds and images",
            lambda d: effect_text(d.over_images, comparison.metric) if d.over_images else NOTHING,
        )
    baseline = {tuple(row.cell.items()): row.n for row in comparison.rows if row.difference is None}
    if not all(
        row.difference.pairs == row.n == baseline.get(tuple(row.cell.items()), row.n)
        for row in comparison.rows
        if row.difference
    ):
        add("pairs", lambda d: str(d.pairs), number=True, leaves=4)
    if notes.p_values(comparison):
        add("p", lambda d: p_text(d.p_adjusted), leaves=3)
    if comparison.smallest_effect is not None:
        add("verdict", lambda d: d.verdict or NOTHING)
        if notes.needs_more_seeds(comparison):
            add("needs", lambda d: needed_text(d.needed) if d.needed else "", number=True, leaves=1)
    paired = f"by {', '.join(comparison.stated.pair_by)}" if comparison.stated else "yes"
    # The verdict and the interval say what p says, and the notes say which rows are not paired.
    add("paired", lambda d: paired if d.paired else f"no ({notes.why_not_paired(d)})", leaves=2)
    return table


def target_columns(comparison: Comparison) -> list[Column]:
    """The columns of the second table, where a target was given."""
    table = _identity_columns(comparison)
    table.append(Column("reached", _reached, number=True))
    for unit, leaves in (("steps", 0), ("seconds", 1)):
        table.append(Column(unit, _time_cell(unit, _time_mean), number=True, leaves=leaves))
        if comparison.axis:
            table.append(Column("ratio", _time_cell(unit, _time_ratio), leaves=leaves))
    return table


def _identity_columns(comparison: Comparison) -> list[Column]:
    """The columns that tell the rows apart: the cell's parameters, the arm, and its variant's parameters."""
    axis = [comparison.axis] if comparison.axis else []
    names = [*comparison.cell_columns, *axis, *comparison.variant_columns]
    return [_parameter_column(name, comparison) for name in names]


def _parameter_column(name: str, comparison: Comparison) -> Column:
    def value(row: ArmRow) -> object:
        return row.arm if name == comparison.axis else {**row.cell, **row.variant}[name]

    def cell(row: ArmRow) -> str:
        best = {None: "", "inner": "best ", "edge": "best! "}[row.own_best_lr]
        return (best if name == "lr" else "") + shown(value(row))

    values = [value(row) for row in comparison.rows]
    number = all(isinstance(v, int | float | None) and not isinstance(v, bool) for v in values)
    return Column(name, cell, number)


def _reached(row: ArmRow) -> str:
    return f"{row.to_target.reached}/{row.to_target.n}" if row.to_target else NOTHING


def _time_cell(unit: str, text: Callable[[Time], str]) -> Callable[[ArmRow], str]:
    def cell(row: ArmRow) -> str:
        time = getattr(row.to_target, unit, None)
        return text(time) if time else NOTHING

    return cell


def _time_mean(time: Time) -> str:
    return f"{time.mean:.0f}" if time.mean >= 100 else f"{time.mean:.3g}"


def _time_ratio(time: Time) -> str:
    if time.ratio is None:
        return ""
    if time.bound == "unknown":
        return NOTHING
    sign = {"at most": "≤ ", "at least": "≥ "}.get(time.bound or "", "")
    return sign + interval_text(time.ratio, "{:.2f}".format)


def _mean(row: ArmRow, metric: Metric) -> str:
    if row.mean is None:
        return NOTHING
    number = number_format(metric, row.mean)
    return number(row.mean) if row.sd is None else f"{number(row.mean)} ± {number(row.sd)}"
