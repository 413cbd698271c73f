"""A sweep's folder read while another process writes it; nothing is written.

Between two of the writer's renames the tables are of different moments: what does not fit yet is left out until the
next look, which begins anew where a file was replaced.
"""

from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, BinaryIO

from runner.config import grid as builder
from runner.config.jobs import STACKABLE
from runner.errors import UserError
from runner.monitoring.eta import Pace, makespan
from runner.storage.folder import CONFIG, METRICS, RUNS, read_config
from runner.storage.tables import complete_lines


@dataclass
class WatchedRun:
    """What the tables say of one planned run so far."""

    number: int
    label: str
    kind: str
    """Equal for runs whose epochs take the same time."""
    arm: str
    epochs: int
    epoch: int = 0
    loss: float = math.nan
    accuracy: float = math.nan
    status: str = ""
    error: str = ""
    job: str = ""
    """Equal for the runs of a stack: of their first epoch's time they have the same share, to the last digit."""

    @property
    def ended(self) -> bool:
        return self.status not in ("", "interrupted")

    @property
    def running(self) -> bool:
        return self.epoch > 0 and not self.status

    @property
    def left(self) -> int:
        return 0 if self.ended else self.epochs - self.epoch


class Watched:
    """A sweep's folder, read again and again. Errors: UserError where it holds no sweep, or a damaged one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, BinaryIO] = {}
        self._open()

    def _open(self) -> None:
        self.close()
        paths = [self.folder / name for name in (CONFIG, METRICS, RUNS)]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise UserError(
                f"{self.folder}: no sweep here (no {missing[0]}); allowed: a folder that 'bnbench run' wrote"
            )
        self._planned_by = _version(paths[0])
        config = read_config(paths[0])
        self._files = {path: path.open("rb") for path in paths[1:]}  # held: a file that replaces one has another inode
        self.name: str = config["name"]
        self.runs = _planned(config)
        self.pace = Pace()
        self.headers: dict[Path, list[str]] = {}
        self.jobs: dict[str, list[int]] = {}  # of each job the positions in metrics.csv of its first row and its last
        self.position = 0

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def refresh(self) -> bool:
        """Read what is new; whether anything is."""
        anew = self._planned_by != _version(self.folder / CONFIG) or any(
            os.fstat(file.fileno()).st_ino != path.stat().st_ino for path, file in self._files.items()
        )
        if anew:
            self._open()
        results = self._rows(RUNS)  # first: a run's epochs are there before its end
        epochs = self._rows(METRICS)
        try:
            for row in epochs:
                self._on_epoch(row)
            for row in results:
                if run := self.runs.get(int(row["run"])):
                    run.status, run.error, run.epoch = row["status"], row["error"], int(row["epochs_trained"])
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.folder}: a table is damaged ({type(error).__name__}: {error})") from None
        return anew or bool(results or epochs)

    def _rows(self, name: str) -> list[dict[str, str]]:
        """The complete rows that were added; a torn last line is read when it is whole."""
        path = self.folder / name
        file = self._files[path]
        start = file.tell()
        text = complete_lines(file.read())
        file.seek(start + len(text))
        records = list(csv.reader(io.StringIO(text.decode(errors="replace"))))
        if path not in self.headers and records:
            self.headers[path] = records.pop(0)
        return [dict(zip(self.headers[path], record, strict=False)) for record in records]

    def _on_epoch(self, row: dict[str, str]) -> None:
        self.position += 1
        run = self.runs.get(int(row["run"]))
        if run is None:
            return  # of a longer plan, whose config is about to be here
        duration = float(row["run_duration"])
        run.job = run.job or f"{row['epoch']} {row['run_duration']}"
        run.epoch = int(row["epoch"])
        run.loss, run.accuracy = float(row["train_loss"] or "nan"), float(row["valid_accuracy"] or "nan")
        self.pace.on_epoch(run.number, run.kind, run.epoch, duration)
        self.jobs.setdefault(run.job, [self.position, self.position])[1] = self.position

    @property
    def running(self) -> list[WatchedRun]:
        return [run for run in self.runs.values() if run.running]

    @property
    def finished(self) -> bool:
        return all(run.ended for run in self.runs.values())

    def age(self) -> float:
        """Seconds since the last row."""
        return max(0.0, time() - max((self.folder / name).stat().st_mtime for name in (METRICS, RUNS)))

    def workers(self) -> int:
        """How many jobs train side by side: the most that did since the job that ended last began."""
        open_jobs = {run.job for run in self.running}
        ended = [span for job, span in self.jobs.items() if job not in open_jobs]
        since = max(ended, key=lambda span: span[1])[0] if ended else 0
        spans = [
            (max(first, since), self.position if job in open_jobs else last)
            for job, (first, last) in self.jobs.items()
            if job in open_jobs or last >= since
        ]
        return max((sum(a <= first <= b for a, b in spans) for first, _ in spans), default=1)

    def eta(self) -> float | None:
        """Seconds until the last run ends; None before the first epoch has."""
        age = self.age()
        waiting: list[float] = []
        jobs: dict[str, list[tuple[float, int]]] = {}
        for run in self.runs.values():
            if run.ended:
                continue
            seconds = self.pace.seconds(run.kind)
            if seconds is None:
                return None
            if run.running:
                jobs.setdefault(run.job, []).append((seconds, run.left))
            else:
                waiting.append(seconds * run.left)
        running = [
            max(0.0, sum(seconds * left for seconds, left in runs) - min(age, sum(seconds for seconds, _ in runs)))
            for runs in jobs.values()
        ]
        return makespan(running, waiting, self.workers())


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _planned(config: dict[str, Any]) -> dict[int, WatchedRun]:
    points = list(builder.expand(config))
    grids = config.get("grids") or [config.get("grid") or {}]
    names = builder.varying(points, list(dict.fromkeys(name for grid in grids for name in builder.keys(grid))))
    costly = [name for name in names if name not in STACKABLE]
    axis = (config.get("contrast") or {}).get("axis")
    return {
        number: WatchedRun(
            number=number,
            label=builder.label([point], names, short=True),
            kind=builder.label([point], costly),
            arm=str(point[axis]) if axis in point else "",
            epochs=int(point["epochs"]),
        )
        for number, point in enumerate(points, start=1)
    }
