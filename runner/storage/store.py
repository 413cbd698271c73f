"""A sweep's folder. The driver is its only writer; an epoch's row that was acknowledged is on the disk.

`results/<name>/` holds `metrics.csv` (a row per run per epoch), `runs.csv` (a row per run), `config.yaml` (resolved,
can be run again), `environment.json` and `run.log`; and, where a config asks for them, `curves.csv` (readings within an
epoch), `probes.csv` (long form) and `weights/<run_id>.pt` (each run's final weights).
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from runner.config import yaml_source
from runner.errors import UserError
from runner.storage import checkpoints
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

METRICS, RUNS, CURVES, PROBES = "metrics.csv", "runs.csv", "curves.csv", "probes.csv"
CONFIG, ENVIRONMENT, LOG, LOCK, CHECKPOINTS = "config.yaml", "environment.json", "run.log", ".lock", "checkpoints"
WEIGHTS = "weights"

RUN_FIELDS = (
    *("run", "status", "epochs_trained", "parameters", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"),
    *("best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy", "weights_hash", "batches_hash", "trained_as"),
    "error",
)


FAILED = ("failed", "oom", "timeout")
RETRYABLE = (*FAILED, "diverged")

SAME = ("python", "packages", "cuda", "cpu", "cpu_capability", "gpus", "plugins", "code", "data")
"""What of environment.json must be the same on a resume: any of it can change a run's numbers."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the sweep's lock. Errors: UserError, within a fifth of a second, where another process holds it."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0.2, poll_interval=0.02)  # `is_written` holds it for a moment
    except Timeout:
        raise UserError(f"{folder}: another process is writing this sweep") from None
    try:
        yield
    finally:
        if new and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()  # nothing came of it
            folder.rmdir()
        lock.release()


def is_written(folder: Path) -> bool:
    """Whether a process holds the sweep's lock; writes nothing, and is done before `sole_writer` gives up."""
    import fcntl  # Unix's: elsewhere a sweep can be trained, but not watched

    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as filelock does, but shared: watchers are no writers
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class Store:
    """The tables of one sweep, to be written by one process (`sole_writer`).

    `runs` maps each planned run's id to its parameters, in the sweep's order: the run's number is its position, from 1.
    """

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        runs: Mapping[str, Mapping[str, Any]],
        checkpoint_folder: Path | None = None,
    ) -> None:
        self.folder, self.columns = folder, tuple(columns)
        self.checkpoints = checkpoint_folder or folder / CHECKPOINTS
        self.runs: dict[str, Mapping[str, Any]] = {}
        self.number: dict[str, int] = {}
        for run_id, parameters in runs.items():
            self.add(run_id, parameters)
        folder.mkdir(parents=True, exist_ok=True)
        self._unfinished: dict[str, set[str]] = {}  # of each checkpoint's runs, by its job's name
        self._readings: dict[str, list[str]] = {}  # lines by table, until their epoch's row
        self._waiting: dict[str, list[str]] | None = None  # lines told `together`, by table
        self._ended: set[str] = set()  # runs whose results are among them
        self._cells = lru_cache(maxsize=4096)(self._parameter_cells)  # the same in each of a run's rows

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
        """Begin an empty sweep: whatever tables lie in the folder are replaced, the config last.

        So a folder with this sweep's config has this sweep's tables; killed before that, starting again is no loss.
        """
        self._drop_checkpoints(self.checkpoints.glob("*"))
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
        self._drop_weights(but_of=())

    def resume(
        self,
        config: str,
        environment: Mapping[str, Any] | None = None,
        *,
        retry: Collection[str] = (),
        allow_changed: bool = False,
        save_weights: bool = False,
    ) -> tuple[set[str], dict[str, Path]]:
        """(the finished runs' ids, the checkpoint that each of the others goes on from, where it has one).

        Keeps the rows of the finished runs, and of the others up to their checkpoint, renumbered for this plan; drops
        what lies beyond. Runs of a status in `retry` are not finished; nor, with `save_weights`, are runs without them.
        Errors: UserError where a finished run is not in this plan, a table has other columns, or, unless allowed,
        something changed that a run's numbers depend on (`SAME`).
        """
        headers = self.headers
        self._check_headers(headers)
        finished = self._finished_runs(retry, save_weights=save_weights)
        trusted = self._check_environment(environment or {}, allowed=allow_changed)
        going_on = self._checkpointed(finished, retry) if trusted else {}
        until = {run_id: found.epoch for run_id, found in going_on.items()} | dict.fromkeys(finished, math.inf)
        for name, header in headers.items():
            rows = [row for row in read_rows(self.folder / name) if row["run_id"] in until]
            if name == RUNS:
                rows = [row for row in rows if row["run_id"] in finished]
            else:
                rows = [row for row in rows if _number(row, "epoch", self.folder / name) <= until[row["run_id"]]]
            self._rewrite(name, header, rows)
        self._drop_weights(but_of=finished)  # after their rows: a run that has one has its weights
        self._replace(CONFIG, config)
        needed = {found.path for found in going_on.values()}
        self._drop_checkpoints(path for path in self.checkpoints.glob("*") if path not in needed)
        for found in going_on.values():
            self._unfinished[found.path.name.partition(".")[0]] = set(found.run_ids) - finished
        return finished, {run_id: found.path for run_id, found in going_on.items()}

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is told within is on the disk at its end: one write and one fsync a table, results after their rows."""
        self._waiting = {}
        try:
            yield
        except OSError:  # the disk's: no result without its rows
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
            if lines := self._waiting.pop(name, []):  # before they are written: an interrupted write is not repeated
                _append(self.folder / name, "".join(lines))
        ended, self._ended = self._ended, set()
        self._checkpoint_needed_no_more(ended)

    def on_epoch(self, row: EpochRow) -> None:
        self._write_readings()
        record = [self.number[row.run_id], *(getattr(row, name) for name in EPOCH_FIELDS)]
        self._append(METRICS, _line(record, self._cells(row.run_id)))

    def on_result(self, result: RunResult) -> None:
        if result.weights is not None:  # before the row: a run that has one has its weights
            (self.folder / WEIGHTS).mkdir(exist_ok=True)
            write_atomically(weights_file(self.folder, result.run_id), result.weights)
        self._write_readings()
        record: dict[str, Any] = {
            "run": self.number[result.run_id],
            "status": result.status,
            "epochs_trained": len(result.rows),
            "parameters": result.parameters,
            **result.measures,
            "weights_hash": result.weights_hash,
            "batches_hash": result.batches_hash,
            "trained_as": result.trained_as,
            "error": " ".join(result.error.split())[:300],
        }
        self._append(RUNS, _line([record.get(name) for name in RUN_FIELDS], self._cells(result.run_id)))
        if result.error:
            self.log(f"run {record['run']} ({result.run_id}) {result.status}: {result.error}\n{result.traceback}")
        if result.status == "interrupted":
            return
        if self._waiting is None:
            self._checkpoint_needed_no_more({result.run_id})
        else:
            self._ended.add(result.run_id)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Its runs' rows are on the disk: put it there, and drop what it makes superfluous."""
        if self._waiting is not None:
            self._flush()
        folder = self.checkpoints
        folder.mkdir(parents=True, exist_ok=True)
        name = checkpoints.file_name(checkpoint.run_ids, checkpoint.epoch)
        content = checkpoints.to_bytes(checkpoint)
        if isinstance(folder, Path):
            write_atomically(folder / name, content)
        else:  # an object store's files come to be whole; and its digest would tell
            (folder / name).write_bytes(content)
        job = name.partition(".")[0]
        if job not in self._unfinished:
            self._checkpoint_needed_no_more(checkpoint.run_ids)  # of a larger stack, cut since
            self._unfinished[job] = set(checkpoint.run_ids)
        self._drop_checkpoints(sorted(folder.glob(f"{job}.*{checkpoints.SUFFIX}"))[: -checkpoints.KEPT])

    def _checkpoint_needed_no_more(self, run_ids: Collection[str]) -> None:
        for job, unfinished in list(self._unfinished.items()):
            unfinished -= set(run_ids)
            if not unfinished:
                self._drop_checkpoints(self.checkpoints.glob(f"{job}.*"))
                del self._unfinished[job]

    def _drop_checkpoints(self, paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def _drop_weights(self, but_of: Collection[str]) -> None:
        """Delete the weights of other runs, and what a kill left half written; a user's own files stay."""
        folder = self.folder / WEIGHTS
        for path in folder.glob("*"):
            ours = _WEIGHTS_FILE.fullmatch(path.name)
            if ours and ours["run_id"] not in but_of:
                path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _checkpointed(self, finished: Collection[str], retry: Collection[str]) -> dict[str, checkpoints.Found]:
        """Of each unfinished run the latest whole checkpoint whose epochs all have their row."""
        found, damaged = checkpoints.find(self.checkpoints)
        damaged += [each.path for each in found if not checkpoints.loads(each)]
        found = [each for each in found if each.path not in damaged]
        for path in damaged:
            self.log(f"{path.name}: damaged checkpoint, not used")
        epochs: dict[str, list[int]] = {}
        for row in read_rows(self.folder / METRICS):
            epochs.setdefault(row["run_id"], []).append(int(_number(row, "epoch", self.folder / METRICS)))
        again = {row["run_id"] for row in read_rows(self.folder / RUNS) if row["status"] in retry}  # from the start
        going_on: dict[str, checkpoints.Found] = {}
        for each in found:  # the latest first
            for run_id in set(each.run_ids) & set(self.number) - set(finished) - again - set(going_on):
                told = sorted(epoch for epoch in epochs.get(run_id, []) if epoch <= each.epoch)
                if told == list(range(1, each.epoch + 1)):
                    going_on[run_id] = each
        return going_on

    def log(self, text: str) -> None:
        _append(self.folder / LOG, text.rstrip("\n") + "\n")

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Kept until the next epoch's row, without which a resume drops it: a probe's thousand rows are one write."""
        name, fields = (CURVES, CURVE_FIELDS) if isinstance(row, CurveRow) else (PROBES, PROBE_FIELDS)
        values = [self.number[row.run_id], *(getattr(row, field) for field in fields), row.run_id]
        self._readings.setdefault(name, []).append(_line(values))

    def _write_readings(self) -> None:
        for name, lines in self._readings.items():
            self._append(name, "".join(lines))
        self._readings = {}

    def finish(self) -> None:
        """Sort the tables by run and epoch, once; does nothing where they are."""
        for name, header in self.headers.items():
            rows = read_rows(self.folder / name)
            if rows != (ordered := sorted(rows, key=lambda row: (int(row["run"]), float(row.get("epoch", 0))))):
                self._rewrite(name, header, ordered)
        if self.checkpoints.exists():
            self._drop_checkpoints(self.checkpoints.glob("*"))
            self.checkpoints.rmdir()

    def _parameter_cells(self, run_id: str) -> list[str]:
        parameters = self.runs[run_id]
        return [*(cell(parameters.get(column)) for column in self.columns), run_id]

    def _check_headers(self, headers: Mapping[str, Sequence[str]]) -> None:
        for name, header in headers.items():
            found = read_header(self.folder / name)
            if found and sorted(found) != sorted(header):
                changed = ", ".join(sorted(set(found) ^ set(header)))
                raise UserError(
                    f"{self.folder / name}: holds another sweep (other columns: {changed}); use --fresh or --out"
                )

    def _check_environment(self, now: Mapping[str, Any], *, allowed: bool) -> bool:
        """Whether the sweep's checkpoints are of this environment. What was let through is recorded in the old one.

        A network that changed between two halves of a sweep would make one arm of two.
        """
        path = self.folder / ENVIRONMENT
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if not now:
            return True
        whole = isinstance(before, dict)
        changes = (
            differences(before, now) if whole else {ENVIRONMENT: ("what the sweep began with", "missing or damaged")}
        )
        before = before if whole else {}
        if not changes:
            return True
        if not allowed:
            shown = "; ".join(f"{name}: {old} then, {new} now" for name, (old, new) in sorted(changes.items()))
            raise UserError(
                f"{self.folder}: not what this sweep began with ({shown}); --allow-changed goes on and records it, "
                f"--fresh starts over"
            )
        history = [*before.get("changed", []), {name: {"from": old, "to": new} for name, (old, new) in changes.items()}]
        self._replace(ENVIRONMENT, json.dumps({**now, "changed": history}, indent=2, ensure_ascii=False) + "\n")
        return False

    def _finished_runs(self, retry: Collection[str], *, save_weights: bool) -> set[str]:
        rows = Counter(row["run_id"] for row in read_rows(self.folder / METRICS))
        finished = [
            row
            for row in read_rows(self.folder / RUNS)
            if row["status"] not in ("interrupted", *retry)
            and rows[row["run_id"]] == _number(row, "epochs_trained", self.folder / RUNS)
            and (not save_weights or row["status"] in FAILED or weights_file(self.folder, row["run_id"]).exists())
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
        if not path.exists() or path.read_bytes() != text.encode():
            write_atomically(path, text)

    def _append(self, name: str, lines: str) -> None:
        if self._waiting is None:
            _append(self.folder / name, lines)
        else:
            self._waiting.setdefault(name, []).append(lines)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What of `SAME` both know and differ in: name → (then, now); of a table, each entry of its own."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in SAME:
        if name not in before or name not in now:
            continue
        old, new = before[name], now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            keys = old.keys() & new.keys() if name in ("plugins", "data") else old.keys() | new.keys()
            pairs = {f"{name} {key}": (old.get(key), new.get(key)) for key in keys}
        else:
            pairs = {name: (old, new)}
        found |= {key: (_short(a), _short(b)) for key, (a, b) in pairs.items() if a != b}
    return found


def _short(value: Any) -> Any:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value  # a digest


def _line(record: Sequence[Any], cells: Sequence[str] = ()) -> str:
    """A line of a table: values, and cells that are text already."""
    return _csv([[*map(cell, record), *cells]])


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


def weights_file(folder: Path, run_id: str) -> Path:
    """Where a run's final weights lie, below the sweep's folder."""
    return folder / WEIGHTS / f"{run_id}.pt"


_WEIGHTS_FILE = re.compile(r"(?P<run_id>[0-9a-f]{12})\.pt|\.[0-9a-f]{12}\.pt\.partial")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The table's complete rows as text; the torn last line of a killed sweep is left out."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path}: the table is damaged: {error}") from None
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def _number(row: Mapping[str, Any], name: str, path: Path) -> float:
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


def read_config(path: Path) -> dict[str, Any]:
    """The resolved config of a sweep. Errors: UserError where it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a config: {error}") from None
    config = yaml_source.read(text, str(path)).values
    if not isinstance(config, dict) or not {"name", "fixed"} <= set(config):
        raise UserError(f"{path}: not the resolved config of a sweep")
    return config


def write_atomically(path: Path, text: str | bytes) -> None:
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


def _append(path: Path, text: str | bytes) -> None:
    # os.write, not a file object: Python's buffer is what a SIGKILL loses.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        remaining = memoryview(text.encode() if isinstance(text, str) else text)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # "no space left": where?
    finally:
        os.close(descriptor)


def _csv(records: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    return text.getvalue()
