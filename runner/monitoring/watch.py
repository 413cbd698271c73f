"""`bnbench watch`: a running sweep seen from another terminal."""

import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from time import monotonic, sleep
from typing import Any, Literal, TypeVar

import click

from runner.errors import quoted
from runner.monitoring.eta import roughly
from runner.monitoring.sweep_reader import Look, Watched, WatchedRun
from runner.storage.folder import is_written
from runner.storage.rows import FAILED

PATIENCE = 5.0
"""Seconds without a row, after which `follow` checks whether the writer has left."""
SHOWN = 10
"""How many running runs, and how many failures, have a line."""

Over = Literal["finished", "stopped"]
"""Why nothing more will come: all runs have ended, and no seeds are to be added; or the writer has left before."""

Told = TypeVar("Told")

Show = Callable[[Watched, Over | None], None]


def summary(watched: Watched, why: Over | None = None) -> str:
    """The whole sweep in one line."""
    return line_of_runs(watched.name, watched.runs.values(), why, None if why else watched.eta())


def line_of_runs(name: str, runs: Collection[WatchedRun], why: Over | None, eta: float | None) -> str:
    """How many runs are in which state, in one line. `eta`: seconds until the last one ends, where that is known."""
    states = [_state(run, why) for run in runs]
    counts = Counter("failed" if state in FAILED else state for state in states)
    order = ("ok", "diverged", "failed", "running", "interrupted", "waiting")
    shown = ", ".join(f"{counts[state]} {state}" for state in order if counts[state])
    done = sum(run.epoch for run in runs)
    total = done + sum(run.left for run in runs)
    left = "" if eta is None else f"; ETA {roughly(eta)}"
    return f"{name}: {len(runs)} runs: {shown}; {done}/{total} epochs{left}"


def _progress(run: WatchedRun) -> str:
    readings = f"loss {run.loss:.4f}  valid {run.accuracy:.4f}"
    return f"run {run.number}  epoch {run.epoch}/{run.epochs}  {readings}  {run.label}"


def report(watched: Watched, why: Over | None) -> list[str]:
    """The sweep as lines: the summary, the runs in progress, the failures, the arms' means, and what to do now."""
    running = [] if why else [_progress(run) for run in watched.running]
    return [
        summary(watched, why),
        *_stacks(watched),
        *first(running),
        *first(failures(watched)),
        *means(watched.runs.values()),
        *_advice(watched, why),
    ]


def _stacks(watched: Watched) -> list[str]:
    """How many stacks there are, of which size and form, and which runs do not train as planned."""
    kinds = Counter((len(job.runs), job.form) for job in watched.stacks.jobs if len(job.runs) > 1)
    lines = [f"{count} stack{'s' if count > 1 else ''} of {runs} runs, {form}" for (runs, form), count in kinds.items()]
    return lines + list(map(str, watched.stacks.shortfalls))


def failures(watched: Watched) -> list[str]:
    """A line for each run that has ended, but not well."""
    return [
        f"run {run.number}  {run.status}  {run.label}{': ' if run.error else ''}{run.error}"
        for run in watched.runs.values()
        if run.ended and run.status != "ok"
    ]


def first(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else lines


def means(runs: Iterable[WatchedRun]) -> list[str]:
    """The mean validation accuracy of each arm's complete runs: numbers, not a verdict."""
    return [f"{arm}  mean valid {fmean(values):.4f}, n = {len(values)}" for arm, values in _arms(runs).items()]


def _arms(runs: Iterable[WatchedRun]) -> dict[str, list[float]]:
    """Arm → the validation accuracy of each of its complete runs. Without a contrast, the only arm is `all`."""
    arms = defaultdict(list)
    for run in runs:
        if run.status == "ok" and math.isfinite(run.accuracy):
            arms[run.arm or "all"].append(run.accuracy)
    return arms


def record(watched: Watched, why: Over | None) -> dict[str, Any]:
    """The sweep as a record for `--format json`."""
    runs = watched.runs.values()
    done = sum(run.epoch for run in runs)
    return {
        "name": watched.name,
        "folder": str(watched.folder),
        "state": why or "running",
        "epochs": done,
        "planned_epochs": done + sum(run.left for run in runs),
        "eta_seconds": None if why else watched.eta(),
        "runs": [
            {
                "run": run.number,
                "label": run.label,
                "arm": run.arm or None,
                "status": _state(run, why),
                "epoch": run.epoch,
                "planned_epochs": run.epochs,
                "train_loss": run.loss,
                "valid_accuracy": run.accuracy,
                "error": run.error or None,
            }
            for run in runs
        ],
        "arms": [
            {"arm": arm, "mean_valid_accuracy": fmean(found), "n": len(found)} for arm, found in _arms(runs).items()
        ],
        "stacks": _stacks(watched),
        "advice": _advice(watched, why),
    }


def _state(run: WatchedRun, why: Over | None) -> str:
    """A run's status; that of one without a result is running, interrupted or waiting."""
    if run.running:
        return "interrupted" if why == "stopped" else "running"
    return run.status or "waiting"


def _advice(watched: Watched, why: Over | None) -> list[str]:
    if why == "stopped":
        verdict = [watched.standing[1]] if watched.grows and watched.finished else []
        return [*verdict, f"stopped; bnbench resume {quoted(watched.folder)} finishes it"]
    verdict = [watched.standing[1]] if why and watched.grows else []
    return [*verdict, f"finished; bnbench compare {quoted(watched.folder)} compares it"] if why else []


def over(watched: Watched) -> Over | None:
    """Why nothing more will come; None while the sweep is trained."""
    if watched.finished and not watched.grows:
        return "finished"
    if is_written(watched.folder):
        return None
    watched.refresh()  # the writer may have added rows before it left
    # Between two stages of a sweep that grows, all runs have ended.
    return "finished" if watched.finished and not watched.standing[0] else "stopped"


def glance(folder: Path, look: Look | None = None) -> tuple[list[str], Over | None]:
    """The state of a sweep as lines of text, and why nothing more will come.

    Errors: UserError where the folder holds no sweep, or a damaged one.
    """
    return seen(folder, look, report)


def seen(folder: Path, look: Look | None, told: Callable[[Watched, Over | None], Told]) -> tuple[Told, Over | None]:
    """The state of a sweep as `told` says it, and why nothing more will come. Errors: as for `glance`."""
    with closing(Watched(folder, look)) as watched:
        watched.refresh()
        why = over(watched)
        return told(watched, why), why


def in_place() -> bool:
    """Whether lines can be redrawn: on a terminal."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def follow(folder: Path, interval: float, look: Look | None = None) -> bool:
    """Show a sweep every `interval` seconds until it is over. Returns whether it was finished.

    A terminal shows the report, which is redrawn in place. Elsewhere a line is added whenever there is something new.
    Errors: UserError where the folder holds no sweep, or a damaged one.
    """
    last_row = -math.inf
    with closing(Watched(folder, look)) as watched, _picture() if in_place() else nullcontext(_Lines()) as show:
        watched.refresh()
        while True:
            silent = monotonic() - last_row > PATIENCE
            why = over(watched) if watched.finished or silent else None
            show(watched, why)
            if why:
                return why == "finished"
            sleep(interval)
            if watched.refresh():
                last_row = monotonic()


@contextmanager
def _picture() -> Iterator[Show]:
    """Show the report in place of the one before."""
    with redrawn() as draw:
        yield lambda watched, why: draw(report(watched, why))


@contextmanager
def redrawn() -> Iterator[Callable[[list[str]], None]]:
    """Lines on a terminal, each time in place of those before."""
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        yield lambda lines: live.update(Text("\n".join(lines), overflow="fold"), refresh=True)


class _Lines:
    """Add a line for each new failure, and a summary when there is a new epoch."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.failures: set[str] = set()

    def __call__(self, watched: Watched, why: Over | None) -> None:
        lines = [line for line in failures(watched) if line not in self.failures]
        self.failures.update(lines)
        epochs = [run.epoch for run in watched.runs.values()]
        if epochs != self.epochs:
            self.epochs = epochs
            lines.append(summary(watched, why))
        if why:
            lines += [*means(watched.runs.values()), *_advice(watched, why)]
        for line in lines:
            click.echo(line)
