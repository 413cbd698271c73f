"""Sinks: objects that receive each row of a sweep."""

from typing import Protocol

from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunEvent, RunResult


class Sink(Protocol):
    """An object that receives each epoch's row, each reading within an epoch, and each run's result."""

    def on_epoch(self, row: EpochRow) -> None: ...

    def on_reading(self, row: CurveRow | ProbeRow) -> None: ...

    def on_result(self, result: RunResult) -> None: ...


def tell(sink: Sink, event: RunEvent) -> None:
    """Pass an event to the method of the sink that takes it."""
    if isinstance(event, EpochRow):
        sink.on_epoch(event)
    elif isinstance(event, RunResult):
        sink.on_result(event)
    else:
        sink.on_reading(event)
