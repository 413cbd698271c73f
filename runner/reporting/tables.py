"""How a comparison looks: on a terminal, in a paper, on a page, to a program. One set of cells for all."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.analysis.metrics import is_share
from runner.analysis.records import ArmRow, Comparison
from runner.reporting.columns import Column, columns, target_columns
from runner.reporting.markup import latex, markdown
from runner.reporting.notes import notes, target_title, title

Format = Literal["table", "csv", "json", "md", "latex"]


def render(comparison: Comparison, format: Format = "table", *, width: int | None = None, color: bool = False) -> str:
    """The comparison as text. `width` (default: the terminal's, or COLUMNS, else as wide as it takes) and `color`
    concern `table` only. `csv` and `json` are `Comparison.records` in full precision.
    """
    if format == "table":
        return _table(comparison, width or terminal_width(), color)
    return {"csv": _csv, "json": _json, "md": markdown, "latex": latex}[format](comparison)


def terminal_width() -> int | None:
    """COLUMNS, or the terminal's; None in a pipe, where nothing needs to fit."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"]) or None
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None


def _table(comparison: Comparison, width: int | None, color: bool) -> str:
    layouts = list(_layouts(comparison, columns(comparison)))
    text = _page(comparison, title(comparison), notes(comparison), layouts, width, color)
    if comparison.target is None:
        return text
    shown = target_columns(comparison)
    return text + "\n" + _page(comparison, target_title(comparison), [], [(shown, 2), (shown, 1)], width, color)


def _layouts(comparison: Comparison, shown: list[Column]) -> Iterator[tuple[list[Column], int]]:
    """Columns and the gap between them, each narrower than the one before."""
    # First without the reason why runs are not paired (the notes have it), then closer.
    short = [replace(c, cell=_first_word(c.cell)) if c.heading == "paired" else c for c in shown]
    yield from ((shown, 2), (short, 2), (short, 1))
    if comparison.smallest_effect is not None:  # the verdict says what p does, and the notes what is not paired
        few = [column for column in shown if column.heading not in ("p", "paired")]
        yield from ((few, 2), (few, 1))


def _page(
    comparison: Comparison,
    heading: str,
    below: Sequence[str],
    layouts: Sequence[tuple[list[Column], int]],
    width: int | None,
    color: bool,
) -> str:
    """Heading, the first layout that fits (else the narrowest), and what stands below."""
    for layout, gap in layouts:
        table = _rich_table(comparison, layout, gap)
        needed = width_of(table)
        if width is None or needed <= width:
            break
    lines = lines_of(table, color)
    left_out = [column.heading for column in layouts[0][0] if column.heading not in {c.heading for c in layout}]
    if left_out:
        below = [*below, f"Not shown at this width: {', '.join(left_out)}."]
    heading, *below = (
        textwrap.fill(text, max(width or needed, 40), break_long_words=False, break_on_hyphens=False)
        for text in (heading, *below)
    )
    return "\n".join([heading, "", *lines, "", *below]).rstrip("\n") + "\n"


def width_of(table: Table) -> int:
    """How wide a table has to be for nothing in it to be cut or folded."""
    return Console(width=100_000, _environ={}).measure(table).maximum


def lines_of(table: Table, color: bool = False) -> list[str]:
    """The table as text, never narrower: a terminal folds a long line, but what is cut is lost."""
    console = Console(
        width=width_of(table),
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        force_jupyter=False,  # in a notebook rich would display what is captured, too
        _environ={},
    )
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def empty_table(gap: int) -> Table:
    """A table without an edge, so many blanks between its columns."""
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False, header_style="bold")


def _rich_table(comparison: Comparison, shown: list[Column], gap: int) -> Table:
    table = empty_table(gap)
    for column in shown:
        justify: Literal["left", "right"] = "right" if column.number else "left"
        table.add_column(Text(column.heading), justify=justify, no_wrap=True)
    rows = comparison.rows
    ends = [row.block != following.block for row, following in pairwise(rows)]
    # A gap between cells, unless sorting has mixed them or each is one row.
    apart = sum(ends) + 1 == len({row.block for row in rows}) < len(rows)
    for row, end in zip(rows, [*ends, False], strict=True):
        styles = {"difference": _style(row, comparison.metric), "paired": _doubt(row)}
        table.add_row(
            *(Text(column.cell(row), styles.get(column.heading, "")) for column in shown), end_section=apart and end
        )
    return table


def _first_word(cell: Callable[[ArmRow], str]) -> Callable[[ArmRow], str]:
    return lambda row: cell(row).partition(" ")[0]


def _doubt(row: ArmRow) -> str:
    return "yellow" if row.difference and not row.difference.paired else ""


def _style(row: ArmRow, metric: str) -> str:
    """Green or red where the interval excludes no difference; more is better of accuracy only."""
    interval = row.difference.interval if row.difference else None
    if interval is None or interval.low is None or interval.high is None or interval.low <= 0 <= interval.high:
        return ""
    return "green" if (interval.low > 0) == is_share(metric) else "red"


def _csv(comparison: Comparison) -> str:
    records = pd.DataFrame(comparison.records, dtype=object)  # object: an empty cell must not make 10 pairs 10.0
    return records.to_csv(index=False, lineterminator="\n")


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison.records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
