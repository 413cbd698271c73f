"""`bnbench watch`: a running sweep seen from another terminal."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from time import monotonic, sleep
from typing import Literal

import click

from runner.monitoring.eta import roughly
from runner.monitoring.sweep_reader import Watched
from runner.storage.folder import is_written
from runner.storage.rows import FAILED

PATIENCE = 5.0
"""Seconds without a row before a follower asks whether anybody writes."""
SHOWN = 10
"""Running runs, and failures, that have a line."""

Over = Literal["finished", "stopped"]


def summary(watched: Watched, why: Over | None = None) -> str:
    """The whole sweep in one line."""
    runs = watched.runs.values()
    counts = Counter("failed" if run.status in FAILED else run.status for run in runs)
    counts["running"] = len(watched.running)
    counts["waiting"] = counts.pop("", 0) - counts["running"]
    counts["interrupted"] += counts.pop("running") if why == "stopped" else 0
    order = ("ok", "diverged", "failed", "running", "interrupted", "waiting")
    told = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    done = sum(run.epoch for run in runs)
    total = done + sum(run.left for run in runs)
    seconds = None if why else watched.eta()
    eta = "" if seconds is None else f"; ETA {roughly(seconds)}"
    return f"{watched.name}: {len(runs)} runs: {told}; {done}/{total} epochs{eta}"


def details(watched: Watched, why: Over | None = None) -> list[str]:
    """The runs in progress, the failures, and what the arms' ended runs have reached: numbers, not a verdict."""
    lines = [
        f"run {run.number}  epoch {run.epoch}/{run.epochs}  loss {run.loss:.4f}  valid {run.accuracy:.4f}  {run.label}"
        for run in watched.running
        if not why
    ]
    return [*_some(lines), *_some(failures(watched)), *_arms(watched)]


def failures(watched: Watched) -> list[str]:
    """A line for each run that did not end well."""
    return [
        f"run {run.number}  {run.status}  {run.label}{': ' if run.error else ''}{run.error}"
        for run in watched.runs.values()
        if run.ended and run.status != "ok"
    ]


def _some(lines: list[str]) -> list[str]:
    return [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else lines


def _arms(watched: Watched) -> list[str]:
    arms: dict[str, list[float]] = {}
    for run in watched.runs.values():
        if run.status == "ok" and math.isfinite(run.accuracy):
            arms.setdefault(run.arm, []).append(run.accuracy)
    return [f"{arm or 'all'}  mean valid {fmean(values):.4f}, n = {len(values)}" for arm, values in arms.items()]


def over(watched: Watched) -> Over | None:
    """Whether there is nothing more to come, and why. Reads again what was written before the writer left."""
    if not watched.finished and not is_written(watched.folder):
        watched.refresh()
        return "finished" if watched.finished else "stopped"
    return "finished" if watched.finished else None


def ending(watched: Watched, why: Over) -> str:
    """What to do now."""
    if why == "stopped":
        return f"stopped; bnbench resume {watched.folder} finishes it"
    return f"finished; bnbench compare {watched.folder} compares it"


def glance(folder: Path) -> list[str]:
    """The state as lines of text."""
    with closing(Watched(folder)) as watched:
        watched.refresh()
        return _whole(watched, over(watched))


def _whole(watched: Watched, why: Over | None) -> list[str]:
    return [summary(watched, why), *details(watched, why), *([ending(watched, why)] if why else [])]


def follow(folder: Path, interval: float) -> bool:
    """Show the sweep until it is over, every so many seconds; whether it was finished.

    On a terminal the picture is drawn in place; elsewhere a line is added whenever there is something new.
    """
    in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    heard = -math.inf
    with closing(Watched(folder)) as watched, _picture() if in_place else nullcontext(_Lines()) as show:
        watched.refresh()
        while True:
            quiet = watched.finished or monotonic() - heard > PATIENCE
            why = over(watched) if quiet else None
            show(watched, why)
            if why:
                return why == "finished"
            sleep(interval)
            if watched.refresh():
                heard = monotonic()


Show = Callable[[Watched, Over | None], None]


@contextmanager
def _picture() -> Iterator[Show]:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:

        def show(watched: Watched, why: Over | None) -> None:
            live.update(Text("\n".join(_whole(watched, why)), no_wrap=True, overflow="ellipsis"), refresh=True)

        yield show


class _Lines:
    """One calm line whenever there is something new, and one for each failure."""

    def __init__(self) -> None:
        self.seen: tuple[int, ...] = ()
        self.failed: set[str] = set()

    def __call__(self, watched: Watched, why: Over | None) -> None:
        for line in failures(watched):
            if line not in self.failed:
                self.failed.add(line)
                click.echo(line)
        now = tuple(run.epoch for run in watched.runs.values())
        if now != self.seen:
            self.seen = now
            click.echo(summary(watched, why))
        if why:
            click.echo("\n".join([*_arms(watched), ending(watched, why)]))
