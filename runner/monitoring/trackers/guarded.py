"""A tracker that cannot fail the sweep."""

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from runner.errors import quoted
from runner.monitoring.sinks import tell
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, Tracker, in_short, opened
from runner.storage.rows import RunEvent


class Guarded:
    """A tracker that cannot fail the sweep. Its first error is reported once; then it receives nothing more."""

    def __init__(self, name: str, opener: Opener, sweep: TrackedSweep, log: Callable[[str], None]) -> None:
        self.name, self.opener, self.sweep, self.log = name, opener, sweep, log
        self.tracker: Tracker | None = None

    def catch_up(self, events: Iterable[RunEvent]) -> None:
        """Open the tracker, and pass it the events that the tables hold."""
        with self._guard():
            self.tracker = opened(self.opener, self.sweep, events)

    def on_event(self, event: RunEvent) -> None:
        with self._guard():
            if self.tracker:
                tell(self.tracker, event)

    on_epoch = on_reading = on_result = on_event

    def close(self) -> None:
        with self._guard():
            if self.tracker:
                self.tracker.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            self.tracker = None
            message = f"{self.name} failed, and the sweep goes on without it ({in_short(error)})"
            export = f"bnbench export {quoted(self.sweep.folder)} --format {self.name} writes it afterwards"
            tqdm.write(f"{message}; {export}", file=sys.stderr)
            with suppress(OSError):  # if the disk is full, the tables will report it
                self.log(f"{self.name}: {in_short(error)}\n{traceback.format_exc()}")
