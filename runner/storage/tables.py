"""CSV tables: their columns, cells and rows."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, AnyStr

from runner.config.run_spec import LATER
from runner.errors import UserError
from runner.storage.files import read_text
from runner.storage.folder import CURVES, METRICS, PROBES, RUNS
from runner.storage.rows import CURVE_FIELDS, EPOCH_FIELDS, MEASURES, PROBE_FIELDS

RUN_FIELDS = (
    *("run", "status", "epochs_trained", "parameters", *MEASURES),
    *("best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy", "weights_hash", "batches_hash", "trained_as"),
    *("code_hash", "error"),
)

FIELDS = {
    RUNS: RUN_FIELDS,
    METRICS: ("run", *EPOCH_FIELDS),
    CURVES: ("run", *CURVE_FIELDS),
    PROBES: ("run", *PROBE_FIELDS),
}
"""The first columns of each table. In `RUNS` and `METRICS` the run's parameters follow; in all of them its id."""

ADDED = {"trained_as": "", "code_hash": "", **LATER}
"""The columns that older tables lack, with the value that they have there."""


def cell(value: object) -> str:
    """A value as the text of a CSV cell: floats in full, lists as JSON.

    A text that a spreadsheet would take for a formula gets an apostrophe.

    >>> cell(0.1), cell([100, 100]), cell(None), cell("=A1")
    ('0.1', '[100, 100]', '', "'=A1")
    """
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return "'" + value
    return str(value)


def complete_lines(text: AnyStr) -> AnyStr:
    r"""The text without an incomplete last line. A kill can leave one, and so can a writer that is still at work.

    >>> complete_lines("run,epoch\n1,1\n1,")
    'run,epoch\n1,1\n'
    """
    end = b"\n" if isinstance(text, bytes) else "\n"
    return text[: text.rfind(end) + 1]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The table's complete rows as text. Errors: UserError where the file cannot be read."""
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(complete_lines(read_text(path)))))


def number_in(row: Mapping[str, Any], name: str, path: Path) -> float:
    """A cell that must be a number. Errors: UserError where it is not, which means that the table is damaged."""
    try:
        return float(row[name])
    except (TypeError, ValueError):
        damage = f"{name} of run {row['run']} is '{row[name]}', not a number"
        raise UserError(f"{path}: {damage}; remove that run's rows and resume, or use --fresh") from None


def read_header(path: Path) -> list[str]:
    """The table's columns; none where the file is missing or empty."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        return next(csv.reader(file), [])


def csv_text(records: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
