"""A sweep's tables → the events they were written from, for whoever was not listening."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import UserError
from runner.monitoring.sinks import tell
from runner.monitoring.trackers.tracker import Opener, TrackedRun, TrackedSweep, texts
from runner.storage.folder import CURVES, METRICS, PROBES, RUNS, sole_writer
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunEvent, RunResult
from runner.storage.tables import read_rows

if TYPE_CHECKING:
    from runner.storage.results import Results

Row = TypeVar("Row", EpochRow, CurveRow, ProbeRow)


def events(folder: Path) -> Iterator[RunEvent]:
    """Run by run: its epochs and readings in their order, then its result, where it has one.

    Errors: UserError where a table is damaged.
    """
    tables = {name: _by_run(folder / name) for name in (METRICS, RUNS, CURVES, PROBES)}
    for run_id in _numbers(tables):
        epochs = [_row(EpochRow, row, folder / METRICS) for row in tables[METRICS][run_id]]
        told: list[EpochRow | CurveRow | ProbeRow] = [
            *(_row(CurveRow, row, folder / CURVES) for row in tables[CURVES][run_id]),
            *(_row(ProbeRow, row, folder / PROBES) for row in tables[PROBES][run_id]),
            *epochs,
        ]
        yield from sorted(told, key=lambda event: (event.epoch, isinstance(event, EpochRow)))
        for row in tables[RUNS][run_id]:
            yield _result(row, tuple(epochs), folder / RUNS)


def tracked(results: Results, output: Path | None = None) -> TrackedSweep:
    """A sweep that was trained, as a tracker sees it: the runs that have a row."""
    tables = {name: _by_run(results.folder / name) for name in (METRICS, RUNS)}
    runs = {}
    for run_id, number in _numbers(tables).items():
        row = (tables[METRICS][run_id] or tables[RUNS][run_id])[0]
        runs[run_id] = TrackedRun(number, texts({name: row[name] for name in results.parameters}))
    return TrackedSweep(results.folder, results.name, results.axis, results.grid_keys, len(results.runs), runs, output)


def export(results: Results, opener: Opener, output: Path | None = None) -> str:
    """Tell a tracker a whole sweep; returns where it lies. Errors: UserError, whatever the tracker raises."""
    # What lies beside the sweep is its writer's, which may be at work.
    with nullcontext() if output else sole_writer(results.folder):
        try:
            tracker = opener(tracked(results, output))
            for event in events(results.folder):
                tell(tracker, event)
            tracker.caught_up()
            tracker.close()
        except UserError:
            raise
        except Exception as error:
            message = " ".join(str(error).split())[:300]
            raise UserError(f"{results.folder} was not exported: {type(error).__name__}: {message}") from error
    return tracker.where


Table = Mapping[str, list[dict[str, str]]]


def _by_run(path: Path) -> Table:
    """The rows of each run, by its id."""
    table: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(path):
        table[row["run_id"]].append(row)
    return table


def _numbers(tables: Mapping[str, Table]) -> dict[str, int]:
    """Run id → number, in order, of the runs with an epoch or a result; readings alone say too little of a run."""
    known = {**tables[METRICS], **tables[RUNS]}
    return dict(sorted(((run_id, int(rows[0]["run"])) for run_id, rows in known.items()), key=lambda pair: pair[1]))


_TYPES = {"int": int, "float": float, "str": str}


def _row(kind: type[Row], cells: Mapping[str, str], path: Path) -> Row:
    try:
        values: dict[str, Any] = {each.name: _TYPES[str(each.type)](cells[each.name]) for each in fields(kind)}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a row of run {cells['run']} is damaged: {error}") from None
    return kind(**values)


def _result(cells: Mapping[str, str], rows: tuple[EpochRow, ...], path: Path) -> RunResult:
    def number(name: str) -> float | None:
        try:
            return float(cells[name]) if cells[name] else None
        except ValueError:
            raise UserError(f"{path}: {name} is '{cells[name]}' in the row of run {cells['run']}") from None

    parameters = number("parameters")
    return RunResult(
        run_id=cells["run_id"],
        status=cells["status"],  # type: ignore[arg-type]
        rows=rows,
        parameter_count=None if parameters is None else int(parameters),
        test_loss=number("test_loss"),
        test_accuracy=number("test_accuracy"),
        weights_hash=cells["weights_hash"],
        batches_hash=cells["batches_hash"],
        error=cells["error"],
        trained_as=cells.get("trained_as", ""),
    )
