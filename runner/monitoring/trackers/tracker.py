"""Trackers: sinks of another tool.

A tracker is a function without arguments, listed in `trackers.registry`. It imports what it needs (`require`) and
returns what opens a `Tracker` on a sweep. It may fail; the sweep then goes on without it (`Guarded`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.monitoring.sinks import Sink
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunResult
from runner.storage.tables import cell


@dataclass(frozen=True)
class TrackedRun:
    """A run as the tables show it: its number, and its parameters as text, without the empty ones."""

    number: int
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class TrackedSweep:
    """What a tracker is opened with. `planned` counts the sweep's runs, of which `runs` (by id) are to be heard of.

    `output` is the folder to write to, where the user named one.
    """

    folder: Path
    name: str
    axis: str | None
    grid_keys: tuple[str, ...]
    planned: int
    runs: Mapping[str, TrackedRun]
    output: Path | None = None


class Tracker(Sink, Protocol):
    """A sink that hands a sweep to another tool. What it wrote of the sweep before is void: it is told all of it again.

    First come the rows and results that the tables hold, run by run, then `caught_up`, then what is being trained.
    `where` says where the data lie. Errors: UserError where it cannot be opened so.
    """

    where: str

    def on_epoch(self, row: EpochRow) -> None: ...

    def on_reading(self, row: CurveRow | ProbeRow) -> None: ...

    def on_result(self, result: RunResult) -> None: ...

    def caught_up(self) -> None: ...

    def close(self) -> None:
        """The tables are whole, or as far as an interrupted sweep has come."""


Opener = Callable[[TrackedSweep], Tracker]


def require(tool: str, extra: str, modules: Iterable[str]) -> None:
    """Import what a tracker is made of. Errors: UserError with the install line where it is absent."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            package = module.partition(".")[0]
            raise UserError(f"tracking with {tool} needs {package}: pip install 'bnbench[{extra}]'") from None


def tracked(sweep: Sweep, folder: Path) -> TrackedSweep:
    """A sweep that is about to be trained, as a tracker sees it."""
    runs = {
        run.run_id: TrackedRun(number, texts({name: cell(value) for name, value in run.parameters.items()}))
        for number, run in enumerate(sweep.runs, start=1)
    }
    return TrackedSweep(folder, sweep.name, sweep.axis, sweep.grid_keys, len(runs), runs)


def texts(cells: Mapping[str, str]) -> dict[str, str]:
    """A table's cells without the empty ones: a run that does not have the parameter."""
    return {name: text for name, text in cells.items() if text}
