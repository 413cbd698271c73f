"""The tables of a sweep → the events they were written from, for a tracker that did not receive them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from runner.errors import UserError
from runner.monitoring.trackers.tracker import Opener, TrackedRun, TrackedSweep, in_short, opened, without_empty
from runner.storage.folder import CURVES, METRICS, PROBES, RUNS, sole_writer
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunEvent, RunResult
from runner.storage.tables import number_in, read_rows

if TYPE_CHECKING:
    from runner.storage.results import Results

Record = TypeVar("Record")

Table = Mapping[str, list[dict[str, str]]]
"""Run id → the rows of the run."""


def events(folder: Path) -> Iterator[RunEvent]:
    """Run by run: its epochs and readings in their order, then its result, where it has one.

    Errors: UserError where a table is damaged.
    """
    epoch_reader, result_reader = TypeAdapter(EpochRow), TypeAdapter(RunResult)
    curve_reader, probe_reader = TypeAdapter(CurveRow), TypeAdapter(ProbeRow)
    tables = {name: _by_run(folder / name) for name in (METRICS, RUNS, CURVES, PROBES)}
    for run_id in _numbers(tables, folder):
        epochs = [_read(epoch_reader, row, folder / METRICS) for row in tables[METRICS][run_id]]
        rows: list[EpochRow | CurveRow | ProbeRow] = [
            *(_read(curve_reader, row, folder / CURVES) for row in tables[CURVES][run_id]),
            *(_read(probe_reader, row, folder / PROBES) for row in tables[PROBES][run_id]),
            *epochs,
        ]
        yield from sorted(rows, key=lambda row: (row.epoch, isinstance(row, EpochRow)))
        for row in tables[RUNS][run_id]:
            values = without_empty({**row, "parameter_count": row["parameters"]})
            yield _read(result_reader, {**values, "rows": tuple(epochs)}, folder / RUNS)


def tracked(results: Results, output: Path | None = None) -> TrackedSweep:
    """A sweep that was trained, as a tracker sees it: the runs that have a row."""
    tables = {name: _by_run(results.folder / name) for name in (METRICS, RUNS)}
    runs = {}
    for run_id, number in _numbers(tables, results.folder).items():
        row = (tables[METRICS][run_id] or tables[RUNS][run_id])[0]
        # An older table lacks the parameters that were added since.
        parameters = {name: row[name] for name in results.parameters if name in row}
        runs[run_id] = TrackedRun(number, without_empty(parameters))
    planned = len(results.runs)
    return TrackedSweep(results.folder, results.name, results.axis, results.grid_keys, planned, runs, output)


def export(results: Results, opener: Opener, output: Path | None = None) -> str:
    """Pass a whole sweep to a tracker. Returns where the tracker's data are.

    Errors: UserError, whatever the tracker raises.
    """
    # Without an output folder the tracker writes beside the tables, where a running sweep may write, too.
    with nullcontext() if output else sole_writer(results.folder):
        try:
            tracker = opened(opener, tracked(results, output), events(results.folder))
            tracker.close()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{results.folder} was not exported: {in_short(error)}") from error
    return tracker.where


def _by_run(path: Path) -> Table:
    table: Table = defaultdict(list)
    for row in read_rows(path):
        table[row["run_id"]].append(row)
    return table


def _numbers(tables: Mapping[str, Table], folder: Path) -> dict[str, int]:
    """Run id → number, by number, of the runs with an epoch or a result. Runs that have only readings are left out."""
    numbers = {
        run_id: int(number_in(rows[0], "run", folder / name))
        for name in (METRICS, RUNS)
        for run_id, rows in tables[name].items()
    }
    return dict(sorted(numbers.items(), key=lambda pair: pair[1]))


def _read(reader: TypeAdapter[Record], cells: Mapping[str, Any], path: Path) -> Record:
    """A row of a table as a record: pydantic turns the text of each cell into the type of its field."""
    try:
        return reader.validate_python(cells)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{path}: {fault['loc'][0]} in a row of run {cells['run']}: {fault['msg']}") from None
