"""Writing a sweep's folder. The driver is its only writer. When a row is acknowledged, it is on the disk.

`results/<name>/` holds `metrics.csv` (a row per run per epoch), `runs.csv` (a row per run), `config.yaml` (resolved,
can be run again), `environment.json` and `run.log`. Where a config asks for them, it also holds `curves.csv` (readings
within an epoch), `probes.csv` (long form) and `weights/<run_id>.pt` (each run's final weights).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from runner.storage.checkpoint_files import CheckpointFiles
from runner.storage.files import append, write_atomically, write_if_changed
from runner.storage.folder import CHECKPOINTS, CONFIG, CURVES, ENVIRONMENT, LOG, METRICS, PROBES, RUNS
from runner.storage.resume import check_environment, check_headers, continuable, environment_text, finished_runs
from runner.storage.rows import (
    CURVE_FIELDS,
    EPOCH_FIELDS,
    PROBE_FIELDS,
    Checkpoint,
    CurveRow,
    EpochRow,
    ProbeRow,
    RunResult,
)
from runner.storage.tables import RUN_FIELDS, cell, csv_text, number_in, read_rows, table_line
from runner.storage.weights import delete_weights, write_weights


class Store:
    """The tables of one sweep, written by one process (`sole_writer`).

    `runs` maps each planned run's id to its parameters, in the sweep's order. A run's number is its position, from 1.
    """

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        runs: Mapping[str, Mapping[str, Any]],
        checkpoint_folder: Path | None = None,
    ) -> None:
        self.folder, self.columns = folder, tuple(columns)
        self.checkpoints = CheckpointFiles(checkpoint_folder or folder / CHECKPOINTS)
        self.runs: dict[str, Mapping[str, Any]] = {}
        self.number: dict[str, int] = {}
        for run_id, parameters in runs.items():
            self.add(run_id, parameters)
        folder.mkdir(parents=True, exist_ok=True)
        self._readings: dict[str, list[str]] = {}  # table → lines that wait for their epoch's row
        self._waiting: dict[str, list[str]] | None = None  # table → lines to write `together`
        self._ended: set[str] = set()  # runs whose results are among them
        self._cells = lru_cache(maxsize=4096)(self._parameter_cells)  # the same in each of a run's rows

    def add(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Plan one more run. It gets the next number."""
        self.runs[run_id] = parameters
        self.number[run_id] = len(self.runs)

    @property
    def headers(self) -> dict[str, list[str]]:
        """The tables of this sweep and their columns; fixed before the first row."""
        headers = {
            RUNS: [*RUN_FIELDS, *self.columns, "run_id"],
            METRICS: ["run", *EPOCH_FIELDS, *self.columns, "run_id"],
        }
        if any(parameters.get("evaluations_per_epoch", 1) > 1 for parameters in self.runs.values()):
            headers[CURVES] = ["run", *CURVE_FIELDS, "run_id"]
        if any(parameters.get("probes") for parameters in self.runs.values()):
            headers[PROBES] = ["run", *PROBE_FIELDS, "run_id"]
        return headers

    def start(self, environment: Mapping[str, Any], config: str | None = None) -> None:
        """Begin an empty sweep. Existing tables in the folder are replaced, and the config is written last.

        So a folder with this sweep's config has this sweep's tables. After a kill before that, starting again is safe.
        """
        self.checkpoints.keep_only([])
        headers = self.headers
        for name in {CURVES, PROBES} - set(headers):
            (self.folder / name).unlink(missing_ok=True)
        texts = {name: csv_text([header]) for name, header in headers.items()}
        texts |= {ENVIRONMENT: environment_text(environment), LOG: ""}
        if config is not None:
            texts[CONFIG] = config
        for name, text in texts.items():
            write_atomically(self.folder / name, text)
        delete_weights(self.folder)

    def resume(
        self,
        config: str,
        environment: Mapping[str, Any] | None = None,
        *,
        retry: Collection[str] = (),
        allow_changed: bool = False,
        save_weights: bool = False,
    ) -> tuple[set[str], dict[str, Path]]:
        """Keep what a resumed sweep needs: (the ids of finished runs, run id → the checkpoint that the run continues).

        Rows of finished runs stay, and rows of the others up to their checkpoint, renumbered for this plan. Later rows
        are dropped. `retry` and `save_weights` as in `resume.finished_runs`.
        Errors: UserError where a finished run is not in this plan, a table has other columns, or something that can
        change a run's numbers has changed and that is not allowed.
        """
        headers = self.headers
        check_headers(self.folder, headers)
        finished = finished_runs(self.folder, self.number, retry, save_weights=save_weights)
        trusted = check_environment(self.folder, environment or {}, allowed=allow_changed)
        unfinished = self.number.keys() - finished if trusted else set()
        continued = continuable(self.folder, self.checkpoints, unfinished, retry, self.log) if trusted else {}
        last_epoch = {run_id: found.epoch for run_id, found in continued.items()} | dict.fromkeys(finished, math.inf)
        for name, header in headers.items():
            rows = [row for row in read_rows(self.folder / name) if row["run_id"] in last_epoch]
            if name == RUNS:
                rows = [row for row in rows if row["run_id"] in finished]
            else:
                rows = [row for row in rows if number_in(row, "epoch", self.folder / name) <= last_epoch[row["run_id"]]]
            self._rewrite(name, header, rows)
        delete_weights(self.folder, except_of=finished)  # After the rows: a run with a row has its weights.
        write_if_changed(self.folder / CONFIG, config)
        self.checkpoints.keep_only(continued.values(), finished)
        return finished, {run_id: found.path for run_id, found in continued.items()}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is stored inside the block at its end: one write and one fsync per table, results last."""
        self._waiting = {}
        try:
            yield
        except OSError:  # A disk error: no result may be written without its rows.
            self._waiting, self._ended = {}, set()
            raise
        finally:
            try:
                self._flush()
            finally:
                self._waiting = None

    def _flush(self) -> None:
        assert self._waiting is not None
        for name in (CURVES, PROBES, METRICS, RUNS):
            if lines := self._waiting.pop(name, []):  # Removed before the write: a failed write is not repeated.
                append(self.folder / name, "".join(lines))
        ended, self._ended = self._ended, set()
        self.checkpoints.runs_ended(ended)

    def on_epoch(self, row: EpochRow) -> None:
        self._write_readings()
        record = [self.number[row.run_id], *(getattr(row, name) for name in EPOCH_FIELDS)]
        self._add_lines(METRICS, table_line(record, self._cells(row.run_id)))

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Keep a reading until its epoch's row, so that the thousand rows of a probe are one write.

        Without that row a resume would drop the reading.
        """
        name, fields = (CURVES, CURVE_FIELDS) if isinstance(row, CurveRow) else (PROBES, PROBE_FIELDS)
        values = [self.number[row.run_id], *(getattr(row, field) for field in fields), row.run_id]
        self._readings.setdefault(name, []).append(table_line(values))

    def on_result(self, result: RunResult) -> None:
        if result.weights is not None:  # Before the row: a run with a row has its weights.
            write_weights(self.folder, result.run_id, result.weights)
        self._write_readings()
        record: dict[str, Any] = {
            "run": self.number[result.run_id],
            "status": result.status,
            "epochs_trained": len(result.rows),
            "parameters": result.parameter_count,
            **result.outcomes,
            "weights_hash": result.weights_hash,
            "batches_hash": result.batches_hash,
            "trained_as": result.trained_as,
            "error": " ".join(result.error.split())[:300],
        }
        self._add_lines(RUNS, table_line([record.get(name) for name in RUN_FIELDS], self._cells(result.run_id)))
        if result.error:
            self.log(f"run {record['run']} ({result.run_id}) {result.status}: {result.error}\n{result.traceback}")
        if result.status == "interrupted":
            return
        if self._waiting is None:
            self.checkpoints.runs_ended({result.run_id})
        else:
            self._ended.add(result.run_id)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, after the rows of its epoch."""
        if self._waiting is not None:
            self._flush()
        self.checkpoints.write(checkpoint)

    def log(self, text: str) -> None:
        """Add a line to run.log."""
        append(self.folder / LOG, text.rstrip("\n") + "\n")

    def finish(self) -> None:
        """Sort the tables by run and epoch, and delete the checkpoints."""
        for name, header in self.headers.items():
            rows = read_rows(self.folder / name)
            if rows != (ordered := sorted(rows, key=lambda row: (int(row["run"]), float(row.get("epoch", 0))))):
                self._rewrite(name, header, ordered)
        self.checkpoints.remove()

    def _write_readings(self) -> None:
        for name, lines in self._readings.items():
            self._add_lines(name, "".join(lines))
        self._readings = {}

    def _parameter_cells(self, run_id: str) -> list[str]:
        parameters = self.runs[run_id]
        return [*(cell(parameters.get(column)) for column in self.columns), run_id]

    def _rewrite(self, name: str, header: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
        numbered = [{**row, "run": str(self.number[row["run_id"]])} for row in rows]
        text = csv_text([header, *([row[column] for column in header] for row in numbered)])
        write_if_changed(self.folder / name, text)

    def _add_lines(self, name: str, lines: str) -> None:
        if self._waiting is None:
            append(self.folder / name, lines)
        else:
            self._waiting.setdefault(name, []).append(lines)
