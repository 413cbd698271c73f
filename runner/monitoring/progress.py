"""The sweep as a person watches it: bars on a terminal, one line an epoch in a pipe; always on stderr."""

from __future__ import annotations

import heapq
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from time import monotonic
from typing import TYPE_CHECKING

from tqdm import tqdm

from runner.config.grid import label, varying
from runner.config.jobs import STACKABLE, Job
from runner.config.sweep import Sweep
from runner.monitoring.eta import Pace, makespan, roughly
from runner.storage.rows import FAILED, CurveRow, EpochRow, ProbeRow, RunResult

if TYPE_CHECKING:
    from typing import NoReturn

    Bar = tqdm[NoReturn]

SWEEP = "sweep {percentage:3.0f}%  {desc} |{bar}| {n_fmt}/{total_fmt} epochs{postfix}"
JOB = "{desc} |{bar}|"  # a narrow terminal cuts the bar off, then the end of the label
FORECAST_EVERY = 0.5
"""Seconds: dealing a hundred thousand jobs to their workers takes a tenth of one."""


@dataclass
class _Shown:
    """A job that has not ended, as its bar and its lines show it."""

    numbers: str
    label: str
    short_label: str
    kind: str
    epochs: int
    left: dict[str, int]
    """Of each of its runs that has not ended: the epochs to come."""
    done: int
    rows: list[EpochRow] = field(default_factory=list)
    """Of the epoch that is being told, one a run."""
    heard: float | None = None
    bar: Bar | None = None

    @property
    def size(self) -> int:
        return self.done + sum(self.left.values())

    def reading(self, values: str = "") -> str:
        """What its bar says; the label last, since a narrow terminal cuts that."""
        epoch = self.epochs - max(self.left.values())
        return f"{self.numbers}  epoch {epoch}/{self.epochs}{values}  {self.short_label}"


class Progress:
    """A sink that shows the jobs to train of a sweep: so many workers take them in this order.

    `begun` has the epoch that a run goes on from; `quiet` shows failures only.
    """

    def __init__(
        self,
        sweep: Sweep,
        jobs: Sequence[Job],
        *,
        workers: int = 1,
        begun: Mapping[str, int] | None = None,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.workers, self.quiet, self.verbose, self.clock = workers, quiet, verbose, clock
        self.bars = sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"
        self.names = {
            run.run_id: (number, label([run.parameters], sweep.grid_keys))
            for number, run in enumerate(sweep.runs, start=1)
        }
        self.jobs = dict(enumerate(_shown(sweep, jobs, self.names, begun or {})))
        self.index = {run_id: index for index, job in self.jobs.items() for run_id in job.left}
        self.ended = Counter({"before": len(self.names) - len(self.index)})
        self.left = sum(sum(job.left.values()) for job in self.jobs.values())
        self.done = sum(job.done for job in self.jobs.values())
        self.pace = Pace()
        self.forecast: tuple[float, float] | None = None
        self.free = list(range(1, workers + 1))  # a heap of the lines below the sweep's bar
        self.sweep: Bar = tqdm(
            bar_format=SWEEP,
            desc="ETA ?",
            total=self.done + self.left,
            initial=self.done,
            postfix=self._ended(),
            disable=not self.bars,
            position=0,
            dynamic_ncols=True,
        )
        self._open_bars()

    def on_epoch(self, row: EpochRow) -> None:
        job = self.jobs[self.index[row.run_id]]
        if job.rows and job.rows[0].epoch != row.epoch:
            self._tell(job)  # a part of a stack that was cut: how many runs it has, nobody said
        trained = job.left[row.run_id] - (job.epochs - row.epoch)
        job.left[row.run_id] -= trained
        job.done, self.done, self.left = job.done + trained, self.done + trained, self.left - trained
        self.pace.on_epoch(row.run_id, job.kind, row.epoch, row.run_duration)
        job.heard = self.clock()
        job.rows.append(row)
        if len(job.rows) == len(job.left):
            self._tell(job)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Readings within an epoch are for the tables."""

    def on_result(self, result: RunResult) -> None:
        index = self.index[result.run_id]
        job = self.jobs[index]
        if job.rows:
            self._tell(job)
        self.left -= job.left.pop(result.run_id)  # what a run that ended early had to come, no other waits for
        self.ended["failed" if result.status in FAILED else result.status] += 1
        if result.status not in ("ok", "interrupted"):
            number, values = self.names[result.run_id]
            self._line(f"run {number} {values} {result.status}{': ' if result.error else ''}{result.error}")
        if result.traceback and self.verbose:
            self._line(result.traceback)
        if not job.left:
            del self.jobs[index]
            self._close_bar(job)
            self._open_bars()
        self._draw_sweep()

    def note(self, text: str) -> None:
        """Of where runs train; failures apart, nothing is said when quiet."""
        if not self.quiet:
            self._line(text)

    def close(self) -> None:
        for job in self.jobs.values():
            if job.rows:
                self._tell(job)
            self._close_bar(job)
        self._draw_sweep()
        self.sweep.close()

    def eta(self) -> float | None:
        """Seconds until the last job ends; None before the first epoch has."""
        if not self.left:
            return 0.0
        now = self.clock()
        if self.forecast is None or now >= self.forecast[0] + FORECAST_EVERY:
            jobs = list(self.jobs.values())
            seconds = {job.kind: self.pace.seconds(job.kind) for job in jobs}
            if any(each is None for each in seconds.values()):
                return None
            running = [self._seconds_left(job) for job in jobs if job.heard is not None]
            waiting = (self._seconds_left(job) for job in jobs if job.heard is None)
            self.forecast = now, makespan(running, waiting, self.workers)
        return max(0.0, self.forecast[0] + self.forecast[1] - now)

    def _seconds_left(self, job: _Shown) -> float:
        """Of a job's epochs to come, less what of the next one must have passed."""
        epoch = self.pace.seconds(job.kind) or 0.0
        passed = 0.0 if job.heard is None else min(self.clock() - job.heard, epoch * len(job.left))
        return max(0.0, epoch * sum(job.left.values()) - passed)

    def _tell(self, job: _Shown) -> None:
        """One epoch of a job, of all of its runs."""
        rows, job.rows = job.rows, []
        mean = _means(rows)
        if self.bars:
            eta = tqdm.format_interval(self._seconds_left(job))
            self._draw(job, f"  ETA {eta}  loss {mean['train_loss']:.4f}  valid {mean['valid_accuracy']:.4f}")
            self._draw_sweep()
        elif not self.quiet:
            seconds = self.eta()
            self._line(
                f"{job.numbers}/{len(self.names)} {job.label}  epoch {rows[0].epoch}/{job.epochs}  "
                f"loss {mean['train_loss']:.4f}  accuracy {mean['train_accuracy']:.4f}  "
                f"valid loss {mean['valid_loss']:.4f}  valid accuracy {mean['valid_accuracy']:.4f}  "
                + (f"means of {len(rows)} runs  " if len(rows) > 1 else "")
                + f"{sum(row.epoch_duration for row in rows):.1f} s"
                + (f"  ETA {roughly(seconds)}" if seconds is not None and self.left else "")
            )

    def _open_bars(self) -> None:
        """A bar for each job that a free worker begins."""
        waiting = (job for job in self.jobs.values() if job.bar is None)
        while self.bars and self.free and (job := next(waiting, None)):
            self._open_bar(job, heapq.heappop(self.free))

    def _open_bar(self, job: _Shown, position: int) -> None:
        job.bar = tqdm(
            bar_format=JOB,
            desc=job.reading(),
            total=job.size,
            initial=job.done,
            position=position,
            leave=False,
            dynamic_ncols=True,
        )

    def _close_bar(self, job: _Shown) -> None:
        if job.bar is not None:
            heapq.heappush(self.free, -job.bar.pos)
            job.bar.close()

    def _draw(self, job: _Shown, reading: str = "") -> None:
        if job.bar is None:  # an executor took it out of turn: its bar is that of a job not begun, or one more
            bars = [other for other in self.jobs.values() if other.bar]
            if other := next((other for other in bars if other.heard is None), None):
                job.bar, other.bar = other.bar, None
            else:
                self._open_bar(job, 1 + max(-other.bar.pos for other in bars if other.bar))
        if job.bar is not None:
            job.bar.n, job.bar.total = job.done, job.size
            job.bar.set_description_str(job.reading(reading))

    def _draw_sweep(self) -> None:
        if self.bars:
            seconds = self.eta()
            self.sweep.n, self.sweep.total = self.done, self.done + self.left
            self.sweep.set_description_str(f"ETA {'?' if seconds is None else tqdm.format_interval(seconds)}", False)
            self.sweep.set_postfix_str(self._ended())

    def _ended(self) -> str:
        ended = sum(self.ended.values()) - self.ended["interrupted"]
        wrong = "".join(f", {self.ended[each]} {each}" for each in ("failed", "diverged") if self.ended[each])
        return f"{ended}/{len(self.names)} runs{wrong}"

    def _line(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)


def _shown(
    sweep: Sweep, jobs: Sequence[Job], names: Mapping[str, tuple[int, str]], begun: Mapping[str, int]
) -> Iterator[_Shown]:
    differing = varying([run.parameters for run in sweep.runs], sweep.grid_keys)
    costly = [name for name in differing if name not in STACKABLE]
    for job in jobs:
        parameters = [run.parameters for run in job]
        numbers = [names[run.run_id][0] for run in job]
        left = {run.run_id: run.epochs - begun.get(run.run_id, 0) for run in job}
        yield _Shown(
            numbers=f"runs {numbers[0]}…{numbers[-1]}" if len(job) > 1 else f"run {numbers[0]}",
            label=label(parameters, sweep.grid_keys),
            short_label=label(parameters, differing, short=True),
            kind=label(parameters, costly),
            epochs=job[0].epochs,
            left=left,
            done=job[0].epochs * len(job) - sum(left.values()),
        )


def _means(rows: Sequence[EpochRow]) -> dict[str, float]:
    """Of the runs of a stack at one epoch; those that diverged are left out where others did not."""
    told = [row for row in rows if row.finite] or rows
    names = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    return {name: fmean(getattr(row, name) for row in told) for name in names}
