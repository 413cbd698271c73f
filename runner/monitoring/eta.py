"""An estimate of when a sweep ends: from the time that epochs take, and the work that is left for its workers."""

import heapq
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from runner.config.grid import label
from runner.config.jobs import STACKABLE

MEMORY = 0.95
"""Each new epoch of a kind multiplies the weights of the earlier ones by this: about the last twenty decide."""


class Work(NamedTuple):
    """A job that has not ended."""

    kind: str
    epochs_left: tuple[int, ...]
    """For each of its unfinished runs the number of epochs to come."""
    silence: float | None
    """Seconds since it last reported an epoch; None before its first."""


class Pace:
    """Seconds that an epoch of one run takes a worker, learned from `run_duration`, so without start-up and waiting.

    Epochs of one kind take the same time (see `kind_of`). For a kind that was not seen yet, the estimate is the mean of
    the others. A worker warms up in a run's first epoch: it counts only until there are later ones.

    >>> pace = Pace()
    >>> pace.on_epoch("run 1", "mlp", epoch=1, run_duration=3.0)
    >>> pace.on_epoch("run 1", "mlp", epoch=2, run_duration=5.0)
    >>> pace.seconds("mlp")
    2.0
    >>> pace.eta([Work("mlp", (8,), 0.5), Work("mlp", (10,), None)], workers=2)
    20.0
    """

    def __init__(self) -> None:
        self._first: dict[str, _RecentMean] = {}
        self._later: dict[str, _RecentMean] = {}
        self._last: dict[Hashable, tuple[int, float]] = {}

    def on_epoch(self, run: Hashable, kind: str, epoch: int, run_duration: float) -> None:
        """A run has trained `epoch` epochs in `run_duration` seconds."""
        earlier_epoch, earlier_duration = self._last.get(run, (0, 0.0))
        self._last[run] = epoch, run_duration
        seconds = max(0.0, run_duration - earlier_duration) / max(1, epoch - earlier_epoch)
        means = self._first if epoch == 1 else self._later
        means.setdefault(kind, _RecentMean()).add(seconds)

    def on_result(self, run: Hashable) -> None:
        """A run has ended: no more epochs of it come."""
        self._last.pop(run, None)

    def seconds(self, kind: str) -> float | None:
        """Seconds that an epoch of this kind takes; None before any epoch was seen."""
        if mean := self._later.get(kind) or self._first.get(kind):
            return mean.value
        means = [mean.value for mean in (self._first | self._later).values()]
        return sum(means) / len(means) if means else None

    def remaining(self, job: Work) -> float:
        """Seconds until a job ends: its epochs to come, less the time since its last one."""
        epoch = self.seconds(job.kind) or 0.0
        passed = min(job.silence or 0.0, epoch * len(job.epochs_left))
        return max(0.0, epoch * sum(job.epochs_left) - passed)

    def eta(self, jobs: Iterable[Work], workers: int) -> float | None:
        """Seconds until the last of these jobs ends; None before any epoch was seen."""
        jobs = list(jobs)
        running = [self.remaining(job) for job in jobs if job.silence is not None]
        remaining = cache(self.remaining)  # most of the jobs that wait are equal
        waiting = [remaining(job) for job in jobs if job.silence is None]
        return makespan(running, waiting, workers) if self._first or self._later else None


class _RecentMean:
    """A mean in which later values weigh more."""

    def __init__(self) -> None:
        self.weight, self.value = 0.0, 0.0

    def add(self, value: float) -> None:
        self.weight = self.weight * MEMORY + 1
        self.value += (value - self.value) / self.weight


def kind_of(runs: Sequence[Mapping[str, Any]], varying: Sequence[str]) -> str:
    """Equal for jobs whose epochs take the same time: they differ only in what the runs of a stack may differ in.

    `varying` names the parameters in which the runs of the sweep differ.
    """
    return label(runs, [name for name in varying if name not in STACKABLE])


def makespan(running: Iterable[float], waiting: Iterable[float], workers: int) -> float:
    """Seconds until the last job ends, where each waiting job goes, in order, to the worker that is free first.

    `running` has the seconds that the jobs in progress still take, `waiting` those of the jobs that have not begun.

    >>> makespan([3.0, 50.0], [10.0, 10.0], workers=2)
    50.0
    """
    busy = list(running)
    busy += [0.0] * (max(1, workers) - len(busy))
    heapq.heapify(busy)
    for seconds in waiting:
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy)


def roughly(seconds: float) -> str:
    """A duration in words, only as exact as an estimate is.

    >>> [roughly(seconds) for seconds in (0.2, 42, 170, 7800, 273600)]
    ['1 s', '42 s', '3 min', '2 h 10 min', '3 d 4 h']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
