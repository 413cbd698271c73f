"""CSV tables: their columns, cells and rows. A row is one line."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, AnyStr, BinaryIO, get_args

from runner.config.run_spec import LATER
from runner.errors import UserError, printable
from runner.storage import files
from runner.storage.folder import CURVES, METRICS, PROBES, RUNS
from runner.storage.rows import CURVE_FIELDS, EPOCH_FIELDS, MEASURES, PROBE_FIELDS, Status

RUN_FIELDS = (
    *("run", "status", "epochs_trained", "parameters", *MEASURES),
    *("best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy", "weights_hash", "batches_hash"),
    *("curve_rows", "probe_rows", "trained_as", "code_hash", "code_digests", "error"),
)

NUMBERS = (
    *("run", "epochs_trained", "parameters", *MEASURES),
    *("best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy"),
    *("curve_rows", "probe_rows"),
)
"""Those of `RUN_FIELDS` that hold numbers."""

FIELDS = {
    RUNS: RUN_FIELDS,
    METRICS: ("run", *EPOCH_FIELDS),
    CURVES: ("run", *CURVE_FIELDS),
    PROBES: ("run", *PROBE_FIELDS),
}
"""The first columns of each table. In `RUNS` and `METRICS` the run's parameters follow; in all of them its id."""

COUNTS = {METRICS: "epochs_trained", CURVES: "curve_rows", PROBES: "probe_rows"}
"""The column of `RUNS` that says how many rows a run has in each table."""

ADDED = {"trained_as": "", "curve_rows": None, "probe_rows": None, "code_hash": "", "code_digests": ""}
ADDED |= {name: json.dumps(value) if isinstance(value, tuple | dict) else value for name, value in LATER.items()}
"""The columns that older tables lack, with the value that they have there."""

MOST = 1e15
"""No count of anything and no number of seconds is larger."""

_REMEDY = "remove the damaged rows and resume, or use --fresh"

# `batches_hash` is one cell, with 9 characters for each of up to 100,000 epochs.
csv.field_size_limit(2**20)


def cell(value: object) -> str:
    r"""A value as the text of a CSV cell: floats in full, lists as JSON.

    A text with a control character is written as JSON, too. So a row is always one line. A text that a spreadsheet
    would take for a formula gets an apostrophe.

    >>> cell(0.1), cell([100, 100]), cell(None), cell("=A1"), cell("a\rb")
    ('0.1', '[100, 100]', '', "'=A1", '"a\\rb"')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        if printable(value, keep="") != value:
            return json.dumps(value)
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    if isinstance(value, (bool, list, tuple, dict)):
        return json.dumps(value)
    return str(value)


def complete_lines(text: AnyStr) -> AnyStr:
    r"""The text without an incomplete last line. A kill can leave one, and so can a writer that is still at work.

    >>> complete_lines("run,epoch\n1,1\n1,")
    'run,epoch\n1,1\n'
    """
    end = b"\n" if isinstance(text, bytes) else "\n"
    return text[: text.rfind(end) + 1]


class CompleteLines:
    """The complete lines of an open file, as text, from where the file is.

    An incomplete last line is left in the file. `end` is the offset of the byte after the last line that was read.
    """

    def __init__(self, file: BinaryIO, errors: str = "strict") -> None:
        self.file, self.errors, self.end = file, errors, file.tell()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            self.file.seek(self.end)
            raise StopIteration
        self.end += len(line)
        return line.decode(errors=self.errors)


def cells_of(lines: Iterable[str], path: Path, header: Sequence[str] = ()) -> Iterator[list[str]]:
    """The cells of each row of a table. The columns come first, where no header is given.

    Errors: UserError, which names the line, where a row has not a cell for each column.
    """
    reader = csv.reader(lines)
    try:
        if not header:
            header = columns = next(reader, [])
            if columns:
                check_columns(columns, path)
            yield columns
        for cells in filter(None, reader):
            if len(cells) != len(header):
                damage = f"line {reader.line_num} has {len(cells)} cells, not {len(header)}"
                raise UserError(f"{path}: the table is damaged: {damage}; {_REMEDY}")
            yield cells
    except csv.Error as error:
        raise UserError(f"{path}: the table is damaged: line {reader.line_num}: {error}; {_REMEDY}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: not UTF-8") from None


def check_columns(columns: Collection[str], path: Path) -> None:
    """Errors: UserError where a table lacks a column that every bnbench writes."""
    if missing := sorted(
        {*FIELDS.get(path.name, ()), *(["run_id"] if path.name in FIELDS else [])} - {*columns, *ADDED}
    ):
        raise UserError(f"{path}: not a table of bnbench: it has no {', '.join(missing)}")


def each_row(path: Path) -> Iterator[dict[str, str]]:
    """The table's complete rows as text, one at a time; none where there is no table.

    Errors: UserError where the table cannot be read, or is damaged.
    """
    if not files.exists(path):
        return
    with files.reading(path) as file:
        table = cells_of(CompleteLines(file), path)
        header = next(table)
        for cells in table:
            yield dict(zip(header, cells, strict=True))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The table's rows as a list. They take 5 kB each: `each_row` is for a large table."""
    return list(each_row(path))


def as_number(text: str) -> float:
    """The number in a cell; NaN where there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def number_in(row: Mapping[str, Any], name: str, path: Path) -> float:
    """A cell that must be a count or a duration: from 0 to 10^15.

    Errors: UserError where it is not, which means that the table is damaged.
    """
    number = as_number(row[name])
    if not 0 <= number <= MOST:
        raise _damaged_cell(row, name, path)
    return number


def measure_in(row: Mapping[str, Any], name: str, path: Path) -> float:
    """A loss or an accuracy. It may be missing or not finite. Errors: those of `number_in`."""
    try:
        return float(row[name] or "nan")
    except ValueError:
        raise _damaged_cell(row, name, path) from None


def _damaged_cell(row: Mapping[str, Any], name: str, path: Path) -> UserError:
    damage = f"{name} of run {row['run'][:60]} is '{row[name][:60]}', not a number"
    return UserError(f"{path}: the table is damaged: {damage}; {_REMEDY}")


def check_status(status: str, path: Path) -> None:
    """Errors: UserError for a status that no run has."""
    if status not in get_args(Status):
        allowed = ", ".join(get_args(Status))
        raise UserError(f"{path}: the table is damaged: a status is '{status[:60]}', not one of {allowed}; {_REMEDY}")


def read_header(path: Path) -> list[str]:
    """The table's columns; none where the file is missing or empty. Errors: UserError where it cannot be read."""
    if not files.exists(path):
        return []
    try:
        with files.reading(path) as file:
            return next(csv.reader([file.readline(2**20).decode(errors="replace")]), [])
    except csv.Error as error:
        raise UserError(f"{path}: the table is damaged: line 1: {error}; {_REMEDY}") from None


def csv_lines(records: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table, a thousand at a time."""
    remaining = iter(records)
    while some := list(islice(remaining, 1000)):
        yield csv_text(some)


def csv_text(records: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
