"""CSV tables: their columns, cells and rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, AnyStr

from runner.errors import UserError

RUN_FIELDS = (
    *("run", "status", "epochs_trained", "parameters", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"),
    *("best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy", "weights_hash", "batches_hash", "trained_as"),
    "error",
)


def table_line(record: Sequence[Any], cells: Sequence[str] = ()) -> str:
    """A line of a table: values, and cells that are text already."""
    return csv_text([[*map(cell, record), *cells]])


def cell(value: object) -> str:
    """One CSV cell: floats in full, lists as JSON, and no text that a spreadsheet would take for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return "'" + value
    return str(value)


def complete_lines(text: AnyStr) -> AnyStr:
    """The text without its last line where that is incomplete: a killed sweep, or one that is being written."""
    end = b"\n" if isinstance(text, bytes) else "\n"
    return text[: text.rfind(end) + 1]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The table's complete rows as text."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path}: the table is damaged: {error}") from None
    return list(csv.DictReader(io.StringIO(complete_lines(text))))


def number_in(row: Mapping[str, Any], name: str, path: Path) -> float:
    """A cell that must be a number. Errors: UserError where a damaged table has something else there."""
    try:
        return float(row[name])
    except (TypeError, ValueError):
        raise UserError(
            f"{path}: {name} is '{row[name]}' in a row of run {row['run']}, not a number: the table is damaged; "
            f"remove that run's rows and resume, or start over with --fresh"
        ) from None


def read_header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        return next(csv.reader(file), [])


def csv_text(records: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
