"""Who is told what a sweep does: sinks, and among them trackers, which hand it to another tool.

A tracker is a function without arguments under `@tracker("name")`: it imports what it needs (`require`) and returns
what opens a `Tracker` on a sweep. It may fail; the sweep then goes on without it (`Guarded`).
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunResult
from runner.storage.store import cell

Told = EpochRow | CurveRow | ProbeRow | RunResult


class Sink(Protocol):
    """Something that is told each epoch's row, each reading in between, and each run's end."""

    def on_epoch(self, row: EpochRow) -> None: ...

    def on_reading(self, row: CurveRow | ProbeRow) -> None: ...

    def on_result(self, result: RunResult) -> None: ...


def tell(sink: Sink, event: Told) -> None:
    """Hand an event to the method that takes it."""
    if isinstance(event, EpochRow):
        sink.on_epoch(event)
    elif isinstance(event, RunResult):
        sink.on_result(event)
    else:
        sink.on_reading(event)


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


class Guarded:
    """A tracker that cannot fail the sweep: the first thing it raises is reported once, and it hears no more."""

    def __init__(self, name: str, opener: Opener, sweep: TrackedSweep, log: Callable[[str], None]) -> None:
        self.name, self.opener, self.sweep, self.log = name, opener, sweep, log
        self.tracker: Tracker | None = None

    def catch_up(self, events: Iterable[Told]) -> None:
        """Open it and tell it what the tables hold."""
        self._guard(self._catch_up, events)

    def _catch_up(self, events: Iterable[Told]) -> None:
        self.tracker = self.opener(self.sweep)
        for event in events:
            tell(self.tracker, event)
        self.tracker.caught_up()

    def on_epoch(self, row: EpochRow) -> None:
        if self.tracker:
            self._guard(self.tracker.on_epoch, row)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        if self.tracker:
            self._guard(self.tracker.on_reading, row)

    def on_result(self, result: RunResult) -> None:
        if self.tracker:
            self._guard(self.tracker.on_result, result)

    def close(self) -> None:
        if self.tracker:
            self._guard(self.tracker.close)

    def _guard(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except (Exception, SystemExit) as error:
            self.tracker = None
            message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            tqdm.write(
                f"{self.name} failed and is told no more, the sweep goes on ({message}); "
                f"bnbench export {self.sweep.folder} --format {self.name} writes it afterwards",
                file=sys.stderr,
            )
            with suppress(OSError):  # a full disk is for the tables to find
                self.log(f"{self.name}: {message}\n{traceback.format_exc()}")
