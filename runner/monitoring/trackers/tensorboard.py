"""TensorBoard: a folder for each run, `RESULTS/tensorboard/run-001`, so that `tensorboard --logdir results` shows all.

Under each column's name the run's scalars by epoch; by optimizer step, under `curve/` the readings within epochs, under
`LAYER/MEASURE` the probes, and under each parameter's name its histograms; and the run's grid values with its results.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from runner.errors import UserError
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, require
from runner.storage import histograms
from runner.storage.histograms import Histogram
from runner.storage.rows import CURVE_FIELDS, EPOCH_FIELDS, CurveRow, EpochRow, ProbeRow, RunResult

SCALARS = tuple(name for name in EPOCH_FIELDS if name not in ("epoch", "step"))
CURVES = tuple(name for name in CURVE_FIELDS if name not in ("epoch", "step", "duration"))

MODULES = ("tensorboard.summary.writer.record_writer", "tensorboard.compat.proto.event_pb2", "torch.utils.tensorboard")


def tensorboard() -> Opener:
    """Event files for TensorBoard, in RESULTS/tensorboard/."""
    require("TensorBoard", "tensorboard", MODULES)
    return TensorBoard


class TensorBoard:
    """Writes event files, each open only while it is written to: a stack may have more runs than a process files."""

    def __init__(self, sweep: TrackedSweep) -> None:
        self.sweep, self.root = sweep, sweep.output or sweep.folder / "tensorboard"
        if sweep.output and sweep.output.exists() and any(sweep.output.iterdir()):
            raise UserError(f"{sweep.output} is not empty; -o takes a folder of its own")
        self.where = str(self.root)
        self._file = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._histograms: dict[str, list[ProbeRow]] = {}
        for folder in self.root.glob("run-[0-9]*"):
            for file in folder.glob("events.out.tfevents.*"):
                file.unlink()
            with suppress(OSError):  # somebody else's file is in it
                folder.rmdir()

    def on_epoch(self, row: EpochRow) -> None:
        self._end_of_reading(row.run_id)
        self._scalars(row.run_id, row.epoch, {name: getattr(row, name) for name in SCALARS})

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        held = self._histograms.get(row.run_id)
        if held and held[0].step != row.step:
            self._end_of_reading(row.run_id)
        if isinstance(row, CurveRow):
            self._scalars(row.run_id, row.step, {f"curve/{name}": getattr(row, name) for name in CURVES})
        elif histograms.is_part(row):
            self._histograms.setdefault(row.run_id, []).append(row)
        else:
            self._scalars(row.run_id, row.step, {"/".join(filter(None, (row.layer, row.measure))): row.value})

    def on_result(self, result: RunResult) -> None:
        self._end_of_reading(result.run_id)
        if result.status == "interrupted":
            return
        from torch.utils.tensorboard.summary import hparams

        found = {f"result/{name}": value for name, value in result.outcomes.items()}
        parameters = self.sweep.runs[result.run_id].parameters
        values = {name: _number(parameters[name]) for name in self.sweep.grid_keys if name in parameters}
        for summary in hparams(values, found):
            self._write(result.run_id, 0, summary)
        self._scalars(result.run_id, len(result.rows), found)

    def caught_up(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        for run_id in list(self._histograms):
            self._end_of_reading(run_id)

    def _end_of_reading(self, run_id: str) -> None:
        """The rows of a reading's histograms are all there."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        rows = self._histograms.pop(run_id, [])
        for (layer, name), histogram in histograms.collect(rows).items():
            value = Summary.Value(tag=_tag(layer, name), histo=_histogram(histogram))
            self._write(run_id, rows[0].step, Summary(value=[value]))

    def _scalars(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(run_id, step, Summary(value=scalars))

    def _write(self, run_id: str, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = self.root / f"run-{self.sweep.runs[run_id].number:03}" / self._file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if file.tell() == 0:
                RecordWriter(file).write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            RecordWriter(file).write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())


def _tag(layer: str, name: str) -> str:
    """A parameter's full name, as `named_parameters` has it, and `.grad` for its gradient: `conv1.weight.grad`."""
    parameter = name.removesuffix("_gradient")
    return ".".join(filter(None, (layer, parameter, "grad" if parameter != name else "")))


def _histogram(found: Histogram) -> Any:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    limits = found.limits
    half = (found.high - found.low) / len(limits) / 2
    middles = [(limit - half, count) for limit, count in zip(limits, found.counts, strict=True)]
    return HistogramProto(
        min=found.low,
        max=found.high,
        num=sum(found.counts),
        sum=sum(middle * count for middle, count in middles),  # the values are gone; TensorBoard shows neither sum
        sum_squares=sum(middle**2 * count for middle, count in middles),
        bucket_limit=limits,
        bucket=found.counts,
    )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
