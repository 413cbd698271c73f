"""The progress of a sweep on stderr: bars on a terminal, one line for each finished job in a pipe."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from time import monotonic
from typing import Any, NoReturn

from tqdm import tqdm

from runner.config.grid import label, varying
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
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
        return Work(self.kind, tuple(self.left.values()), None if self.reported is None else now - self.reported)


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
        self.planned, self.begun, self.finished = sweep, begun or {}, finished
        self.differing = varying(sweep.parameters.values(), sweep.grid_keys)
        # A job has a place in the order of the jobs. A description takes 1 kB: only jobs in progress have one.
        self.waiting = dict(enumerate(jobs))
        self.places = iter(range(len(jobs)))
        self.open: dict[int, _OpenJob] = {}
        self.place = {run.run_id: place for place, job in self.waiting.items() for run in self._left(job)}
        self.work = list(self._work(jobs))
        self.ended = Counter({"before": len(sweep.runs) - len(self.place)})
        self.left = sum(sum(work.epochs_left) for work in self.work)
        self.done = sum(self.begun.get(run_id, 0) for run_id in self.place)
        self.pace = Pace()
        self.forecast: tuple[float, float] | None = None
        self.written = clock()
        self.free = workers  # bars that may still be opened
        total = self.done + self.left
        self.sweep = _bar(SWEEP, "ETA ?", self.done, total, postfix=self._ended(), disable=not self.bars)
        self._open_bars()

    def _left(self, job: Job) -> list[RunSpec]:
        """The runs of a job whose events come."""
        return [run for run in job.runs if run.run_id not in self.finished]

    def _work(self, jobs: Iterable[Job]) -> Iterator[Work]:
        """What is to do before the jobs begin. Equal jobs share one record."""
        known: dict[Work, Work] = {}
        for job in jobs:
            runs = self._left(job)
            left = tuple(run.epochs - self.begun.get(run.run_id, 0) for run in runs)
            work = Work(kind_of([run.parameters for run in runs], self.differing), left, None)
            yield known.setdefault(work, work)

    def _job(self, run_id: str) -> _OpenJob:
        """The job of a run. It begins now, if it has not begun."""
        place = self.place[run_id]
        if place not in self.open:
            self.open[place] = self._opened(self.waiting.pop(place), self.work[place])
        return self.open[place]

    def _opened(self, job: Job, work: Work) -> _OpenJob:
        keys, runs = self.planned.grid_keys, self._left(job)
        parameters = [run.parameters for run in runs]
        numbers = [self.planned.number[run.run_id] for run in runs]
        return _OpenJob(
            numbers=f"runs {numbers[0]}…{numbers[-1]}" if len(runs) > 1 else f"run {numbers[0]}",
            label=label(parameters, keys),
            short_label=label(parameters, self.differing, short=True),
            kind=work.kind,
            epochs=runs[0].epochs,
            left={run.run_id: left for run, left in zip(runs, work.epochs_left, strict=True)},
            done=runs[0].epochs * len(runs) - sum(work.epochs_left),
        )

    def on_epoch(self, row: EpochRow) -> None:
        job = self._job(row.run_id)
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
        job = self._job(result.run_id)
        self._show_epoch(job)
        self.left -= job.left.pop(result.run_id)  # a run that ended early leaves out its other epochs
        self.ended["failed" if result.status in FAILED else result.status] += 1
        if result.status == "ok" and result.last:
            job.last_rows.append(result.last)
        if result.status not in ("ok", "interrupted"):
            values = label([self.planned.parameters[result.run_id]], self.planned.grid_keys)
            number = self.planned.number[result.run_id]
            self._line(f"run {number} {values} {result.status}{': ' if result.error else ''}{result.error}")
        if result.traceback and self.verbose:
            self._line(result.traceback)
        self.pace.on_result(result.run_id)
        if not job.left:
            del self.open[self.place[result.run_id]]
            self._close_bar(job)
            self._show_line(job, job.last_rows)
            self._open_bars()
        self._draw_sweep()

    def note(self, text: str) -> None:
        """Show something about where jobs run."""
        if not self.quiet:
            self._line(text)

    def close(self) -> None:
        for job in self.open.values():
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
            work = [*(job.work(now) for job in self.open.values()), *(self.work[place] for place in self.waiting)]
            seconds = self.pace.eta(work, self.workers)
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
            f"{job.numbers}/{len(self.planned.runs)} {job.label}  epoch {rows[0].epoch}/{job.epochs}  "
            f"train accuracy {_mean(rows, 'train_accuracy'):.4f}  valid accuracy {_mean(rows, 'valid_accuracy'):.4f}  "
            + (f"means of {len(rows)} runs  " if len(rows) > 1 else "")
            + f"{sum(row.run_duration for row in rows):.1f} s  {self._ended()} ended"
            + (f"  ETA {roughly(seconds)}" if seconds is not None and self.left else "")
        )

    def _open_bars(self) -> None:
        """Open a bar for each job that a free worker begins."""
        while self.bars and self.free > 0 and self.waiting:
            place = next(place for place in self.places if place in self.waiting)
            self._open_bar(self._job(self._left(self.waiting[place])[0].run_id))

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
            waiting = (other for other in self.open.values() if other.bar and other.reported is None)
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
        return f"{ended}/{len(self.planned.runs)} runs{wrong}"

    def _line(self, text: str) -> None:
        self.written = self.clock()
        tqdm.write(printable(text), file=sys.stderr)


def _mean(rows: Sequence[EpochRow], column: str) -> float:
    """The mean of a column. Diverged runs count only if all have diverged."""
    return fmean(getattr(row, column) for row in [row for row in rows if row.finite] or rows)


def _bar(layout: str, text: str, done: int, total: int, **options: Any) -> tqdm[NoReturn]:
    """A bar on the first free line of the terminal."""
    return tqdm(bar_format=layout, desc=text, initial=done, total=total, dynamic_ncols=True, **options)
