"""The progress of a sweep on stderr: bars on a terminal, one line for each finished job in a pipe."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from time import monotonic
from typing import Any, NoReturn

from tqdm import tqdm

from runner.config.grid import label, varying
from runner.config.jobs import Job
from runner.config.sweep import Sweep
from runner.errors import printable
from runner.monitoring.eta import Pace, Work, kind_of, roughly
from runner.storage.rows import FAILED, CurveRow, EpochRow, ProbeRow, RunResult

SWEEP = "sweep {percentage:3.0f}%  {desc} |{bar}| {n_fmt}/{total_fmt} epochs{postfix}"
JOB = "{desc} |{bar}|"  # a narrow terminal cuts off the bar, then the end of the label
SILENCE = 60.0
"""Seconds without a line, after which a pipe also gets a line for an epoch: then a log shows that a long run trains."""
FORECAST_EVERY = 0.5
"""Seconds between two forecasts: with a hundred thousand jobs, one takes a tenth of a second."""


@dataclass(eq=False)
class _OpenJob:
    """A job that has not ended, as its bar and its lines show it."""

    numbers: str
    label: str
    short_label: str
    kind: str
    epochs: int
    left: dict[str, int]
    """Run id → epochs to come, of its runs that have not ended."""
    done: int
    rows: list[EpochRow] = field(default_factory=list)
    """The rows of an epoch, until all of its runs have reported it."""
    last_rows: list[EpochRow] = field(default_factory=list)
    """The last rows of its runs that have ended well."""
    reported: float | None = None
    """When it reported last, by the clock; None before its first epoch."""
    bar: tqdm[NoReturn] | None = None

    @property
    def size(self) -> int:
        return self.done + sum(self.left.values())

    def description(self, values: str = "") -> str:
        """The text of its bar. The label is last, because a narrow terminal cuts off the end."""
        epoch = self.epochs - max(self.left.values())
        return f"{self.numbers}  epoch {epoch}/{self.epochs}{values}  {self.short_label}"

    def work(self, now: float) -> Work:
        return Work(self.kind, self.left.values(), None if self.reported is None else now - self.reported)


class Progress:
    """A sink that shows how far a sweep is.

    `jobs` are the jobs to train, in the order in which `workers` workers take them. `begun` maps the id of a run that
    continues from a checkpoint to the checkpoint's epoch. `finished` are runs whose events do not come. `quiet` shows
    failures only, `verbose` also their tracebacks.
    """

    def __init__(
        self,
        sweep: Sweep,
        jobs: Sequence[Job],
        *,
        workers: int = 1,
        begun: Mapping[str, int] | None = None,
        finished: Collection[str] = (),
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.workers, self.quiet, self.verbose, self.clock = workers, quiet, verbose, clock
        in_terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bars = in_terminal and not quiet and os.environ.get("TERM") != "dumb"
        self.names = {
            run.run_id: (number, label([run.parameters], sweep.grid_keys))
            for number, run in enumerate(sweep.runs, start=1)
        }
        self.jobs = list(_open_jobs(sweep, jobs, self.names, begun or {}, finished))
        self.job_of = {run_id: job for job in self.jobs for run_id in job.left}
        self.ended = Counter({"before": len(self.names) - len(self.job_of)})
        self.left = sum(sum(job.left.values()) for job in self.jobs)
        self.done = sum(job.done for job in self.jobs)
        self.pace = Pace()
        self.forecast: tuple[float, float] | None = None
        self.written = clock()
        self.free = workers  # bars that may still be opened
        total = self.done + self.left
        self.sweep = _bar(SWEEP, "ETA ?", self.done, total, postfix=self._ended(), disable=not self.bars)
        self._open_bars()

    def on_epoch(self, row: EpochRow) -> None:
        job = self.job_of[row.run_id]
        if job.rows and job.rows[0].epoch != row.epoch:
            self._show_epoch(job)  # the stack was cut, and its parts report apart
        trained = job.left[row.run_id] - (job.epochs - row.epoch)
        job.left[row.run_id] -= trained
        job.done += trained
        self.done += trained
        self.left -= trained
        self.pace.on_epoch(row.run_id, job.kind, row.epoch, row.run_duration)
        job.reported = self.clock()
        job.rows.append(row)
        if len(job.rows) == len(job.left):
            self._show_epoch(job)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Readings within an epoch are not shown."""

    def on_result(self, result: RunResult) -> None:
        job = self.job_of[result.run_id]
        self._show_epoch(job)
        self.left -= job.left.pop(result.run_id)  # a run that ended early leaves out its other epochs
        self.ended["failed" if result.status in FAILED else result.status] += 1
        if result.status == "ok" and result.last:
            job.last_rows.append(result.last)
        if result.status not in ("ok", "interrupted"):
            number, values = self.names[result.run_id]
            self._line(f"run {number} {values} {result.status}{': ' if result.error else ''}{result.error}")
        if result.traceback and self.verbose:
            self._line(result.traceback)
        if not job.left:
            self.jobs.remove(job)
            self._close_bar(job)
            self._show_line(job, job.last_rows)
            self._open_bars()
        self._draw_sweep()

    def note(self, text: str) -> None:
        """Show something about where jobs run."""
        if not self.quiet:
            self._line(text)

    def close(self) -> None:
        for job in self.jobs:
            self._show_epoch(job)
            self._close_bar(job)
        self._draw_sweep()
        self.sweep.close()

    def eta(self) -> float | None:
        """Seconds until the last job ends; None before the first epoch has ended."""
        if not self.left:
            return 0.0
        now = self.clock()
        if self.forecast is None or now >= self.forecast[0] + FORECAST_EVERY:
            seconds = self.pace.eta((job.work(now) for job in self.jobs), self.workers)
            if seconds is None:
                return None
            self.forecast = now, now + seconds
        return max(0.0, self.forecast[1] - now)

    def _show_epoch(self, job: _OpenJob) -> None:
        """Show the rows that a job has reported of an epoch, if there are any: means over its runs."""
        rows, job.rows = job.rows, []
        if not rows or self.quiet:
            return
        if self.bars:
            loss, accuracy = _mean(rows, "train_loss"), _mean(rows, "valid_accuracy")
            eta = tqdm.format_interval(self.pace.remaining(job.work(self.clock())))
            self._draw(job, f"  ETA {eta}  loss {loss:.4f}  valid {accuracy:.4f}")
            self._draw_sweep()
        elif self.clock() >= self.written + SILENCE:
            self._show_line(job, rows)

    def _show_line(self, job: _OpenJob, rows: Sequence[EpochRow]) -> None:
        """Write a line in a pipe about a job that has trained as far as these rows: means over its runs."""
        if not rows or self.bars or self.quiet:
            return
        seconds = self.eta()
        self._line(
            f"{job.numbers}/{len(self.names)} {job.label}  epoch {rows[0].epoch}/{job.epochs}  "
            f"train accuracy {_mean(rows, 'train_accuracy'):.4f}  valid accuracy {_mean(rows, 'valid_accuracy'):.4f}  "
            + (f"means of {len(rows)} runs  " if len(rows) > 1 else "")
            + f"{sum(row.run_duration for row in rows):.1f} s  {self._ended()} ended"
            + (f"  ETA {roughly(seconds)}" if seconds is not None and self.left else "")
        )

    def _open_bars(self) -> None:
        """Open a bar for each job that a free worker begins."""
        waiting = (job for job in self.jobs if job.bar is None)
        while self.bars and self.free > 0 and (job := next(waiting, None)):
            self._open_bar(job)

    def _open_bar(self, job: _OpenJob) -> None:
        self.free -= 1
        job.bar = _bar(JOB, job.description(), job.done, job.size, leave=False)

    def _close_bar(self, job: _OpenJob) -> None:
        if job.bar is not None:
            self.free += 1
            job.bar.close()

    def _draw(self, job: _OpenJob, values: str) -> None:
        # An executor may take a job out of turn: it takes over the bar of a job that waits, or gets a new one.
        if job.bar is None:
            waiting = (other for other in self.jobs if other.bar and other.reported is None)
            if other := next(waiting, None):
                job.bar, other.bar = other.bar, None
            else:
                self._open_bar(job)
        if job.bar is not None:
            job.bar.n, job.bar.total = job.done, job.size
            job.bar.set_description_str(job.description(values))

    def _draw_sweep(self) -> None:
        if self.bars:
            seconds = self.eta()
            eta = "?" if seconds is None else tqdm.format_interval(seconds)
            self.sweep.n, self.sweep.total = self.done, self.done + self.left
            self.sweep.set_description_str(f"ETA {eta}", False)
            self.sweep.set_postfix_str(self._ended())

    def _ended(self) -> str:
        ended = sum(self.ended.values()) - self.ended["interrupted"]
        wrong = "".join(f", {self.ended[name]} {name}" for name in ("failed", "diverged") if self.ended[name])
        return f"{ended}/{len(self.names)} runs{wrong}"

    def _line(self, text: str) -> None:
        self.written = self.clock()
        tqdm.write(printable(text), file=sys.stderr)


def _mean(rows: Sequence[EpochRow], column: str) -> float:
    """The mean of a column. Diverged runs count only if all have diverged."""
    return fmean(getattr(row, column) for row in [row for row in rows if row.finite] or rows)


def _bar(layout: str, text: str, done: int, total: int, **options: Any) -> tqdm[NoReturn]:
    """A bar on the first free line of the terminal."""
    return tqdm(bar_format=layout, desc=text, initial=done, total=total, dynamic_ncols=True, **options)


def _open_jobs(
    sweep: Sweep,
    jobs: Sequence[Job],
    names: Mapping[str, tuple[int, str]],
    begun: Mapping[str, int],
    finished: Collection[str],
) -> Iterator[_OpenJob]:
    differing = varying([run.parameters for run in sweep.runs], sweep.grid_keys)
    for job in jobs:
        runs = [run for run in job.runs if run.run_id not in finished]
        parameters = [run.parameters for run in runs]
        numbers = [names[run.run_id][0] for run in runs]
        left = {run.run_id: run.epochs - begun.get(run.run_id, 0) for run in runs}
        epochs = runs[0].epochs
        yield _OpenJob(
            numbers=f"runs {numbers[0]}…{numbers[-1]}" if len(runs) > 1 else f"run {numbers[0]}",
            label=label(parameters, sweep.grid_keys),
            short_label=label(parameters, differing, short=True),
            kind=kind_of(parameters, differing),
            epochs=epochs,
            left=left,
            done=epochs * len(runs) - sum(left.values()),
        )
