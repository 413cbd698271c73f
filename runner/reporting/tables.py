"""A comparison as text: for a terminal, a paper, or a program. All formats show the same cells."""

import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.analysis.records import ArmRow, Comparison
from runner.reporting.columns import Column, Part, parts
from runner.reporting.markup import latex, markdown
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


def json_text(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as JSON, in full precision."""
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as CSV, in full precision."""
    # As objects, because an empty cell must not turn 10 pairs into 10.0.
    table = pd.DataFrame(records, dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


def terminal_width() -> int | None:
    """COLUMNS, or the terminal's width. None in a pipe or without an output, where nothing needs to fit."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"]) or None
    # Python has no `stdout` if it is closed.
    in_terminal = sys.stdout is not None and sys.stdout.isatty()
    return os.get_terminal_size(sys.stdout.fileno()).columns if in_terminal else None


def fitted(text: str) -> str:
    """A sentence in lines that fit the terminal; one line in a pipe."""
    width = terminal_width()
    return (
        text if width is None else textwrap.fill(text, max(width, 40), break_long_words=False, break_on_hyphens=False)
    )


def _page(comparison: Comparison, part: Part, width: int | None, color: bool) -> str:
    """Title, table and notes. The table has the first layout that fits, or else the narrowest."""
    for columns, gap in _layouts(comparison, part.columns):
        table = _rich_table(comparison, columns, gap)
        needed = width_of(table)
        if width is None or needed <= width:
            break
    kept = {column.heading for column in columns}
    left_out = [column.heading for column in part.columns if column.heading not in kept]
    missing = [f"Not shown at this width: {', '.join(left_out)}."] if left_out else []
    heading, *notes = (
        textwrap.fill(text, max(width or needed, 40), break_long_words=False, break_on_hyphens=False)
        for text in (part.title, *part.notes, *missing)
    )
    return "\n".join([heading, "", *lines_of(table, color), "", *notes]).rstrip("\n") + "\n"


def _layouts(comparison: Comparison, columns: list[Column]) -> Iterator[tuple[list[Column], int]]:
    """Columns and the gap between them, each layout narrower than the one before."""
    # The notes also say why runs are not paired, so the reason goes first.
    short = [replace(c, cell=_paired) if c.heading == "paired" else c for c in columns]
    yield from ((columns, 2), (short, 2), (short, 1))
    # The seeds that are needed are the first to go. The verdict says what p says, and the notes say what is not paired.
    if comparison.smallest_effect is not None:
        for left_out in (("needs",), ("needs", "p", "paired")):
            few = [column for column in short if column.heading not in left_out]
            yield from ((few, 2), (few, 1))


def _paired(row: ArmRow) -> str:
    """Whether a row is paired, without the reason."""
    if row.difference is None:
        return ""
    return "yes" if row.difference.paired else "no"


def _rich_table(comparison: Comparison, columns: Sequence[Column], gap: int) -> Table:
    table = empty_table(gap)
    for column in columns:
        table.add_column(Text(column.heading), justify="right" if column.number else "left", no_wrap=True)
    rows = comparison.rows
    ends = [row.block != following.block for row, following in pairwise(rows)]
    # An empty line between blocks, unless sorting has mixed them or each block is one row.
    apart = sum(ends) + 1 == len({row.block for row in rows}) < len(rows)
    for row, end in zip(rows, [*ends, False], strict=True):
        styles = [_style(row, column.heading, comparison.metric) for column in columns]
        cells = (Text(column.cell(row), style) for column, style in zip(columns, styles, strict=True))
        table.add_row(*cells, end_section=apart and end)
    return table


def _style(row: ArmRow, heading: str, metric: Metric) -> str:
    """Green or red where the interval excludes 0: green where the arm is better."""
    if heading == "paired":
        return "yellow" if row.difference and not row.difference.paired else ""
    interval = row.difference.interval if row.difference and heading == "difference" else None
    if interval is None or (interval.low or 0) <= 0 <= (interval.high or 0):
        return ""
    return "green" if interval.estimate * metric.better > 0 else "red"


# Text tables of every kind


def empty_table(gap: int) -> Table:
    """A table without borders, with a rule below its headings. `gap`: blanks between two columns."""
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False, header_style="bold")


def plain_lines(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows of text as lines with aligned columns, without a rule."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    return lines_of(table)


def width_of(table: Table) -> int:
    """The width that a table needs so that no cell is cut or folded."""
    return Console(width=100_000, _environ={}).measure(table).maximum


def lines_of(table: Table, color: bool = False) -> list[str]:
    """The table as lines of text in its full width. A terminal folds a line that is too long; nothing is cut."""
    console = Console(
        width=width_of(table),
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        # In a notebook, rich would also display the captured text.
        force_jupyter=False,
        _environ={},
    )
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
