"""A sweep's folder, read while another process writes it. Nothing is written here.

The writer replaces files one after the other, so for a moment the tables may not fit together. What does not fit is
left out until the next look. When a file was replaced, the next look reads everything again.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, BinaryIO

from runner.config import grid
from runner.errors import UserError, printable
from runner.monitoring.eta import Pace, Work, kind_of
from runner.storage import files, stacks
from runner.storage.folder import CONFIG, METRICS, RUNS, STACKS, read_config
from runner.storage.tables import CompleteLines, cells_of, check_status, measure_in, number_in


@dataclass
class WatchedRun:
    """A planned run, and what the tables say about it so far."""

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
    """Equal for the runs of one job; empty before the first epoch. See `guess_job`."""

    @property
    def ended(self) -> bool:
        return self.status not in ("", "interrupted")

    @property
    def running(self) -> bool:
        return self.epoch > 0 and not self.status

    @property
    def left(self) -> int:
        return 0 if self.ended else self.epochs - self.epoch


Look = Callable[[Path], tuple[bool, str]]
"""Whether seeds are still to be added to a sweep until its verdict is decided, and where its verdict stands."""


class Watched:
    """A sweep's folder that is read again and again. Errors: UserError where it holds no sweep, or a damaged one."""

    def __init__(self, folder: Path, look: Look | None = None) -> None:
        self.folder = folder
        self._look = look
        self._files: dict[Path, BinaryIO] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self.close()
        paths = [self.folder / name for name in (CONFIG, METRICS, RUNS)]
        if missing := next((path.name for path in paths if not files.exists(path)), None):
            hint = "allowed: a folder that 'bnbench run' wrote"
            raise UserError(f"{self.folder}: no sweep here (no {missing}); {hint}")
        # While these files are open, a file that replaces one of them has another inode.
        for path in paths:
            self._files[path] = os.fdopen(files.open_file(path, os.O_RDONLY), "rb")
        config = read_config(self.folder / CONFIG)
        self.name = printable(str(config["name"]), keep="")
        self.runs = _planned(config)
        self.grows = config.get("until_decided") is not None
        """Whether seeds are added until the verdict is decided."""
        self._read_stacks()
        self.pace = Pace()
        self.headers: dict[str, list[str]] = {}
        self.rows_read = 0
        self.spans: dict[str, list[int]] = {}
        """Job → the positions of its first and its last row in metrics.csv."""

    def _read_stacks(self) -> None:
        self.stacks = stacks.read(self.folder)
        self.job_of = {run_id: job.runs[0] for job in self.stacks.jobs for run_id in job.runs}
        self._stacks_written = self._stacks_time()

    def _stacks_time(self) -> int:
        path = self.folder / STACKS
        return path.lstat().st_mtime_ns if files.exists(path) else 0

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def refresh(self) -> bool:
        """Read what is new. Returns whether anything is."""
        inodes = [(os.fstat(file.fileno()).st_ino, path.lstat().st_ino) for path, file in self._files.items()]
        replaced = any(opened != now for opened, now in inodes)
        if replaced:
            self._open()
        elif self._stacks_time() != self._stacks_written:
            self._read_stacks()
        # Results are read before epochs: so a run with a result has all of its epochs, too.
        names = ("run", "status", "error", "epochs_trained")
        results = [{name: row[name] for name in names} for row in self._new_rows(RUNS)]
        before = self.rows_read
        for row in self._new_rows(METRICS):
            self._on_epoch(row)
        for row in results:
            self._on_result(row)
        return replaced or bool(results) or self.rows_read > before

    def _new_rows(self, name: str) -> Iterator[dict[str, str]]:
        """The complete rows that were added to a table. An incomplete last line is read when it is complete."""
        path = self.folder / name
        rows = cells_of(CompleteLines(self._files[path], errors="replace"), path, self.headers.get(name, ()))
        if not self.headers.get(name):
            self.headers[name] = next(rows)
        for cells in rows:
            yield dict(zip(self.headers[name], cells, strict=True))

    def _on_epoch(self, row: dict[str, str]) -> None:
        self.rows_read += 1
        path = self.folder / METRICS
        run = self.runs.get(int(number_in(row, "run", path)))
        if run is None:
            return  # the sweep has grown, and its new config is not read yet
        run.job = run.job or self.job_of.get(row["run_id"]) or guess_job(row)
        run.epoch = int(number_in(row, "epoch", path))
        run.loss, run.accuracy = (measure_in(row, name, path) for name in ("train_loss", "valid_accuracy"))
        self.pace.on_epoch(run.number, run.kind, run.epoch, number_in(row, "run_duration", path))
        self.spans.setdefault(run.job, [self.rows_read, 0])[1] = self.rows_read

    def _on_result(self, row: dict[str, str]) -> None:
        path = self.folder / RUNS
        check_status(row["status"], path)
        if run := self.runs.get(int(number_in(row, "run", path))):
            run.status, run.error = row["status"], printable(row["error"], keep="")
            run.epoch = int(number_in(row, "epochs_trained", path))

    @property
    def running(self) -> list[WatchedRun]:
        return [run for run in self.runs.values() if run.running]

    @property
    def finished(self) -> bool:
        return all(run.ended for run in self.runs.values())

    @property
    def standing(self) -> tuple[bool, str]:
        """`Look`, of a sweep that grows and whose runs have all ended."""
        return self._look(self.folder) if self._look and self.grows else (False, "")

    def age(self) -> float:
        """Seconds since the last row."""
        return max(0.0, time() - max((self.folder / name).lstat().st_mtime for name in (METRICS, RUNS)))

    def workers(self) -> int:
        """An estimate of the number of workers: the most jobs that trained side by side.

        Only rows since the start of the job that ended last count. So the estimate follows a resume with other workers.
        """
        running = {run.job for run in self.running}
        spans = [(first, math.inf if job in running else last) for job, (first, last) in self.spans.items()]
        ended = [(last, first) for first, last in spans if last < math.inf]
        start = max(ended)[1] if ended else 0
        recent = [(max(first, start), last) for first, last in spans if last >= start]
        return max((sum(first <= moment <= last for first, last in recent) for moment, _ in recent), default=1)

    def eta(self) -> float | None:
        """Seconds until the last run ends; None before the first epoch was written."""
        jobs: dict[str | int, list[WatchedRun]] = {}
        for run in self.runs.values():
            if not run.ended:
                jobs.setdefault(run.job if run.running else run.number, []).append(run)
        age, work = self.age(), []
        for runs in jobs.values():
            work.append(Work(runs[0].kind, tuple(run.left for run in runs), age if runs[0].running else None))
        return self.pace.eta(work, self.workers())


def guess_job(first_row: dict[str, str]) -> str:
    """A key that is equal for runs that train as one stack, from the first row of each.

    This is a guess, for the folder of an older bnbench, which has no stacks.json. It works because a stack divides its
    time equally among its runs. So their first rows have the same epoch, and the same `run_duration` to the last digit.
    Runs of different jobs do not agree in all digits of a measured time, except by a rare chance.
    """
    return f"{first_row['epoch']} {first_row['run_duration']}"


def _planned(config: dict[str, Any]) -> dict[int, WatchedRun]:
    points = list(grid.expand(config))
    grids = config.get("grids") or [config.get("grid") or {}]
    names = grid.varying(points, list(dict.fromkeys(name for each in grids for name in grid.keys(each))))
    axis = (config.get("contrast") or {}).get("axis", "")
    return {
        number: WatchedRun(
            number=number,
            label=grid.label([point], names, short=True),
            kind=kind_of([point], names),
            arm=printable(str(point.get(axis, "")), keep=""),
            epochs=int(point["epochs"]),
        )
        for number, point in enumerate(points, start=1)
    }
