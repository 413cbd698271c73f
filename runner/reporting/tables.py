"""A comparison as text: for a terminal, a paper, or a program. All formats show the same cells."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import pandas as pd

from runner.analysis.records import ArmRow, Comparison
from runner.reporting.as_json import json_text
from runner.reporting.columns import Column, Part, parts
from runner.reporting.markup import latex, markdown
from runner.reporting.text_table import TextColumn, filled, table_lines, terminal_width
from runner.storage.results import Metric

Format = Literal["table", "csv", "json", "md", "latex"]


def render(comparison: Comparison, format: Format = "table", *, width: int | None = None, color: bool = False) -> str:
    """The comparison as text.

    `csv` and `json` are `Comparison.records` in full precision. `width` and `color` change `table` only. The default
    `width` is the terminal's or COLUMNS; a pipe has no limit.

    >>> from runner.analysis.metrics import of_sweep
    >>> row = ArmRow({"lr": 0.1}, None, {}, {"ok": 3}, n=3, mean=0.9, sd=0.01, difference=None)
    >>> comparison = Comparison(of_sweep("valid_accuracy"), "last", None, None, ("lr",), (), {}, (row,))
    >>> print(render(comparison, "md"))
    valid\\_accuracy at the last epoch, mean ± SD over runs
    <BLANKLINE>
    | lr | n | mean ± SD (%) |
    | ---: | ---: | ---: |
    | 0.1 | 3 | 90.00 ± 1.00 |
    <BLANKLINE>
    """
    match format:
        case "csv":
            return csv_text(comparison.records)
        case "json":
            return json_text(comparison.records)
        case "md":
            return markdown(comparison)
        case "latex":
            return latex(comparison)
        case "table":
            width = width or terminal_width()
            return "\n".join(_page(comparison, part, width, color) for part in parts(comparison))


def render_all(comparisons: Sequence[Comparison], format: Format = "table", *, color: bool = False) -> str:
    """Several comparisons as one text: one table of all records for `csv`, one list for `json`."""
    records = [record for comparison in comparisons for record in comparison.records]
    match format:
        case "csv":
            return csv_text(records)
        case "json":
            return json_text(records)
        case _:
            return "\n".join(render(comparison, format, color=color) for comparison in comparisons)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as CSV, in full precision."""
    # As objects, because an empty cell must not turn 10 pairs into 10.0.
    table = pd.DataFrame(records, dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


def _page(comparison: Comparison, part: Part, width: int | None, color: bool) -> str:
    """Title, table and notes."""
    columns = [_text_column(comparison, column) for column in part.columns]
    table, left = table_lines(columns, width, sections=_ends(comparison.rows), color=color)
    heading, *notes = (filled(text, width or max(map(len, table))) for text in (part.title, *part.notes, *left))
    return "\n".join([heading, "", *table, "", *notes]).rstrip("\n") + "\n"


def _text_column(comparison: Comparison, column: Column) -> TextColumn:
    rows = comparison.rows
    # The notes also say why runs are not paired, so the reason goes first.
    short = [_paired(row) for row in rows] if column.heading == "paired" else None
    styles = [_style(row, column.heading, comparison.metric) for row in rows]
    cells = [column.cell(row) for row in rows]
    return TextColumn(column.heading, cells, column.number, column.leaves, short, styles)


def _ends(rows: Sequence[ArmRow]) -> list[int]:
    """The rows that an empty line follows: the last of each block."""
    ends = [index for index, (row, following) in enumerate(pairwise(rows)) if row.block != following.block]
    # An empty line between blocks, unless sorting has mixed them or each block is one row.
    return ends if len(ends) + 1 == len({row.block for row in rows}) < len(rows) else []


def _paired(row: ArmRow) -> str:
    """Whether a row is paired, without the reason."""
    if row.difference is None:
        return ""
    return "yes" if row.difference.paired else "no"


def _style(row: ArmRow, heading: str, metric: Metric) -> str:
    """Green or red where the interval excludes 0: green where the arm is better."""
    if heading == "paired":
        return "yellow" if row.difference and not row.difference.paired else ""
    interval = row.difference.interval if row.difference and heading == "difference" else None
    if interval is None or (interval.low or 0) <= 0 <= (interval.high or 0):
        return ""
    return "green" if interval.estimate * metric.better > 0 else "red"
