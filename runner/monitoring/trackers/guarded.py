"""A tracker that cannot fail the sweep."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from runner.monitoring.sinks import tell
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, Tracker
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunEvent, RunResult


class Guarded:
    """A tracker that cannot fail the sweep: the first thing it raises is reported once, and it hears no more."""

    def __init__(self, name: str, opener: Opener, sweep: TrackedSweep, log: Callable[[str], None]) -> None:
        self.name, self.opener, self.sweep, self.log = name, opener, sweep, log
        self.tracker: Tracker | None = None

    def catch_up(self, events: Iterable[RunEvent]) -> None:
        """Open it and tell it what the tables hold."""
        self._guard(self._catch_up, events)

    def _catch_up(self, events: Iterable[RunEvent]) -> None:
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
