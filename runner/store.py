"""A sweep's folder. The driver is its only writer; a row that was acknowledged is on the disk.

`results/<name>/` holds `metrics.csv` (a row per run per epoch), `runs.csv` (a row per run), `config.yaml` (resolved,
can be run again), `environment.json` and `run.log`; and, where a config asks for them, `curves.csv` (readings within an
epoch) and `probes.csv` (long form).
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runner.errors import UserError
from runner.rows import CURVE_FIELDS, EPOCH_FIELDS, PROBE_FIELDS, CurveRow, EpochRow, ProbeRow, RunResult

METRICS, RUNS, CURVES, PROBES = "metrics.csv", "runs.csv", "curves.csv", "probes.csv"
CONFIG, ENVIRONMENT, LOG = "config.yaml", "environment.json", "run.log"

RUN_FIELDS = (
    *("run", "status", "epochs_trained", "parameters", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"),
    *("best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy", "weights_hash", "batches_hash", "trained_as"),
    "error",
)


RETRIED = ("interrupted", "failed", "oom", "timeout")


class Store:
    """The tables of one sweep, open for writing.

    `runs` maps each planned run's id to its parameters, in the sweep's order: the run's number is its position, from 1.
    """

    def __init__(self, folder: Path, columns: Sequence[str], runs: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder, self.columns = folder, tuple(columns)
        self.runs: dict[str, Mapping[str, Any]] = {}
        self.number: dict[str, int] = {}
        for run_id, parameters in runs.items():
            self.add(run_id, parameters)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{folder}: another process is writing this sweep") from None

    def close(self) -> None:
        self._lock.release()

    def add(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Plan one more run; its number follows the last one's."""
        self.runs[run_id] = parameters
        self.number[run_id] = len(self.runs)

    @property
    def headers(self) -> dict[str, list[str]]:
        """The tables this sweep has, and their columns; fixed before the first row."""
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
        """Begin an empty sweep: whatever tables lie in the folder are replaced."""
        (self.folder / CONFIG).unlink(missing_ok=True)  # first, and written last: a folder with one has all its tables
        headers = self.headers
        for name in {CURVES, PROBES} - set(headers):
            (self.folder / name).unlink(missing_ok=True)
        texts = {name: _csv([header]) for name, header in headers.items()}
        texts[ENVIRONMENT] = json.dumps(environment, indent=2, ensure_ascii=False) + "\n"
        texts[LOG] = ""
        if config is not None:
            texts[CONFIG] = config
        for name, text in texts.items():
            write_atomically(self.folder / name, text)

    def resume(self, config: str, plugins: Mapping[str, str] | None = None, *, retry: bool = False) -> set[str]:
        """Keep the finished runs' rows, renumbered for this plan, drop the others; the ids of the finished runs.

        `plugins` maps each plugin's file name to its digest; with `retry` runs that failed are not finished.
        Errors: UserError where a finished run is not in this plan, a table has other columns, or a plugin changed.
        """
        headers = self.headers
        self._check_headers(headers)
        finished = self._finished_runs(retry)
        self._check_plugins(plugins or {}, retry)
        for name, header in headers.items():
            kept = [row for row in read_rows(self.folder / name) if row["run_id"] in finished]
            self._rewrite(name, header, [row for row in kept if row.get("status") != "interrupted"])
        self._replace(CONFIG, config)
        return finished

    def on_epoch(self, row: EpochRow) -> None:
        values = asdict(row)
        record = [self.number[row.run_id], *(values[name] for name in EPOCH_FIELDS)]
        self._append(METRICS, [*record, *self._parameters(row.run_id), row.run_id])

    def on_result(self, result: RunResult) -> None:
        last, best = result.last, result.best
        record = {
            "run": self.number[result.run_id],
            "status": result.status,
            "epochs_trained": len(result.rows),
            "parameters": result.parameters,
            "train_loss": last and last.train_loss,
            "train_accuracy": last and last.train_accuracy,
            "valid_loss": last and last.valid_loss,
            "valid_accuracy": last and last.valid_accuracy,
            "best_epoch": best and best.epoch,
            "best_valid_accuracy": best and best.valid_accuracy,
            "test_loss": result.test_loss,
            "test_accuracy": result.test_accuracy,
            "weights_hash": result.weights_hash,
            "batches_hash": result.batches_hash,
            "trained_as": result.trained_as,
            "error": " ".join(result.error.split())[:300],
        }
        values = [record[name] for name in RUN_FIELDS]
        self._append(RUNS, [*values, *self._parameters(result.run_id), result.run_id])
        if result.error:
            self.log(f"run {record['run']} ({result.run_id}) {result.status}: {result.error}\n{result.traceback}")

    def log(self, text: str) -> None:
        _append(self.folder / LOG, text.rstrip("\n") + "\n")

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        name, fields = (CURVES, CURVE_FIELDS) if isinstance(row, CurveRow) else (PROBES, PROBE_FIELDS)
        values = asdict(row)
        self._append(name, [self.number[row.run_id], *(values[field] for field in fields), row.run_id])

    def finish(self) -> None:
        """Sort the tables by run and epoch, once; does nothing where they are."""
        for name, header in self.headers.items():
            rows = read_rows(self.folder / name)
            if rows != (ordered := sorted(rows, key=lambda row: (int(row["run"]), float(row.get("epoch", 0))))):
                self._rewrite(name, header, ordered)

    def _parameters(self, run_id: str) -> list[Any]:
        parameters = self.runs[run_id]
        return [parameters.get(column) for column in self.columns]

    def _check_headers(self, headers: Mapping[str, Sequence[str]]) -> None:
        for name, header in headers.items():
            found = read_header(self.folder / name)
            if found and sorted(found) != sorted(header):
                changed = ", ".join(sorted(set(found) ^ set(header)))
                raise UserError(
                    f"{self.folder / name}: holds another sweep (other columns: {changed}); use --fresh or --out"
                )

    def _check_plugins(self, plugins: Mapping[str, str], retry: bool) -> None:
        """A network that was changed between two halves of a sweep would make one arm of two.

        A mended one is what a retry is for; it is recorded beside the old.
        """
        path = self.folder / ENVIRONMENT
        environment = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        before = environment.get("plugins", {})
        changed = [name for name in plugins if before.get(name, plugins[name]) != plugins[name]]
        if changed and retry:
            environment |= {"plugins": {**before, **plugins}, "plugins_before_retry": before}
            self._replace(ENVIRONMENT, json.dumps(environment, indent=2, ensure_ascii=False) + "\n")
        elif changed:
            raise UserError(
                f"{self.folder}: {', '.join(changed)} has changed since this sweep began; --fresh starts over, "
                f"--retry trains only what failed"
            )

    def _finished_runs(self, retry: bool) -> set[str]:
        rows = Counter(row["run_id"] for row in read_rows(self.folder / METRICS))
        finished = [
            row
            for row in read_rows(self.folder / RUNS)
            if row["status"] not in (RETRIED if retry else ("interrupted",))
            and rows[row["run_id"]] == int(row["epochs_trained"])
        ]
        foreign = [row for row in finished if row["run_id"] not in self.number]
        if foreign:
            raise UserError(
                f"{self.folder}: holds {len(foreign)} finished runs that this config does not have "
                f"(the first is run {foreign[0]['run']}); use --fresh to start over or --out for another folder"
            )
        return {row["run_id"] for row in finished}

    def _rewrite(self, name: str, header: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
        numbered = [{**row, "run": str(self.number[row["run_id"]])} for row in rows]
        self._replace(name, _csv([header, *([row[column] for column in header] for row in numbered)]))

    def _replace(self, name: str, text: str) -> None:
        path = self.folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)

    def _append(self, name: str, record: Sequence[Any]) -> None:
        _append(self.folder / name, _csv([[cell(value) for value in record]]))


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


def read_rows(path: Path) -> list[dict[str, str]]:
    """The table's complete rows as text; the torn last line of a killed sweep is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def read_header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        return next(csv.reader(file), [])


def write_atomically(path: Path, text: str) -> None:
    """Write aside, flush to the disk, rename into place: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)
    _append(aside, text)
    aside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(path: Path, text: str) -> None:
    # os.write, not a file object: Python's buffer is what a SIGKILL loses.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        remaining = memoryview(text.encode())
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _csv(records: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
