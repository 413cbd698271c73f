"""Trackers: sinks that pass a sweep on to another tool.

A tracker is a function without arguments, listed in `trackers/registry.py`. It imports what it needs (`require`), and
returns an `Opener`, which makes a `Tracker` for a sweep. If a tracker fails, the sweep goes on without it (`Guarded`).
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.config.sweep import Sweep
from runner.errors import UserError, described
from runner.monitoring.sinks import Sink, tell
from runner.storage.rows import RunEvent
from runner.storage.tables import cell


@dataclass(frozen=True)
class TrackedRun:
    """A run as the tables show it: its number, and its parameters as text, without the empty ones."""

    number: int
    parameters: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"run-{self.number:03}"


@dataclass(frozen=True)
class TrackedSweep:
    """The sweep that a tracker is opened with.

    `planned` is the number of its runs. `runs` holds, by id, those that the tracker will receive. `output` is the
    folder to write to, where the user named one.

    >>> runs = {"a1b2": TrackedRun(1, {"network": "batch_norm", "lr": "0.1", "batch_size": "64"})}
    >>> sweep = TrackedSweep(Path("results/pair"), "pair", "network", ("network", "lr"), planned=1, runs=runs)
    >>> sweep.grid_values("a1b2")
    {'network': 'batch_norm', 'lr': '0.1'}
    """

    folder: Path
    name: str
    axis: str | None
    grid_keys: tuple[str, ...]
    planned: int
    runs: Mapping[str, TrackedRun]
    output: Path | None = None

    def grid_values(self, run_id: str) -> dict[str, str]:
        """A run's values of the parameters that the grid sets."""
        parameters = self.runs[run_id].parameters
        return {name: parameters[name] for name in self.grid_keys if name in parameters}

    def warnings(self) -> tuple[str, ...]:
        """What a reader of the sweep's tables must know (`runner.storage.result_warnings`)."""
        # These import pandas.
        from runner.storage.result_warnings import warnings_of
        from runner.storage.results import load

        return warnings_of([load(self.folder, whole=False)])


class Tracker(Sink, Protocol):
    """A sink that passes a sweep on to another tool.

    It receives the whole sweep, so it has to replace what it wrote about this sweep before. First come the rows and
    results of the tables, run by run; then `caught_up` is called; then comes what is being trained.

    `where` says where the data are. Errors: UserError where it cannot be opened like this.
    """

    where: str

    def caught_up(self) -> None: ...

    def close(self) -> None:
        """The tables are complete, or the sweep was interrupted."""


Opener = Callable[[TrackedSweep], Tracker]


def opened(opener: Opener, sweep: TrackedSweep, events: Iterable[RunEvent]) -> Tracker:
    """Open a tracker, and pass it the events that the tables hold."""
    tracker = opener(sweep)
    for event in events:
        tell(tracker, event)
    tracker.caught_up()
    return tracker


def require(tool: str, extra: str, modules: Iterable[str]) -> None:
    """Import the modules that a tracker needs. Errors: UserError with the install command where one is absent."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            package = module.partition(".")[0]
            raise UserError(f"tracking with {tool} needs {package}: pip install 'bnbench[{extra}]'") from None


def tracked(sweep: Sweep, folder: Path) -> TrackedSweep:
    """A sweep that is about to be trained, as a tracker sees it."""
    runs = {}
    for number, run in enumerate(sweep.runs, start=1):
        cells = {name: cell(value) for name, value in run.parameters.items()}
        runs[run.run_id] = TrackedRun(number, without_empty(cells))
    return TrackedSweep(folder, sweep.name, sweep.axis, sweep.grid_keys, len(runs), runs)


def without_empty(cells: Mapping[str, str]) -> dict[str, str]:
    """The cells of a row that are not empty."""
    return {name: text for name, text in cells.items() if text}


def in_short(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    return " ".join(described(error).split())[:300]
