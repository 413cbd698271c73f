"""The columns of a comparison's tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from runner.analysis.metrics import is_share
from runner.analysis.records import ArmRow, Comparison, Difference, Time
from runner.reporting.formats import NOTHING, difference_text, number_format, p_text, shown
from runner.reporting.notes import needs_more_seeds, p_values, why_not_paired


@dataclass(frozen=True)
class Column:
    """One column of the table a person reads."""

    heading: str
    cell: Callable[[ArmRow], str]
    number: bool = False


def columns(comparison: Comparison) -> list[Column]:
    """The columns a person reads. Those that would only repeat `n` are left out."""
    rows = comparison.rows
    table = _who_columns(comparison)
    table.append(Column("n", lambda row: str(row.n), number=True))
    if any((row.n, row.ok) != (row.planned, row.planned) for row in rows):
        table.append(Column("ok", lambda row: f"{row.ok}/{row.planned}", number=True))
    percent = " (%)" if is_share(comparison.metric) else ""
    table.append(Column(f"mean ± SD{percent}", lambda row: _mean(row, comparison.metric), number=True))
    if comparison.axis:
        table.append(Column("difference", lambda row: difference_text(row.difference, comparison.metric)))
        baseline = {tuple(row.cell.items()): row.n for row in rows if row.difference is None}
        if any(
            row.difference and not row.difference.pairs == row.n == baseline.get(tuple(row.cell.items()), row.n)
            for row in rows
        ):
            table.append(Column("pairs", lambda row: str(row.difference.pairs) if row.difference else "", number=True))
        if p_values(comparison):
            table.append(Column("p", lambda row: p_text(row.difference.p_adjusted) if row.difference else ""))
        if comparison.smallest_effect is not None:
            table.append(Column("verdict", _verdict))
            if needs_more_seeds(comparison):
                table.append(Column("needs", _needs, number=True))
        table.append(Column("paired", lambda row: _paired(row.difference)))
    return table


def target_columns(comparison: Comparison) -> list[Column]:
    """The columns of the second table, where a target was given."""
    table = _who_columns(comparison)
    table.append(Column("reached", _reached, number=True))
    for unit in ("steps", "seconds"):
        table.append(Column(unit, _time_cell(unit, _time_mean), number=True))
        if comparison.axis:
            table.append(Column("ratio", _time_cell(unit, _time_ratio)))
    return table


def _who_columns(comparison: Comparison) -> list[Column]:
    table = [_parameter(name, _field("cell", name), comparison) for name in comparison.cell_columns]
    if any(row.own_best_lr for row in comparison.rows):
        table = [replace(column, cell=_lr) if column.heading == "lr" else column for column in table]
    if comparison.axis:
        table.append(_parameter(comparison.axis, lambda row: row.arm, comparison))
    return table + [_parameter(name, _field("variant", name), comparison) for name in comparison.variant_columns]


def _lr(row: ArmRow) -> str:
    return {None: "", "inner": "best ", "edge": "best! "}[row.own_best_lr] + shown(row.cell["lr"])


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
    ratio = time.ratio
    if ratio is None:
        return ""
    return f"{ratio.estimate:.2f}" + ("" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]")


def _verdict(row: ArmRow) -> str:
    if row.difference is None:
        return ""
    return row.difference.verdict.word if row.difference.verdict else NOTHING


def _needs(row: ArmRow) -> str:
    found = row.difference.verdict if row.difference else None
    return str(found.seeds) if found and found.seeds else ""


def _field(part: Literal["cell", "variant"], name: str) -> Callable[[ArmRow], object]:
    return lambda row: row.cell[name] if part == "cell" else row.variant[name]


def _parameter(name: str, get: Callable[[ArmRow], object], comparison: Comparison) -> Column:
    number = all(isinstance(v := get(row), int | float | None) and not isinstance(v, bool) for row in comparison.rows)
    return Column(name, lambda row: shown(get(row)), number)


def _mean(row: ArmRow, metric: str) -> str:
    if row.mean is None:
        return NOTHING
    number = number_format(metric, row.mean)
    return number(row.mean) if row.sd is None else f"{number(row.mean)} ± {number(row.sd)}"


def _paired(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return "yes" if difference.paired else f"no ({why_not_paired(difference)})"
