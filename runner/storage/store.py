"""Write a sweep's folder. The driver is its only writer. A stored row is on the disk when the call returns, or at
the end of the block `together`.

`results/<name>/` holds `metrics.csv` (a row per run per epoch), `runs.csv` (a row per run), `config.yaml` (resolved,
can be run again), `environment.json` and `run.log`. Where a config asks for them, it also holds `curves.csv` (readings
within an epoch), `probes.csv` (a row per measure), and files that each run has one of (`run_files.py`). The driver's
sweeps also have `stacks.json` (which runs train together).
"""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from runner.errors import printable
from runner.storage import files, plugin_sources, run_files, stacks
from runner.storage.checkpoint_files import CheckpointFiles
from runner.storage.code_versions import code_digests, code_hash
from runner.storage.folder import CHECKPOINTS, CONFIG, CONTRAST, CURVES, ENVIRONMENT, LOG, METRICS, PROBES, RUNS, STACKS
from runner.storage.repeated_runs import RepeatedRuns
from runner.storage.resume import (
    changed_environment,
    check_headers,
    continuable,
    environment_text,
    finished_runs,
    results_of,
    was_changed,
)
from runner.storage.row_lines import Parameters, RowLines
from runner.storage.rows import Checkpoint, CurveRow, EpochRow, ProbeRow, RunResult, Shortfall, Single
from runner.storage.run_files import PREDICTIONS, WEIGHTS, RunFiles
from runner.storage.stacks import Stacks
from runner.storage.table_rows import TableRows
from runner.storage.tables import ADDED, COUNTS, cell, csv_lines, csv_text


class Store:
    """The tables of one sweep, written by one process (`sole_writer`).

    `columns` are the names of the run parameters in the tables. `runs` maps each planned run's id to its parameters,
    in the sweep's order. A run's number is its position, from 1. Checkpoints are in `checkpoint_folder`, or in the
    sweep's folder where there is none.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], runs: Parameters, checkpoint_folder: Path | None = None
    ) -> None:
        self.folder, self.runs, self.lines = folder, runs, RowLines(columns, runs)
        self.number = self.lines.number
        self.checkpoints = CheckpointFiles(checkpoint_folder or folder / CHECKPOINTS)
        folder.mkdir(parents=True, exist_ok=True)
        self.stacks = Stacks()
        # the cells of runs.csv that say which code trains
        self._code: dict[str, Any] = {}
        self._repeated = RepeatedRuns(folder)
        # table → lines that wait for their epoch's row
        self._readings: dict[str, list[str]] = {}
        # table → run id → its rows, of the tables of readings
        self._counts: dict[str, Counter[str]] = {CURVES: Counter(), PROBES: Counter()}
        # table → lines to write `together`, and the runs whose results are among them
        self._waiting: dict[str, list[str]] | None = None
        self._ended: set[str] = set()

    def add(self, run_id: str) -> None:
        """Plan one more run, which was added to `runs`. It gets the next number."""
        self.number[run_id] = len(self.number) + 1

    def start(self, environment: Mapping[str, Any], config: str | None = None) -> None:
        """Begin an empty sweep. Existing tables in the folder are replaced, and the config is written last.

        So a folder with this sweep's config has this sweep's tables. After an earlier kill, starting again is safe.
        """
        self.checkpoints.keep_only([])
        plugin_sources.delete(self.folder)
        self._code = {"code_hash": code_hash(environment), "code_digests": code_digests(environment)}
        headers = self.lines.headers
        for name in {CURVES, PROBES, STACKS, CONTRAST} - set(headers):
            files.delete(self.folder / name)
        texts = {name: csv_text([header]) for name, header in headers.items()}
        texts |= {ENVIRONMENT: environment_text(environment), LOG: ""}
        if config is not None:
            texts[CONFIG] = config
        for name, text in texts.items():
            files.write_atomically(self.folder / name, text)
        run_files.keep_only(self.folder)

    def resume(
        self,
        config: str,
        environment: Mapping[str, Any] | None = None,
        *,
        retry: Collection[str] = (),
        allow_changed: bool = False,
        wanted: Collection[RunFiles] = (),
    ) -> tuple[set[str], dict[str, Path]]:
        """Keep what a resumed sweep needs: (the ids of finished runs, run id → the checkpoint that the run continues).

        Rows of finished runs are kept, and rows of other runs up to their checkpoint. They get this plan's run numbers.
        All other rows are dropped. A run whose status is in `retry` is trained again, once its stack has ended. So is a
        run without one of the `wanted` files. Tables and config of an older folder get what was added since.
        Errors: UserError where a finished run is not in this plan, where a table has other columns, or where the
        environment has changed and `allow_changed` is not set.
        """
        self._code = {"code_hash": code_hash(environment or {}), "code_digests": code_digests(environment or {})}
        # A log that cannot be written is an error now, before anything is trained, and so are links.
        plugin_sources.kept(self.folder)
        os.close(files.open_file(self.folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
        headers = self.lines.headers
        check_headers(self.folder, headers)
        self.stacks = self._recorded_stacks()
        together = [job.runs for job in self.stacks.jobs]
        tables = {name: TableRows(self.folder / name) for name in (RUNS, *COUNTS)}
        results = results_of(self.folder)
        retried = {run_id for run_id, result in results.items() if result.status in retry}
        finished = finished_runs(self.folder, tables, results, self.number, retry, wanted, together, self.log)
        if changed := changed_environment(self.folder, environment or {}, allowed=allow_changed):
            # The checkpoints come from the other environment. Delete them before the change is recorded: after a kill
            # between the two, the next resume must not continue them.
            self.checkpoints.keep_only([])
            files.write_if_changed(self.folder / ENVIRONMENT, changed)
        found = self.checkpoints.usable(self.log)
        continued = continuable(tables, found, self.number.keys() - finished - retried, together)
        self.plan_stacks(self.stacks.with_retried(sorted(retried - finished)))
        ended = dict.fromkeys(finished, math.inf)
        last_epoch = ended | {run_id: found.epoch for run_id, found in continued.items()}
        for name, header in headers.items():
            table = tables[name]
            rows = table.distinct() & table.until(ended if name == RUNS else last_epoch)
            if name in self._counts:
                self._counts[name] = table.counts(rows)
            self._rewrite(name, header, table, np.flatnonzero(rows))
        # They are deleted after the rows: a run with a row has its files.
        run_files.keep_only(self.folder, finished)
        files.write_if_changed(self.folder / CONFIG, config)
        self.checkpoints.keep_only(continued.values(), finished)
        return finished, {run_id: found.path for run_id, found in continued.items()}

    def _recorded_stacks(self) -> Stacks:
        if not files.exists(self.folder / STACKS):
            self.log(f"{STACKS} is missing: which runs train together is decided anew")
        return stacks.read(self.folder)

    def expect_again(self, run_ids: Collection[str]) -> None:
        """These finished runs will train again, with their stacks. The table keeps its rows, and compares the new ones.

        They cannot be compared if the environment has ever changed, nor if a run may use operations that are not
        deterministic, nor if its stack had other runs before: other stacks can differ in the last digits.
        """
        same = [job for job in self.stacks.jobs if not job.changed and self.number.keys() >= set(job.runs)]
        unchanged = set[str]() if was_changed(self.folder) else {run_id for job in same for run_id in job.runs}
        exact = {run_id for run_id in unchanged.intersection(run_ids) if self.runs[run_id].get("deterministic", True)}
        self._repeated = RepeatedRuns(self.folder, run_ids, exact)

    def is_stored(self, event: Single) -> bool:
        """Whether the tables have this event, of a finished run. Errors: NotRepeatedError where they have another."""
        return self._repeated.is_repeated(event)

    def plan_stacks(self, planned: Stacks) -> None:
        """Record which runs train together."""
        if planned != self.stacks:
            self.stacks = planned
            stacks.write(self.folder, planned)

    def on_shortfall(self, shortfall: Shortfall) -> None:
        """Record that runs do not train as planned."""
        self._repeated.verified -= {run_id for part in shortfall.parts for run_id in part}
        self.plan_stacks(self.stacks.with_shortfall(shortfall))
        self.log(f"{shortfall}\n{shortfall.traceback}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Collect what is stored inside the block and write it at the end: one fsync per table, results last."""
        self._waiting = {}
        try:
            yield
        except OSError:
            # A disk error: no result may be written without its rows.
            self._waiting, self._ended = {}, set()
            raise
        finally:
            try:
                self._flush()
            finally:
                self._waiting = None

    def _flush(self) -> None:
        """Write what was collected, then delete the checkpoints of the runs that ended."""
        assert self._waiting is not None
        for name in (CURVES, PROBES, METRICS, RUNS):
            # Lines are removed before they are written, so a write that failed is not repeated.
            if lines := self._waiting.pop(name, []):
                files.append(self.folder / name, "".join(lines))
        ended, self._ended = self._ended, set()
        self.checkpoints.runs_ended(ended)

    def on_epoch(self, row: EpochRow) -> None:
        """Write an epoch's row, after the readings before it."""
        self._write_readings()
        self._write(METRICS, self.lines.of(METRICS, vars(row)))

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Keep a reading until the next row of the sweep is written. The thousand rows of a probe are then one write.

        A reading without its epoch's row is worth nothing: a resume drops it.
        """
        self._counts[row.table][row.run_id] += 1
        self._readings.setdefault(row.table, []).append(self.lines.of(row.table, vars(row)))

    def on_result(self, result: RunResult) -> None:
        """Write a run's files, then its row. Delete the checkpoints that no run needs any more."""
        for kind, content in ((WEIGHTS, result.weights), (PREDICTIONS, result.predictions)):
            if content is not None:
                kind.write(self.folder, result.run_id, content)
        self._write_readings()
        record = {
            **vars(result),
            **result.outcomes,
            **{COUNTS[name]: rows[result.run_id] for name, rows in self._counts.items()},
            "epochs_trained": len(result.rows),
            "parameters": result.parameter_count,
            **self._code,
            "error": printable(" ".join(result.error.split()), keep="")[:300],
        }
        self._write(RUNS, self.lines.of(RUNS, record))
        self.lines.forget(result.run_id)
        if result.error:
            run = f"run {self.number[result.run_id]} ({result.run_id})"
            self.log(f"{run} {result.status}: {result.error}\n{result.traceback}")
        if result.status == "interrupted":
            return
        if self._waiting is None:
            self.checkpoints.runs_ended({result.run_id})
        else:
            self._ended.add(result.run_id)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, once the rows of its epoch are on the disk."""
        if self._waiting is not None:
            self._flush()
        self.checkpoints.keep(checkpoint)

    def log(self, text: str) -> None:
        """Add a line to run.log."""
        files.append(self.folder / LOG, printable(text.rstrip("\n")) + "\n", create=True)

    def finish(self) -> None:
        """Sort the tables by run and epoch, and delete the checkpoints."""
        for name in self.lines.headers:
            table = TableRows(self.folder / name)
            numbers = np.array([self.number[run_id] for run_id in table.run_ids], int)
            order = np.lexsort((table.epoch, numbers[table.run]))
            if (np.diff(order) != 1).any():
                files.write_atomically(self.folder / name, table.lines(order))
        self.checkpoints.remove()

    def _write_readings(self) -> None:
        for name, lines in self._readings.items():
            self._write(name, "".join(lines))
        self._readings = {}

    def _rewrite(self, name: str, header: Sequence[str], table: TableRows, order: Iterable[int]) -> None:
        """Replace a table by some of its rows, where that changes it.

        They get this plan's run numbers, and the columns that an older table lacks.
        """
        added = {name: cell(value) for name, value in ADDED.items()}

        def lines() -> Iterator[str]:
            rows = ({**added, **row, "run": str(self.number[row["run_id"]])} for row in table.read(order))
            return csv_lines(chain([header], ([row[column] for column in header] for row in rows)))

        path = self.folder / name
        if not files.has_content(path, lines()):
            files.write_atomically(path, lines())

    def _write(self, name: str, lines: str) -> None:
        """Write lines to a table; inside `together`, at the end of the block."""
        if self._waiting is None:
            files.append(self.folder / name, lines)
        else:
            self._waiting.setdefault(name, []).append(lines)
