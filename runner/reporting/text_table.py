"""Text for a terminal: tables and sentences that fit its width. Here is the one rule for all of them.

Without a limit (a pipe, and COLUMNS is not set) a table has its full width. Where it is too wide, it takes the first of
these steps after which it fits: short cells, one blank between columns instead of two, then columns leave in their
fixed order, and a line says which. At last, cells are broken into several lines. No character is ever cut off.
"""

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

NARROWEST = 40
"""Below this width, nothing is fitted: the terminal breaks the lines."""


@dataclass(frozen=True)
class TextColumn:
    """A column of a text table."""

    heading: str
    cells: Sequence[str]
    number: bool = False
    leaves: int = 0
    """Where the table is too wide, its columns leave in this order: 1 first. 0 stays."""
    short: Sequence[str] | None = None
    """Shorter cells for a table that is too wide."""
    styles: Sequence[str] = ()


def table_lines(
    columns: Sequence[TextColumn],
    width: int | None = None,
    *,
    ruled: bool = True,
    headings: bool = True,
    sections: Sequence[int] = (),
    color: bool = False,
) -> tuple[list[str], list[str]]:
    """A table as lines that fit `width`, and a note that names the columns that have left: none or one.

    `ruled`: a rule below the headings. `sections` are indices of rows that an empty line follows.

    >>> columns = [TextColumn("arm", ["none", "batch"]), TextColumn("design", ["crossed " * 5] * 2, leaves=1)]
    >>> print(*sum(table_lines(columns, 40), []), sep="\\n")
    arm
    ─────
    none
    batch
    Not shown at this width: design.
    """

    def made(kept: Sequence[TextColumn], gap: int) -> Table:
        return _table(kept, gap, ruled, headings, sections)

    limit = None if width is None else max(width, NARROWEST)
    for kept, gap in _layouts(columns):
        table = made(kept, gap)
        if limit is None or _width_of(table) <= limit:
            break
    left = [column.heading for column in columns if column.leaves and not _has(kept, column)]
    note = [filled(f"Not shown at this width: {', '.join(left)}.", limit)] if left else []
    return _lines_of(table, min(_width_of(table), limit or sys.maxsize), color), note


def _layouts(columns: Sequence[TextColumn]) -> Iterator[tuple[Sequence[TextColumn], int]]:
    """Columns and the gap between them, each layout narrower than the one before."""
    yield columns, 2
    short = [replace(column, cells=column.short or column.cells) for column in columns]
    yield from ((short, 2), (short, 1))
    for turn in sorted({column.leaves for column in columns} - {0}):
        kept = [column for column in short if column.leaves == 0 or column.leaves > turn]
        yield from ((kept, 2), (kept, 1))


def _has(kept: Iterable[TextColumn], column: TextColumn) -> bool:
    return any((other.heading, other.leaves) == (column.heading, column.leaves) for other in kept)


def _table(columns: Sequence[TextColumn], gap: int, ruled: bool, headings: bool, sections: Sequence[int]) -> Table:
    # Without a box, the gap is padding alone. A box adds a blank of its own between columns.
    table = Table(
        box=SIMPLE_HEAD if ruled else None,
        show_header=headings,
        show_edge=False,
        padding=(0, gap - ruled, 0, 0),
        pad_edge=False,
        header_style="bold" if ruled else "",
    )
    for column in columns:
        table.add_column(Text(column.heading), justify="right" if column.number else "left", overflow="fold")
    for index, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        styles = [column.styles[index] if column.styles else "" for column in columns]
        table.add_row(*map(Text, row, styles), end_section=index in sections)
    return table


def _width_of(table: Table) -> int:
    """The width that a table needs so that no cell is broken."""
    return Console(width=100_000, _environ={}).measure(table).maximum


def _lines_of(table: Table, width: int, color: bool) -> list[str]:
    console = Console(
        width=width,
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


def terminal_width() -> int | None:
    """COLUMNS, or the terminal's width. None in a pipe or without an output, where nothing needs to fit."""
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"]) or None
    # Python has no `stdout` if it is closed.
    in_terminal = sys.stdout is not None and sys.stdout.isatty()
    return os.get_terminal_size(sys.stdout.fileno()).columns if in_terminal else None


def filled(text: str, width: int | None, indent: str = "") -> str:
    """A sentence in lines that fit `width`; one line without a limit. `indent` is that of all lines but the first."""
    if width is None:
        return text
    return textwrap.fill(
        text, max(width, NARROWEST), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def fitted(text: str) -> str:
    """A sentence in lines that fit the terminal; one line in a pipe."""
    return filled(text, terminal_width())


def fitted_lines(text: str) -> str:
    """Lines of text, each broken to fit the terminal. What continues a line is indented deeper than its start."""
    width = terminal_width()

    def line(text: str) -> str:
        return filled(text, width, indent=" " * (len(text) - len(text.lstrip()) + 4))

    return "\n".join(map(line, text.split("\n")))


def plain_table(rows: Sequence[Sequence[str]], leave: Sequence[str] = (), width: int | None = None) -> list[str]:
    """Rows of text as lines with aligned columns that fit the terminal. The first row has the headings.

    `leave` names the headings of columns that leave where the table is too wide, in their order.
    """
    headings, *body = rows
    turns = {heading: turn for turn, heading in enumerate(leave, start=1)}
    columns = [
        TextColumn(heading, [row[index] for row in body], leaves=turns.get(heading, 0))
        for index, heading in enumerate(headings)
    ]
    lines, note = table_lines(columns, width or terminal_width(), ruled=False)
    return [*lines, *(["", *note] if note else [])]
