"""When a sweep ends: how long an epoch takes, by what it costs, and the work that is left, dealt to its workers."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable

MEMORY = 0.95
"""What an epoch's weight is multiplied by at each new one of its kind: the last twenty decide."""


class Pace:
    """Seconds that an epoch of one run takes a worker, learned from `run_duration`, so without start-up and waiting.

    A kind is what costs the same: runs that differ in seed or learning rate only. Of one not seen yet, the mean of the
    others is all there is to say. A run's first epoch, in which a worker warms up, counts until there are others.
    """

    def __init__(self) -> None:
        self._first: dict[str, _Mean] = {}
        self._later: dict[str, _Mean] = {}
        self._last: dict[Hashable, tuple[int, float]] = {}

    def on_epoch(self, run: Hashable, kind: str, epoch: int, run_duration: float) -> None:
        """A run has trained `epoch` epochs in so many seconds."""
        before, since = self._last.get(run, (0, 0.0))
        self._last[run] = epoch, run_duration
        seconds = max(0.0, run_duration - since) / max(1, epoch - before)
        (self._first if epoch == 1 else self._later).setdefault(kind, _Mean()).add(seconds)

    def seconds(self, kind: str) -> float | None:
        """Of an epoch of this kind; None before any epoch was seen."""
        if mean := self._later.get(kind) or self._first.get(kind):
            return mean.value
        means = [mean.value for mean in (self._first | self._later).values()]
        return sum(means) / len(means) if means else None


class _Mean:
    """Of what was seen, the latest most."""

    def __init__(self) -> None:
        self.weight, self.value = 0.0, 0.0

    def add(self, value: float) -> None:
        self.weight = self.weight * MEMORY + 1
        self.value += (value - self.value) / self.weight


def makespan(running: Iterable[float], waiting: Iterable[float], workers: int) -> float:
    """Seconds until the last job ends, where each waiting one goes, in order, to the worker that is free first."""
    busy = list(running)
    busy += [0.0] * (max(1, workers) - len(busy))
    heapq.heapify(busy)
    for seconds in waiting:
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy)


def roughly(seconds: float) -> str:
    """'40 s', '3 min', '2 h 10 min', '3 d 4 h': as exact as a forecast is."""
    if seconds < 90:
        return f"{max(1, round(seconds / 10))}0 s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
